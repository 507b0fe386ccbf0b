"""The configuration of a run: frozen, validated, read from TOML and overridden by name.

Every option carries its description (the command line's help is made from it) and, where the
method's paper fixes a value, that value as its default.
"""

import difflib
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ktfast.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Section(BaseModel):
    """A frozen group of options that refuses unknown names."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        """Complete groups of options that are given in part as this one's defaults have them."""
        if not isinstance(values, dict):
            return values
        completed = dict(values)
        for name, field in cls.model_fields.items():
            if isinstance(values.get(name), dict) and isinstance(field.default, Section):
                own = field.default.model_dump(exclude_unset=True)
                completed[name] = {**own, **values[name]}
        return completed


class TrainingConfig(Section):
    """How a network is trained: SGD with momentum, one schedule, one precision."""

    epochs: float = Field(70.0, gt=0, description="passes over the data; may be fractional")
    batch_size: int = Field(256, ge=1, description="images a step")
    accumulate: int = Field(1, ge=1, description="micro-batches a step; batch_size is split")
    learning_rate: float = Field(0.01, gt=0, description="initial learning rate of the weights")
    bias_rate: float = Field(2.0, gt=0, description="learning-rate factor of biases (no decay)")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD momentum")
    weight_decay: float = Field(5e-4, ge=0, description="L2 penalty on weights, not on biases")
    schedule: Literal["step", "cosine", "constant"] = Field(
        "step", description="how the learning rate falls"
    )
    drop_at: tuple[float, ...] = Field(
        (2 / 7, 4 / 7, 6 / 7),
        description="schedule step: when it drops, as fractions of the training",
    )
    drop_factor: float = Field(0.1, gt=0, lt=1, description="schedule step: factor of each drop")
    warmup: float = Field(
        0.0, ge=0, lt=1, description="fraction of the training that rises linearly"
    )
    clip_norm: float = Field(
        0.0, ge=0, description="longest gradient of a step, all weights together; 0: no limit"
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: bfloat16 where the device is fast at it, else float16 or float32"
    )
    channels_last: bool = Field(True, description="keep activations channels-last")
    compile: bool | Literal["auto"] = Field(
        "auto", description="torch.compile the network; auto: on a GPU, where a trial is faster"
    )
    cuda_graphs: bool | Literal["auto"] = Field(
        "auto", description="run the network as CUDA graphs; auto: where a trial is faster"
    )
    deterministic: bool = Field(False, description="only deterministic GPU algorithms")
    checkpoint_minutes: float = Field(5.0, gt=0, description="minutes between checkpoints")
    log_every: int = Field(20, ge=1, description="steps between rows of metrics.jsonl")
    tensorboard: bool = Field(False, description="also write TensorBoard events, if installed")


ROLES = ("pretext", "cluster", "transfer", "train", "test")
"""What images are used for, in the order of the stages."""


class DataConfig(Section):
    """Image folders by role; a role left empty takes the images of the role before it."""

    pretext: Path | None = Field(None, description="images that Jigsaw++ learns from")
    cluster: Path | None = Field(None, description="images whose features are clustered")
    transfer: Path | None = Field(None, description="images that get pseudo-labels")
    train: Path | None = Field(None, description="labelled images that probes learn from")
    test: Path | None = Field(None, description="labelled images that probes are tested on")
    short_side: int = Field(256, ge=16, description="px; images are resized once to this side")
    quality: int = Field(95, ge=50, le=100, description="JPEG quality of the prepared images")
    feed: Literal["auto", "dali", "torch", "resident"] = Field(
        "auto", description="auto: resident if the images fit the budget, else DALI, else torch"
    )
    memory_budget_gb: float = Field(2.0, ge=0, description="GB that resident images may take")
    hw_decoder_load: float | None = Field(
        None,
        ge=0,
        le=1,
        description="DALI on a GPU: share of the JPEG data that its hardware decoder gets; not set:"
        " measured before a long epoch, so that another run may round single pixels otherwise",
    )

    def folders(self) -> dict[str, Path]:
        """Folder of every role that has one, after the roles' defaults."""
        roles: dict[str, Path | None] = {"pretext": self.pretext}
        roles["cluster"] = self.cluster or roles["pretext"]
        roles["transfer"] = self.transfer or roles["cluster"]
        roles["train"] = self.train or roles["transfer"]
        roles["test"] = self.test
        return {role: folder for role, folder in roles.items() if folder is not None}


