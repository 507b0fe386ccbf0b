"""The options of each stage, from the images to the probes."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from ktfast.config.section import Section, TrainingConfig, side_option

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

    features: Path | None = side_option(
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
    memory_budget_gb: float = side_option(
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
