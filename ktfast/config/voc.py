"""The options of the protocols on PASCAL VOC; the defaults are their published schedules."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from ktfast.config.section import Section, TrainingConfig, side_option


class VocSection(Section):
    """What the protocols on PASCAL VOC share."""

    folder: Path | None = side_option(
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

    train_proposals: Path | None = side_option(
        None, description=".mat or .npz of regions, such as selective search's; not set: windows"
    )
    test_proposals: Path | None = side_option(None, description="the same for the images tested on")
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