class PretextConfig(Section):
    """Jigsaw++: the puzzle and the network that solves it."""

    trunk: Literal["vgg16", "alexnet"] = Field("vgg16", description="network for the puzzle")
    width: float = Field(1.0, gt=0, le=4, description="multiplier of the trunk's channels")
    batch_norm: bool = Field(False, description="batch-norm after each convolution")
    crop: int = Field(255, ge=16, description="px; centre crop that is cut into cells")
    grid: int = Field(3, ge=2, le=4, description="cells along each side")
    tile_size: int = Field(64, ge=8, description="px; side of a tile")
    jitter: int | None = Field(
        None, ge=0, description="px; largest shift of a tile; empty: 18, or what the cell allows"
    )
    chroma_shift: int = Field(2, ge=0, description="px; largest extra shift per colour channel")
    permutations: int = Field(701, ge=2, description="size of the permutation set")
    min_distance: int = Field(3, ge=2, description="least Hamming distance of two permutations")
    max_occluders: int = Field(2, ge=0, description="most tiles that come from another image")
    gray_probability: float = Field(0.7, ge=0, le=1, description="share of gray images")
    projection_probability: float = Field(
        0.5, ge=0, le=1, description="share of colour images without the green-magenta axis"
    )
    donor_color: Literal["shared", "independent"] = Field(
        "shared", description="whether occluders follow the puzzle's colour decision"
    )
    statistics: Literal["tile", "channel"] = Field(
        "tile", description="normalise a tile by one mean and std, or by one per channel"
    )
    tile_features: int = Field(1024, ge=8, description="units of the layer each tile passes")
    hidden: int = Field(4096, ge=8, description="units of the layer all tiles pass together")
    dropout: float = Field(0.5, ge=0, lt=1, description="dropout of the fully connected layers")
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _tiles_fit(self) -> "PretextConfig":
        cell = self.crop // self.grid
        need = self.tile_size + self.chroma_shift + (self.jitter or 0)
        if need > cell:
            raise ValueError(
                f"tile_size {self.tile_size} + jitter {self.jitter or 0} + chroma_shift "
                f"{self.chroma_shift} = {need} px does not fit a cell of {cell} px "
                f"(crop {self.crop} / grid {self.grid})"
            )
        if self.max_occluders >= self.min_distance:
            raise ValueError(
                f"max_occluders {self.max_occluders} hides tiles that tell apart permutations at "
                f"min_distance {self.min_distance}; it must be smaller"
            )
        return self


class FeaturesConfig(Section):
    """Which features are clustered, and how they are read."""

    source: str = Field(
        "pretext",
        description="pretext, hog, torchvision:MODEL, MODULE:CALLABLE (uint8 [B,H,W,3] to [B,d])",
    )
    weights: Path | None = Field(None, description="safetensors of the source, if not the run's")
    layer: str = Field("", description="layer of the trunk; empty: the last one trained")
    pool: int = Field(4, ge=1, description="maps are pooled to pool x pool")
    pooling: Literal["max", "mean"] = Field("max", description="how maps are pooled")
    crop: int = Field(0, ge=0, description="px; centre crop that is fed; 0: the puzzle's")
    batch_size: int = Field(256, ge=1, description="images a step")
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="of the network; auto: the narrowest that the device is fast at"
    )
    dtype: Literal["float16", "float32"] = Field("float16", description="type on disk")
    normalized: bool = Field(
        False,
        description="store rows as cluster.normalize asks (PCA is fitted on a sample first): less "
        "disk and one pass less, but another cluster.normalize then needs new features",
    )


class ClusterConfig(Section):
    """K-means over the features."""

    features: Path | None = Field(
        None, description="cluster this .npy or feature folder instead of the run's own features"
    )
    n_clusters: int = Field(2000, ge=2, description="number of clusters = pseudo-labels")
    normalize: Literal["none", "l2", "pca-l2", "pca-whiten-l2"] = Field(
        "l2", description="what is done to the features first"
    )
    pca: int = Field(256, ge=1, description="dimensions kept by the pca choices of normalize")
    init: Literal["k-means||", "k-means++", "random"] = Field(
        "k-means||", description="first centres"
    )
    n_init: int = Field(1, ge=1, description="starts; the one of least inertia is kept")
    max_iter: int = Field(100, ge=1, description="most iterations")
    tol: float = Field(1e-4, ge=0, description="stop when centres move less, as in scikit-learn")
    memory_budget_gb: float = Field(
        0, ge=0, description="GPU memory; features beyond it are streamed; 0: 80 % of what is free"
    )


class TransferConfig(Section):
    """The target network and its training on pseudo-labels."""

    target: Literal["alexnet", "vgg16"] = Field("alexnet", description="target architecture")
    variant: Literal["caffe", "torchvision"] = Field("caffe", description="which AlexNet")
    width: float = Field(1.0, gt=0, le=4, description="multiplier of the channels")
    batch_norm: bool = Field(False, description="batch-norm instead of LRN")
    image_size: int = Field(256, ge=16, description="px; side of the images that crops come from")
    crop: int = Field(227, ge=16, description="px; random crop (and mirror) fed to the network")
    dropout: float = Field(0.5, ge=0, lt=1, description="dropout of the fully connected layers")
    balanced: bool = Field(
        False,
        description="show every cluster equally often; images of small ones repeat in an epoch",
    )
    training: TrainingConfig = TrainingConfig(epochs=90.0)

    @model_validator(mode="after")
    def _crop_fits(self) -> "TransferConfig":
        if self.crop > self.image_size:
            raise ValueError(f"crop {self.crop} is larger than image_size {self.image_size}")
        return self


