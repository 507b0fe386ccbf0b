"""The options of the pretext task and of its network."""

from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from ktfast.config import pretext_tasks
from ktfast.config.section import Section, TrainingConfig, side_option


class PretextConfig(Section):
    """The pretext task, and the network that learns the task."""

    task: str = Field(
        "jigsaw++",
        description="what the network learns without labels; jigsaw++: puzzles of tiles, some of "
        "another image; jigsaw: puzzles without tiles of another image; rotation: by how much a "
        "photograph is turned; context: where a tile lies beside the middle tile; or MODULE:CLASS, "
        "a class of yours; an option that the task does not use is refused",
    )
    trunk: Literal["vgg16", "alexnet"] = Field(
        "vgg16", description="convolutional network that sees each tile or photograph"
    )
    width: float = Field(
        1.0, gt=0, le=4, description="multiplies the channels of every trunk layer"
    )
    batch_norm: bool = Field(False, description="normalise over the batch after each convolution")
    crop: int = Field(255, ge=16, description="px; side of the centre crop, cut into cells")
    grid: int = Field(3, ge=2, le=4, description="number of cells along each side of the crop")
    tile_size: int = Field(64, ge=8, description="px; side of the tile that is cut from a cell")
    jitter: int | None = Field(
        None,
        ge=0,
        description="px; largest shift of a tile in its cell; not set: 18, or less if 18 px do not "
        "fit the cell; with the task rotation, the network sees squares of crop - jitter px, and "
        "the jitter is an eighth of crop if it is not set",
    )
    chroma_shift: int = Field(
        2, ge=0, description="px; largest extra shift of each colour channel of a tile"
    )
    permutations: int = Field(
        701,
        ge=2,
        description="size of the permutation set, which is the number of classes; task jigsaw: "
        "1000 by default",
    )
    permutation_file: Path | None = side_option(
        None,
        description=".npy or text file with a permutation of the cells in each row, instead of a "
        "set of pretext.permutations that ktfast chooses",
    )
    min_distance: int = Field(
        3, ge=2, description="smallest Hamming distance between two permutations"
    )
    max_occluders: int = Field(
        2, ge=0, description="largest number of occluders: tiles replaced by tiles of another image"
    )
    gray_probability: float = Field(
        0.7,
        ge=0,
        le=1,
        description="probability that a puzzle is shown in gray; by default 0.3 for the task "
        "jigsaw and 0 for the task context",
    )
    projection_probability: float = Field(
        0.5,
        ge=0,
        le=1,
        description="probability that a colour puzzle is shown without the green-magenta axis; "
        "by default 0 for the task jigsaw and 1 for the task context",
    )
    donor_color: Literal["shared", "independent"] = Field(
        "shared",
        description="colour of occluders; shared: gray or colour as in the puzzle; independent: "
        "gray or colour is drawn separately for the occluders",
    )
    statistics: Literal["tile", "channel"] = Field(
        "tile",
        description="how a tile is normalised; tile: by the mean and standard deviation of the "
        "whole tile; channel: by those of each colour channel",
    )
    tile_features: int = Field(
        1024, ge=8, description="units of the layer that sees each tile alone"
    )
    hidden: int = Field(
        4096,
        ge=8,
        description="units of the layer that sees all tiles together; task rotation: of both "
        "layers above the trunk",
    )
    dropout: float = Field(
        0.5, ge=0, lt=1, description="probability of dropping a unit of the fully connected layers"
    )
    cell_loss: float = Field(
        0.0,
        ge=0,
        description="weight of a second loss: the network also names the cell that each slot "
        "shows; 0: the paper's loss alone; with 1, some networks learn the puzzle on data sets on "
        "which they otherwise stay at chance, if pretext.training.learning_rate is low enough",
    )
    puzzles_per_image: int = Field(
        1,
        ge=1,
        description="number of permutations in which a training step shows the tiles of each "
        "image; the trunk sees each tile once, so that more puzzles take little more time; 1: as "
        "in the paper; with 8, networks learn the puzzle in fewer steps",
    )
    stop_at_chance: bool = side_option(
        False,
        description="end the training with an error if it is no better than guessing after 40 % of "
        "its steps; a training at chance is reported in any case",
    )
    feature_measures: int = side_option(
        4,
        ge=0,
        description="number of measures of the features in the training, on up to 1,000 images; "
        "measured is how well nearest neighbours name a class, or, for images without classes, "
        "how well two clusterings with different seeds agree; the report shows the curve; the "
        "network never sees the classes; 0: not measured",
    )
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_task(cls, values: Any) -> Any:
        return pretext_tasks.completed(values)

    def unused(self) -> Collection[str]:
        """Name the options that the task does not use."""
        has_file = self.permutation_file is not None
        return pretext_tasks.unused_options(self.task, has_file=has_file)

    @model_validator(mode="after")
    def _options_have_an_effect(self) -> "PretextConfig":
        if self.task not in pretext_tasks.USED and not all(self.task.partition(":")):
            raise ValueError(
                f"task {self.task!r} is unknown; expected {', '.join(pretext_tasks.USED)} or "
                "MODULE:CLASS"
            )
        for name in sorted(self.unused()):
            value, defaults = getattr(self, name), pretext_tasks.DEFAULTS.get(self.task, {})
            if value in (type(self).model_fields[name].default, defaults.get(name)):
                continue
            who = f"the task {self.task}"
            if name in pretext_tasks.USED.get(self.task, ()):
                who = f"a set from permutation_file {self.permutation_file}"
            raise ValueError(
                f"{name} is {value}, but {who} does not use {name}; leave pretext.{name} out"
            )
        return self

    @model_validator(mode="after")
    def _tiles_fit(self) -> "PretextConfig":
        if self.task not in pretext_tasks.USED or "tile_size" in self.unused():
            return self
        cell = self.crop // self.grid
        need = self.tile_size + self.chroma_shift + (self.jitter or 0)
        if need > cell:
            raise ValueError(
                f"tile_size {self.tile_size} + jitter {self.jitter or 0} + chroma_shift "
                f"{self.chroma_shift} = {need} px does not fit a cell of {cell} px "
                f"(crop {self.crop} / grid {self.grid}); lower tile_size or raise crop"
            )
        unseen = {"max_occluders", "min_distance"} & set(self.unused())
        if not unseen and self.max_occluders >= self.min_distance:
            raise ValueError(
                f"max_occluders {self.max_occluders} must be smaller than min_distance "
                f"{self.min_distance}: the occluders could hide every tile in which two "
                "permutations differ"
            )
        return self

    @model_validator(mode="after")
    def _puzzles_differ(self) -> "PretextConfig":
        unseen = {"permutations", "puzzles_per_image"} & set(self.unused())
        if not unseen and self.puzzles_per_image > self.permutations:
            raise ValueError(
                f"puzzles_per_image {self.puzzles_per_image} must be at most permutations "
                f"{self.permutations}, because all puzzles of an image differ"
            )
        return self

    @model_validator(mode="after")
    def _shift_fits(self) -> "PretextConfig":
        if self.task == "rotation" and self.jitter is not None and self.jitter >= self.crop:
            raise ValueError(
                f"jitter {self.jitter} px must be smaller than crop {self.crop} px; lower jitter"
            )
        return self
