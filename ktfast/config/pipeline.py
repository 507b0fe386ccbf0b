"""The options of each stage, from the images to the probes."""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ktfast.config import pretext_tasks
from ktfast.config.section import Section, TrainingConfig, side_option
from ktfast.config.sources import TeacherName, join_sources, read_source

ROLES = ("pretext", "cluster", "transfer", "train", "test")
"""What images are used for, in the order of the stages."""


class DataConfig(Section):
    """Image folders by role.

    A role without a folder uses the folder of the role before it. `pretext` and `test` have no
    default.
    """

    pretext: Path | None = Field(
        None, description="folder of the images that the pretext network learns from"
    )
    cluster: Path | None = Field(
        None,
        description="folder of the images whose features are clustered; not set: data.pretext",
    )
    transfer: Path | None = Field(
        None, description="folder of the images that get pseudo-labels; not set: data.cluster"
    )
    train: Path | None = Field(
        None,
        description="folder of the labelled images that probes learn from, one folder per class; "
        "not set: data.transfer",
    )
    test: Path | None = Field(
        None,
        description="folder of the labelled images that probes are tested on, one folder per "
        "class; not set: the stage evaluate measures only what needs no labels",
    )
    short_side: int = Field(
        256, ge=16, description="px; length of the shorter side of the prepared images"
    )
    quality: int = Field(95, ge=50, le=100, description="JPEG quality of the prepared images")
    max_megapixels: float = Field(
        64.0,
        gt=0,
        le=4000,
        description="millions of pixels; an image with more pixels is left out and listed; an "
        "image of 64 megapixels takes up to 2 GB of memory while it is decoded",
    )
    decoding: Literal["reduced", "full"] | None = Field(
        None,
        description="reduced: prepare decodes a JPEG file that is much larger than short_side at "
        "1/2, 1/4 or 1/8 of its size, which is faster and changes pixels a little; full: prepare "
        "decodes every pixel; not set: reduced, but images that an earlier version of ktfast began "
        "to prepare stay fully decoded",
    )
    feed: Literal["auto", "dali", "torch", "resident"] = Field(
        "auto",
        description="how images are loaded; resident: decoded once and kept in memory; dali: "
        "decoded by NVIDIA DALI; torch: decoded by Pillow in threads; auto: resident if the "
        "decoded images fit data.memory_budget_gb and, on a GPU, a third of its free memory, else "
        "dali if it is installed, else torch",
    )
    memory_budget_gb: float = Field(
        2.0, ge=0, description="GB of memory that decoded images or features may take"
    )
    hw_decoder_load: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of the JPEG data that the GPU's hardware decoder gets (DALI only); not "
        "set: ktfast measures the fastest share before a long epoch; two runs may then use "
        "different shares, which can round a pixel differently",
    )

    @model_validator(mode="after")
    def _decoder_has_an_effect(self) -> "DataConfig":
        if self.hw_decoder_load is not None and self.feed in ("torch", "resident"):
            raise ValueError(
                f"hw_decoder_load is an option of NVIDIA DALI, but the feed is {self.feed}; leave "
                "data.hw_decoder_load out, or set data.feed to dali"
            )
        return self

    @property
    def max_pixels(self) -> int:
        """Largest number of pixels of an image."""
        return round(self.max_megapixels * 1e6)

    def folders(self) -> dict[str, Path]:
        """Return the folder of each role, given or by default; leave out a role without either."""
        roles: dict[str, Path | None] = {"pretext": self.pretext}
        roles["cluster"] = self.cluster or roles["pretext"]
        roles["transfer"] = self.transfer or roles["cluster"]
        roles["train"] = self.train or roles["transfer"]
        roles["test"] = self.test
        return {role: folder for role, folder in roles.items() if folder is not None}


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
        1.0, gt=0, le=4, description="multiplies the number of channels of every trunk layer"
    )
    batch_norm: bool = Field(False, description="normalise over the batch after each convolution")
    crop: int = Field(255, ge=16, description="px; side of the centre crop that is cut into cells")
    grid: int = Field(3, ge=2, le=4, description="number of cells along each side of the crop")
    tile_size: int = Field(64, ge=8, description="px; side of the tile that is cut from a cell")
    jitter: int | None = Field(
        None,
        ge=0,
        description="px; largest shift of a tile in its cell; not set: 18, or less if 18 px do not "
        "fit the cell; task rotation: the network sees squares of crop - jitter px; not set: an "
        "eighth of crop",
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
        1024, ge=8, description="units of the layer that sees each tile separately"
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
    stop_at_chance: bool = side_option(
        False,
        description="end the training with an error if it is no better than guessing after 40 % of "
        "its steps; a training at chance is reported in any case",
    )
    feature_measures: int = side_option(
        4,
        ge=0,
        description="number of measures in the training of how well nearest neighbours name a "
        "class; the neighbours are taken among up to 1,000 training images; the report shows the "
        "curve; the network never sees the classes; 0, or images without classes: not measured",
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
    def _shift_fits(self) -> "PretextConfig":
        if self.task == "rotation" and self.jitter is not None and self.jitter >= self.crop:
            raise ValueError(
                f"jitter {self.jitter} px must be smaller than crop {self.crop} px; lower jitter"
            )
        return self


class FeaturesConfig(Section):
    """Which features are clustered, and how they are computed and stored."""

    source: str = Field(
        "pretext",
        description="teacher that computes the features: pretext (the run's pretext network), hog, "
        "torchvision:MODEL, timm:MODEL, hf:MODEL (of transformers), or MODULE:CALLABLE (a function "
        "from images uint8 [B, H, W, 3] to features [B, d]); @LAYER after a model or after pretext "
        "names a layer; ' + ' joins several teachers, which then have equal weight",
    )
    weights: Path | None = side_option(
        None,
        description="safetensors or torch file with the teacher's weights, for pretext, "
        "torchvision:MODEL and timm:MODEL; a classifier on top of the network may be missing; not "
        "set: the run's own weights for pretext, torchvision's default weights for "
        "torchvision:MODEL, the weights in the local cache for timm:MODEL",
    )
    checkpoint: Literal["last", "best"] = Field(
        "last",
        description="source pretext: which weights of the run's puzzle network give the features; "
        "last: those at the end of its training; best: those at the best of the "
        "pretext.feature_measures",
    )
    layer: str = Field(
        "",
        description="source pretext: layer of the trunk that gives the features; not set: the last "
        "layer of the pretext network",
    )
    normalization: Literal["auto", "image", "imagenet"] = Field(
        "auto",
        description="source pretext with features.weights: how pixels are normalised; image: by "
        "each image's own mean and standard deviation; imagenet: by ImageNet's; auto: as the file "
        "says, else imagenet if the file holds a classifier on top of the trunk, else image",
    )
    pool: int = Field(
        4,
        ge=1,
        description="source pretext, or a layer named by @: number of cells along each side to "
        "which the layer's map is pooled",
    )
    pooling: Literal["max", "mean"] = Field(
        "max",
        description="source pretext, or a layer named by @: a cell keeps its largest (max) or its "
        "mean value (mean)",
    )
    part_pca: int = Field(
        256,
        ge=1,
        description="several teachers: largest number of dimensions that PCA keeps of the features "
        "of each teacher",
    )
    crop: int = Field(
        0,
        ge=0,
        description="px; side of the centre crop that the teacher sees; 0: the size that a model "
        "of timm or transformers was made for, else pretext.crop",
    )
    batch_size: int = Field(256, ge=1, description="images that the teacher sees at a time")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="type in which a network (pretext or a MODEL) computes; auto: the narrowest "
        "type that the device computes fast",
    )
    dtype: Literal["float16", "float32"] = Field(
        "float16", description="type of the features on disk"
    )
    normalized: bool = Field(
        False,
        description="normalise the features by cluster.normalize before they are stored, with PCA "
        "fitted on a sample; PCA features take less disk, and clustering saves one pass; after a "
        "change of cluster.normalize, the features must be extracted again",
    )

    @property
    def teachers(self) -> tuple[TeacherName, ...]:
        """The teachers that `source` names."""
        return read_source(self.source)

    @property
    def learns(self) -> bool:
        """Whether a teacher is the pretext network with weights that the run trains."""
        return self.weights is None and any(part.kind == "pretext" for part in self.teachers)

    def unused(self) -> Collection[str]:
        """Name the options that the source does not use."""
        parts = self.teachers
        trunks = [part for part in parts if part.kind == "pretext"]
        has_effect = {
            "checkpoint": self.learns,
            "layer": any(not part.layer for part in trunks),
            "normalization": bool(trunks) and self.weights is not None,
            "pool": any(part.is_pooled for part in parts),
            "pooling": any(part.is_pooled for part in parts),
            "part_pca": len(parts) > 1,
            "weights": any(part.takes_weights for part in parts),
            "precision": any(part.is_network for part in parts),
        }
        return [name for name, used in has_effect.items() if not used]

    @field_validator("source")
    @classmethod
    def _joined(cls, value: str) -> str:
        return join_sources(value)

    @model_validator(mode="after")
    def _options_have_an_effect(self) -> "FeaturesConfig":
        for name in self.unused():
            value = getattr(self, name)
            if value != type(self).model_fields[name].default:
                user, other = f"the source {self.source}", "give another features.source"
                if name == "checkpoint" and any(part.kind == "pretext" for part in self.teachers):
                    user, other = "features.weights", "leave features.weights out"
                if name == "normalization" and self.learns:
                    user, other = "the network that the run trains", "give features.weights"
                raise ValueError(
                    f"{name} is {value}, but {user} does not use {name}; leave features.{name} out,"
                    f" or {other}"
                )
        return self

    @model_validator(mode="after")
    def _teachers_differ(self) -> "FeaturesConfig":
        parts = self.teachers
        twice = [part.text for number, part in enumerate(parts) if part in parts[:number]]
        if twice:
            raise ValueError(f"source names {twice[0]} twice; name each teacher once")
        takers = {(part.kind, part.name): part.text for part in parts if part.takes_weights}
        if self.weights is not None and len(takers) > 1:
            raise ValueError(
                f"weights is one file, but source names {len(takers)} networks that take a file "
                f"({', '.join(takers.values())}); leave features.weights out, or name one network"
            )
        return self


class ClusterConfig(Section):
    """K-means over the features."""

    features: Path | None = side_option(
        None,
        description="features to cluster: a folder that `ktfast features` wrote; an .npz or "
        "Parquet file with paths and features; or a .npy file, if possible with a .csv or .txt "
        "list of paths beside it; paths are relative to data.transfer; not set: the run's own "
        "features",
    )
    n_clusters: int = Field(
        2000, ge=2, description="number of clusters, which is the number of pseudo-labels"
    )
    normalize: Literal["none", "l2", "pca-l2", "pca-whiten-l2"] = Field(
        "l2",
        description="what is done to the features before clustering; l2: each row is scaled to "
        "length 1; pca: rows are projected on their principal axes first; whiten: every axis is "
        "scaled to variance 1",
    )
    pca: int = Field(
        256, ge=1, description="dimensions that PCA keeps, if cluster.normalize asks for PCA"
    )
    init: Literal["k-means||", "k-means++", "random"] = Field(
        "k-means||", description="method that chooses the first centres"
    )
    n_init: int = Field(
        1, ge=1, description="number of starts; the start with the smallest inertia is kept"
    )
    max_iter: int = Field(100, ge=1, description="largest number of iterations of a start")
    tol: float = Field(
        1e-4,
        ge=0,
        description="stop when the squared movements of the centres add up to at most this "
        "share of the features' mean variance, as in scikit-learn",
    )
    memory_budget_gb: float = side_option(
        0,
        ge=0,
        description="GB of GPU memory that K-means may use; features that do not fit are streamed "
        "from host memory; 0: 80 % of the free GPU memory",
    )
    link: bool = side_option(
        False,
        description="also make the folder by_cluster in the run folder: one folder per cluster, "
        "with symbolic links to its images, the most central image first; images are "
        "copied where links are impossible",
    )

    def unused(self) -> Collection[str]:
        """Name the options of PCA if the features are not projected."""
        return () if self.normalize.startswith("pca") else ("pca",)


# Options of the section `transfer` that only some objectives use.
_UNUSED_BY_OBJECTIVE = {
    "clusters": ("pca", "temperature"),
    "regression": ("balanced", "temperature"),
    "similarity": ("balanced",),
}


def unused_by_objective(objective: str) -> tuple[str, ...]:
    """Name the options of the section `transfer` that an objective does not use.

    Parameters
    ----------
    objective : str
        Value of `transfer.objective`. An unknown value, which is refused elsewhere, uses all.

    Returns
    -------
    names : tuple of str
        Names without the section.
    """
    return _UNUSED_BY_OBJECTIVE.get(objective, ())


class TransferConfig(Section):
    """The target network, and its training on the pseudo-labels or on the teacher's features."""

    objective: Literal["clusters", "regression", "similarity"] = Field(
        "clusters",
        description="what the target learns; clusters: the pseudo-label of each image; regression: "
        "the teacher's features of each image; similarity: which images of a batch the teacher's "
        "features find alike; an option that the objective does not use is refused",
    )
    pca: int = Field(
        256,
        ge=1,
        description="objectives regression and similarity: largest number of principal axes of the "
        "teacher's features that are kept, and number of the target's outputs",
    )
    temperature: float = Field(
        0.1,
        gt=0,
        description="objective similarity: similarities are divided by this number; a small number "
        "makes only the most similar images count",
    )
    target: str = Field(
        "alexnet",
        description="architecture of the target network: alexnet, vgg16, torchvision:NAME or "
        "timm:NAME, such as torchvision:resnet18; a network of torchvision or timm has random "
        "weights and its own width and dropout",
    )
    variant: Literal["caffe", "torchvision"] = Field(
        "caffe", description="which AlexNet: Caffe's with groups and LRN, or torchvision's"
    )
    width: float = Field(
        1.0,
        gt=0,
        le=4,
        description="multiplies the number of channels of every target layer",
    )
    batch_norm: bool = Field(
        False, description="normalise over the batch after each convolution, instead of LRN"
    )
    image_size: int = Field(
        256, ge=16, description="px; side of the image's central square, from which crops are cut"
    )
    crop: int = Field(
        227,
        ge=16,
        description="px; side of the square that the target sees; in training it is cut at a "
        "random place and mirrored at random",
    )
    area: tuple[float, float] | None = Field(
        None,
        description="smallest and largest share of the image that a crop covers in training, such "
        "as 0.2,1; the crop has an aspect ratio of 3/4 to 4/3 and is resized to transfer.crop; not "
        "set: the crop is a square of transfer.crop px that is not resized",
    )
    color_jitter: float = Field(
        0.0,
        ge=0,
        le=1,
        description="largest relative change of brightness, contrast and saturation in training, "
        "such as 0.4; 0: colours do not change",
    )
    dropout: float = Field(
        0.5, ge=0, lt=1, description="probability of dropping a unit of the fully connected layers"
    )
    balanced: bool = Field(
        False,
        description="show every cluster equally often; the images of small clusters are then shown "
        "several times per epoch; objective clusters only",
    )
    training: TrainingConfig = TrainingConfig(epochs=90.0)

    def unused(self) -> Collection[str]:
        """Name the options that neither the target network nor the objective uses."""
        return (*self._unused_by_target(), *unused_by_objective(self.objective))

    def _unused_by_target(self) -> tuple[str, ...]:
        if ":" in self.target:
            return ("variant", "width", "batch_norm", "dropout")
        return () if self.target == "alexnet" else ("variant",)

    @model_validator(mode="after")
    def _batches_stay_whole(self) -> "TransferConfig":
        if self.objective == "similarity" and self.training.accumulate > 1:
            raise ValueError(
                f"training.accumulate is {self.training.accumulate}, but the objective similarity "
                "does not use parts of a batch: it compares all images of a batch with each other; "
                "leave transfer.training.accumulate out, or lower transfer.training.batch_size"
            )
        return self

    @field_validator("area")
    @classmethod
    def _area_is_a_share(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 < value[0] <= value[1] <= 1:
            raise ValueError(f"expected two shares in (0, 1], the smaller first, got {value}")
        return value

    @field_validator("target")
    @classmethod
    def _known_target(cls, value: str) -> str:
        library, _, name = value.partition(":")
        if value not in ("alexnet", "vgg16") and not (library in ("torchvision", "timm") and name):
            raise ValueError(
                f"expected alexnet, vgg16, torchvision:NAME or timm:NAME, got {value!r}"
            )
        return value

    @model_validator(mode="after")
    def _options_have_an_effect(self) -> "TransferConfig":
        of_target = self._unused_by_target() if ":" in self.target else ()
        unused = [(name, f"the target {self.target}", "its default") for name in of_target]
        unused += [
            (name, f"the objective {self.objective}", "another transfer.objective")
            for name in unused_by_objective(self.objective)
        ]
        for name, who, instead in unused:
            value = getattr(self, name)
            if value != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} is {value}, but {who} does not use {name}; leave transfer.{name} out, "
                    f"or give {instead}"
                )
        return self

    @model_validator(mode="after")
    def _crop_fits(self) -> "TransferConfig":
        if self.target == "vgg16" and self.variant != "caffe":
            raise ValueError(
                f"variant {self.variant} is an AlexNet, but the target is {self.target}; leave "
                "transfer.variant out"
            )
        if self.crop > self.image_size:
            raise ValueError(
                f"crop {self.crop} px is larger than image_size {self.image_size} px; lower crop "
                "or raise image_size"
            )
        return self