class EvaluateConfig(Section):
    """Probes on frozen layers, beside baselines on the same data."""

    layers: tuple[str, ...] = Field((), description="layers to probe; empty: every conv layer")
    baselines: tuple[Literal["random", "pretext", "labels"], ...] = Field(
        ("random", "pretext", "labels"),
        description="random weights; the target trained by the puzzle itself; trained by labels",
    )
    random_clusters: bool = Field(
        True, description="also cluster the features of an untrained network, for its NMI"
    )
    label_fractions: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (), description="also probe with these shares of each class's labels, such as 0.01,0.1"
    )
    retrain: tuple[str, ...] = Field(
        (),
        description="freeze everything up to each of these layers, such as conv1,conv5, and train "
        "what lies above anew on the labels (the paper's non-linear probes)",
    )
    retrain_epochs: float | None = Field(
        None, gt=0, description="passes of each of these trainings; not set: transfer.training's"
    )
    probe_epochs: int = Field(30, ge=1, description="passes of a linear probe over the features")
    neighbors: int = Field(20, ge=1, description="neighbours of the k-NN probe")


class VocSection(Section):
    """What the protocols on PASCAL VOC share."""

    folder: Path | None = Field(
        None, description="PASCAL VOC year folder, such as VOCdevkit/VOC2007; not set: left out"
    )
    train: str = Field("trainval", description="list of its images that are learnt from")
    test: str = Field("test", description="list of its images that are tested on")


class VocClassificationConfig(VocSection):
    """Fine-tuning for classification, 80,000 steps as Krähenbühl et al. (2016)."""

    area: tuple[float, float] = Field(
        (0.1, 0.5), description="least and greatest share of a photograph that a crop covers"
    )
    test_crops: int = Field(10, ge=1, description="random crops whose scores are averaged")
    training: TrainingConfig = TrainingConfig(
        epochs=255.4,
        batch_size=16,
        learning_rate=0.001,
        weight_decay=1e-6,
        drop_at=(0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875),
        drop_factor=0.5,
        clip_norm=10.0,
    )

    @field_validator("area")
    @classmethod
    def _area_is_a_share(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1] <= 1:
            raise ValueError(f"must be two shares in (0, 1], the lesser first, got {value}")
        return value


class WholeImageConfig(VocSection):
    """A protocol whose photographs differ in size."""

    training: TrainingConfig

    @field_validator("training", check_fields=False)
    @classmethod
    def _sizes_differ(cls, value: TrainingConfig) -> TrainingConfig:
        if value.compile is not False or value.cuda_graphs is not False:
            raise ValueError(
                "compile and cuda_graphs must be false: photographs differ in size, and each "
                "would be compiled or captured anew"
            )
        return value


_WHOLE_IMAGES: dict[str, Any] = {"compile": False, "cuda_graphs": False}


class VocDetectionConfig(WholeImageConfig):
    """Fine-tuning for detection, Fast R-CNN, 150,000 steps of two photographs."""

    train_proposals: Path | None = Field(
        None, description=".mat or .npz of regions, such as selective search's; not set: windows"
    )
    test_proposals: Path | None = Field(None, description="the same for the images tested on")
    short_sides: tuple[Annotated[int, Field(ge=16)], ...] = Field(
        (600,), min_length=1, description="px; scales; the paper's: 480,576,688,864,1200"
    )
    longest: int = Field(1000, ge=16, description="px; longer side at most; with scales 2000")
    regions: int = Field(64, ge=4, description="regions learnt from, of each photograph")
    foreground: float = Field(
        0.25, gt=0, le=1, description="share of them at most that show an object"
    )
    training: TrainingConfig = TrainingConfig(
        epochs=59.9,
        batch_size=2,
        learning_rate=0.001,
        drop_at=(1 / 3, 2 / 3),
        **_WHOLE_IMAGES,
    )


class VocSegmentationConfig(WholeImageConfig):
    """Fine-tuning for segmentation, FCN-32s, 100,000 steps of 20 photographs."""

    train: str = Field("train", description="list of its images that are learnt from")
    test: str = Field("val", description="list of its images that are tested on")
    mirror: bool = Field(True, description="mirror half of the photographs that are learnt from")
    training: TrainingConfig = TrainingConfig(
        epochs=1366.0,
        batch_size=20,
        accumulate=20,
        learning_rate=1e-4,
        schedule="constant",
        **_WHOLE_IMAGES,
    )


