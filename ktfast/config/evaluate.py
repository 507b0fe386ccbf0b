"""The options of the evaluation: probes, baselines and measures without labels."""

from collections.abc import Collection
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from ktfast.config.protocols import (
    OWN_MODELS,
    LabelledImages,
    ModelFile,
    check_names,
    read_models,
)
from ktfast.config.section import Section, side_option


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
    teacher: bool = Field(
        False,
        description="also probe the teacher's own features of the labelled images, the ceiling of "
        "the transfer; the stage features then extracts those of data.train and data.test too",
    )
    random_clusters: bool = Field(
        True,
        description="also cluster the features of an untrained network, and report how well these "
        "clusters agree with the true labels",
    )
    unlabelled: bool = side_option(
        False,
        description="also measure the clusters and the target without labels; without data.test, "
        "these measures are the whole evaluation; the stage cluster must be done, also for a "
        "transfer.objective that learns no clusters",
    )
    models: dict[str, ModelFile] = side_option(
        {},
        description="networks that are probed beside the run's own, as a table of names and files, "
        'such as { mine = "mine.safetensors" }; a file that ktfast did not write needs its '
        'network, as in { moco = { file = "moco.pth", network = "torchvision:resnet50" } }; '
        "without file: random weights; further entries: layers, crop, normalization; a run folder "
        "without a stage transfer probes these networks only",
    )
    sets: dict[str, LabelledImages] = side_option(
        {},
        description="further labelled images on which every network is probed, as a table of names "
        'and folders, such as { cars = { train = "cars/train", test = "cars/test" } }',
    )
    label_fractions: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
        (),
        description="also probe with these shares of the labels of each class, such as 0.01,0.1",
    )
    label_counts: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (),
        description="also probe with these numbers of labels of each class, such as 1,5,20",
    )
    label_draws: int = Field(
        1,
        ge=1,
        le=1000,
        description="number of times that the images of each share of the labels are drawn; the "
        "report shows mean and standard deviation",
    )
    retrain: tuple[str, ...] = Field(
        (),
        description="for each of these layers, such as conv1,conv5: freeze the network up to the "
        "layer, and train the layers above it from scratch on the labels (the paper's non-linear "
        "probes); alexnet and vgg16 also have the layers fc6 and fc7",
    )
    retrain_epochs: float | None = Field(
        None,
        gt=0,
        description="epochs of each training for evaluate.retrain; not set: "
        "transfer.training.epochs",
    )
    fine_tune: bool = Field(
        False,
        description="also train each network as a whole, from its weights, with each share of the "
        "labels and each draw; without shares, with all labels",
    )
    fine_tune_epochs: float | None = Field(
        None,
        gt=0,
        description="length of each training for evaluate.fine_tune: as many steps as this number "
        "of epochs of all labelled images has; not set: transfer.training.epochs",
    )
    fine_tune_rate: float | None = Field(
        None,
        gt=0,
        description="initial learning rate of each training for evaluate.fine_tune; not set: "
        "transfer.training.learning_rate",
    )
    protocols: tuple[Literal["goyal", "deepcluster"], ...] = Field(
        (),
        description="variants of the linear probe that are made too; goyal: as in "
        "Goyal et al. (2019), with batch-norm, weight decay 5e-4 and 1 crop; deepcluster: as in "
        "Caron et al. (2018), with weight decay 1e-4 and 10 crops; the probe on features of "
        "centre crops (frozen-center) is always made",
    )
    probe_epochs: int = Field(30, ge=1, description="epochs of each linear probe")
    neighbors: int = Field(20, ge=1, description="number of neighbours of the k-NN probe")

    @field_validator("models", mode="before")
    @classmethod
    def _paths_are_files(cls, value: Any) -> Any:
        return read_models(value)

    @field_validator("models", "sets")
    @classmethod
    def _names_are_usable(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        check_names(value, OWN_MODELS if info.field_name == "models" else ())
        return value

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
        """Name the options of retraining, fine-tuning and shares of the labels without effect."""
        drawn = self.label_fractions or self.label_counts or self.fine_tune
        return (
            *(() if drawn else ("label_draws",)),
            *(() if self.retrain else ("retrain_epochs",)),
            *(() if self.fine_tune else ("fine_tune_epochs", "fine_tune_rate")),
        )