class EvaluateConfig(Section):
    """Probes on frozen layers of the target and of its baselines."""

    layers: tuple[str, ...] = Field(
        (),
        description="layers that are probed, such as conv1,conv5; empty: every conv layer; for a "
        "network of torchvision or timm: the last layer of each size of the maps, such as "
        "layer1,layer4",
    )
    baselines: tuple[Literal["random", "pretext", "labels"], ...] = Field(
        ("random", "pretext", "labels"),
        description="networks that the target is compared with; random: random weights; pretext: "
        "the target's architecture trained on the pretext task; labels: trained on the true "
        "labels",
    )
    headline: str = Field(
        "",
        description="comparison with random weights that the report's headline states, settled "
        "before the run as MEASURE:LAYER, such as knn:conv5; measures are knn (nearest neighbours) "
        "and linear (linear probe); not set: the linear probe at each network's best layer",
    )
    random_clusters: bool = Field(
        True,
        description="also cluster the features of an untrained network, and report how well these "
        "clusters agree with the true labels",
    )
    unlabelled: bool = side_option(
        False,
        description="also measure the clusters and the target without labels; without data.test, "
        "these measures are the whole evaluation; they need the stage cluster with every "
        "transfer.objective",
    )
    label_fractions: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (),
        description="also probe with these shares of the labels of each class, such as 0.01,0.1",
    )
    retrain: tuple[str, ...] = Field(
        (),
        description="for each of these layers, such as conv1,conv5: freeze the network up to the "
        "layer, and train the layers above it from scratch on the labels (the paper's non-linear "
        "probes)",
    )
    retrain_epochs: float | None = Field(
        None,
        gt=0,
        description="epochs of each training for evaluate.retrain; not set: "
        "transfer.training.epochs",
    )
    probe_epochs: int = Field(30, ge=1, description="epochs of each linear probe")
    neighbors: int = Field(20, ge=1, description="number of neighbours of the k-NN probe")

    @field_validator("headline")
    @classmethod
    def _names_measure_and_layer(cls, value: str) -> str:
        measure, _, layer = value.partition(":")
        if value and not (measure in ("knn", "linear") and layer):
            raise ValueError(
                f"expected MEASURE:LAYER with the measure knn or linear, such as knn:conv5, got "
                f"{value!r}"
            )
        return value

    def unused(self) -> Collection[str]:
        """Name the options of retraining if no layer is retrained."""
        return () if self.retrain else ("retrain_epochs",)