class VocConfig(Section):
    """Fine-tuning of the target on PASCAL VOC; each protocol that has a folder is run."""

    models: tuple[Literal["transfer", "random", "pretext", "labels"], ...] = Field(
        ("transfer", "random"),
        min_length=1,
        description="what fine-tuning begins with: the run's target, and baselines as in evaluate",
    )
    classes: tuple[str, ...] = Field(
        (), description="names of the objects in the order of the masks' values; empty: VOC's 20"
    )
    data_init: bool = Field(
        True, description="scale the first weights of new layers by what 160 photographs give"
    )
    classification: VocClassificationConfig = VocClassificationConfig()
    detection: VocDetectionConfig = VocDetectionConfig()
    segmentation: VocSegmentationConfig = VocSegmentationConfig()

    def protocols(self) -> tuple[str, ...]:
        """Names of the protocols that have a folder."""
        names = ("classification", "detection", "segmentation")
        return tuple(name for name in names if getattr(self, name).folder is not None)


class Config(Section):
    """One run of the whole system."""

    seed: int = Field(
        0, ge=0, lt=1 << 32, description="the one seed that every random choice depends on"
    )
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    threads: int = Field(0, ge=0, description="CPU threads; 0: all that may be used")
    data: DataConfig = DataConfig()
    pretext: PretextConfig = PretextConfig()
    features: FeaturesConfig = FeaturesConfig()
    cluster: ClusterConfig = ClusterConfig()
    transfer: TransferConfig = TransferConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    voc: VocConfig = VocConfig()

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", value):
            raise ValueError(f"{value!r} is no device; expected auto, cpu, cuda or cuda:N")
        return value

    @model_validator(mode="after")
    def _crops_fit_images(self) -> "Config":
        for name, size in (
            ("pretext.crop", self.pretext.crop),
            ("features.crop", self.features.crop),
            ("transfer.image_size", self.transfer.image_size),
        ):
            if size > self.data.short_side:
                raise ValueError(
                    f"{name} {size} is larger than data.short_side {self.data.short_side}"
                )
        return self


def load_config(
    path: str | os.PathLike[str] | None, overrides: dict[str, str] | None = None
) -> Config:
    """Read a TOML file and apply overrides.

    Parameters
    ----------
    path : TOML file, or None for the paper's defaults.
    overrides : dotted option name -> value as typed on a command line.

    Raises
    ------
    ConfigError : the file cannot be read, or an option is unknown or impossible; names it.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ConfigError(f"there is no configuration file {path}") from error
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{path} cannot be read as TOML: {error}") from error
    kinds = options()
    for name, text in (overrides or {}).items():
        *sections, leaf = name.split(".")
        table = values
        for section in sections:
            table = table.setdefault(section, {})
            if not isinstance(table, dict):
                raise ConfigError(f"{path}: {section} must be a table of options, got {table!r}")
        table[leaf] = _parse_value(text, kinds[name][0] if name in kinds else None)
    return parse_config(values)


def parse_config(values: dict[str, Any]) -> Config:
    """Validate nested option values; `ConfigError` names every option that is wrong."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(item) for item in error.errors())) from error


def options(section: type[Section] = Config, prefix: str = "") -> dict[str, tuple[Any, Any, str]]:
    """Every option by its dotted name: (annotation, default, description)."""
    found: dict[str, tuple[Any, Any, str]] = {}
    for name, field in section.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            nested = options(annotation, f"{prefix}{name}.")
            for key, (kind, _, text) in nested.items():
                default: Any = field.default
                for part in key.removeprefix(f"{prefix}{name}.").split("."):
                    default = getattr(default, part)
                found[key] = (kind, default, text)
        else:
            found[f"{prefix}{name}"] = (annotation, field.default, field.description or "")
    return found


def _parse_value(text: str, kind: Any) -> Any:
    """Read a command-line value of an option's type.

    Text and paths are taken as they are, the rest as in TOML; lists may also be given as a,b,c.
    Empty is 'not set', or the empty list.
    """
    if kind is str or (Path in get_args(kind) and text):
        return text
    is_list = get_origin(kind) is tuple
    if text == "":
        return [] if is_list else None
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return [part.strip() for part in text.split(",")] if is_list else text
    return [value] if is_list and not isinstance(value, list) else value


def _explain(item: Any) -> str:
    name = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, options(), n=1)
        leaf_matches = [key for key in options() if key.endswith("." + name.split(".")[-1])]
        guess = (close or leaf_matches or [None])[0]
        hint = f"; did you mean {guess}?" if guess else ""
        return f"unknown option {name}{hint}"
    message = item["msg"].removeprefix("Value error, ")
    return f"{name}: {message}" if name else message
