"""The options of the evaluation: probes, baselines and measures without labels."""

from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import Field, field_validator

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
