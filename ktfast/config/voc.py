"""The options of fine-tuning on PASCAL VOC. The defaults are the published training schedules."""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from ktfast.config.section import Section, TrainingConfig, side_option


class VocSection(Section):
    """The options that all protocols on PASCAL VOC share."""

    folder: Path | None = side_option(
        None,
        description="folder of one year of PASCAL VOC, such as VOCdevkit/VOC2007; not set: this "
        "protocol is left out",
    )
    train: str = Field(
        "trainval", description="image set of PASCAL VOC whose photographs are trained on"
    )
    test: str = Field("test", description="image set of PASCAL VOC whose photographs are tested on")

    @model_validator(mode="after")
    def _one_process_trains(self) -> "VocSection":
        training = getattr(self, "training", None)
        if isinstance(training, TrainingConfig) and training.ddp:
            raise ValueError(
                "training.ddp is set, but a training on PASCAL VOC does not use several processes: "
                "the processes of a run train different networks at a time; leave training.ddp out"
            )
        return self


class VocClassificationConfig(VocSection):
    """Fine-tuning for classification, 80,000 steps as in Krähenbühl et al. (2016)."""

    area: tuple[float, float] = Field(
        (0.1, 0.5),
        description="smallest and largest share of a photograph's area that a random crop covers",
    )
    test_crops: int = Field(
        10, ge=1, description="random crops per test photograph; their scores are averaged"
    )
    training: TrainingConfig = TrainingConfig(
        epochs=254.777,  # 80,000 steps for the 5,011 photographs of VOC2007
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
            raise ValueError(f"expected two shares in (0, 1], the smaller first, got {value}")
        return value


class WholeImageConfig(VocSection):
    """A protocol that trains on whole photographs, which differ in size."""

    training: TrainingConfig

    @field_validator("training", check_fields=False)
    @classmethod
    def _sizes_differ(cls, value: TrainingConfig) -> TrainingConfig:
        if value.compile is not False or value.cuda_graphs is not False:
            raise ValueError(
                "compile and cuda_graphs must be false: photographs differ in size, and torch "
                "would compile or capture the network again for each size"
            )
        return value


PUBLISHED_SCALES = {
    "single": ((600,), 1000),
    "multi": ((480, 576, 688, 864, 1200), 2000),
}
"""Shorter sides and longest side in pixels of the published tests of detection."""
_WHOLE_IMAGES: dict[str, Any] = {"compile": False, "cuda_graphs": False}


class VocDetectionConfig(WholeImageConfig):
    """Fine-tuning for detection with Fast R-CNN, 150,000 steps of two photographs."""

    train_proposals: Path | None = side_option(
        None,
        description=".mat or .npz file of the regions proposed for the training photographs, such "
        "as those of selective search; not set: windows of many sizes and shapes",
    )
    test_proposals: Path | None = side_option(
        None,
        description=".mat or .npz file of the regions proposed for the test photographs; not set: "
        "windows of many sizes and shapes",
    )
    short_sides: tuple[Annotated[int, Field(ge=16)], ...] = Field(
        (600,),
        min_length=1,
        description="px; lengths of the shorter side to which photographs are resized; the paper's "
        "multi-scale results (MS) use 480,576,688,864,1200",
    )
    longest: int = Field(
        1000,
        ge=16,
        description="px; the longer side of a resized photograph is at most this long; the paper's "
        "multi-scale results (MS) use 2000",
    )
    tests: tuple[Literal["training", "single", "multi"], ...] = Field(
        ("training",),
        min_length=1,
        description="scales at which the trained network is tested, with one score each; training: "
        "short_sides and longest; single: 600 px, at most 1000 px (the paper's SS); multi: "
        "480,576,688,864,1200 px, at most 2000 px (MS)",
    )
    regions: int = Field(
        64, ge=4, description="number of regions of each photograph in a training step"
    )
    foreground: float = Field(
        0.25, gt=0, le=1, description="largest share of a photograph's regions that show an object"
    )
    training: TrainingConfig = TrainingConfig(
        epochs=59.8563,  # 150,000 steps for the 5,011 photographs of VOC2007
        batch_size=2,
        learning_rate=0.001,
        drop_at=(1 / 3, 2 / 3),
        **_WHOLE_IMAGES,
    )

    @property
    def test_scales(self) -> dict[str, tuple[tuple[int, ...], int]]:
        """Shorter sides and longest side of each test, in pixels, in the order of `tests`."""
        scales = {**PUBLISHED_SCALES, "training": (self.short_sides, self.longest)}
        return {name: scales[name] for name in self.tests}


_MASKED_EPOCHS = 1351.351
"""100,000 steps for the 1,464 photographs with masks in the training set of VOC2012."""
_SBD_EPOCHS = 188.679
"""100,000 steps for the 10,582 photographs with masks in SBD and VOC2012."""


class VocSegmentationConfig(WholeImageConfig):
    """Fine-tuning for segmentation with FCN-32s, 100,000 steps of 20 photographs."""

    train: str = Field(
        "train", description="image set of PASCAL VOC whose photographs are trained on"
    )
    test: str = Field("val", description="image set of PASCAL VOC whose photographs are tested on")
    sbd: Path | None = side_option(
        None,
        description="folder `dataset` of the Semantic Boundaries Dataset; its photographs that are "
        "in neither image set are trained on too; voc.segmentation.folder must hold them, as "
        "VOC2012 does; training.epochs is then 188.679 unless it is given, again 100,000 steps; "
        "not set: only the masks of PASCAL VOC",
    )
    mirror: bool = Field(True, description="mirror each training photograph with probability 1/2")
    training: TrainingConfig = TrainingConfig(
        epochs=_MASKED_EPOCHS,
        batch_size=20,
        accumulate=20,
        learning_rate=1e-4,
        schedule="constant",
        **_WHOLE_IMAGES,
    )

    @model_validator(mode="after")
    def _steps_stay(self) -> "VocSegmentationConfig":
        """More photographs in an epoch do not make the published training longer."""
        if self.sbd is not None and self.training.epochs == _MASKED_EPOCHS:
            shorter = self.training.model_copy(update={"epochs": _SBD_EPOCHS})
            object.__setattr__(self, "training", shorter)
        return self


class VocSvmConfig(VocSection):
    """Support vector machines on a frozen layer, as in Goyal et al. (2019)."""

    layer: str = Field(
        "",
        description="layer of the frozen network that the machines see, such as conv4; not set: "
        "the last of the layers that are probed by default",
    )
    costs: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (*(0.5**number for number in range(19, 3, -1)), 0.01, 0.1),
        min_length=1,
        description="candidates for the cost of training errors; cross-validation with three folds "
        "chooses one for each class",
    )
    shots: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 2, 4, 8, 16, 32, 64, 96),
        description="also train with these numbers of photographs that show a class; a number that "
        "a class does not have is left out; empty: not done",
    )
    samples: int = Field(
        5, ge=1, description="number of times that the photographs for voc.svm.shots are drawn"
    )

    def unused(self) -> Collection[str]:
        """Name the options that an empty `shots` leaves without effect."""
        return () if self.shots else ("samples",)


class VocConfig(Section):
    """Fine-tuning of the target on PASCAL VOC. Each protocol that has a folder is run."""

    models: tuple[str, ...] = Field(
        ("transfer", "random"),
        min_length=1,
        description="networks that are fine-tuned; transfer: the run's target; random, pretext, "
        "labels: the baselines of the stage evaluate; or names of evaluate.models",
    )
    classes: tuple[str, ...] = Field(
        (),
        description="names of the object classes in the order of the masks' values; empty: the 20 "
        "classes of PASCAL VOC",
    )
    data_init: bool | Literal["all"] = Field(
        True,
        description="fit the initial weights of new hidden layers to 160 photographs; the output "
        "of every unit then has mean 0.1 and standard deviation 1; all: fit the convolutions too, "
        "where trained layers keep what they compute but for a factor",
    )
    classification: VocClassificationConfig = VocClassificationConfig()
    detection: VocDetectionConfig = VocDetectionConfig()
    segmentation: VocSegmentationConfig = VocSegmentationConfig()
    svm: VocSvmConfig = VocSvmConfig()

    @field_validator("classes")
    @classmethod
    def _classes_differ(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if twice := sorted({name for name in value if value.count(name) > 1}):
            raise ValueError(
                f"expected each name once, got {', '.join(twice)} several times; remove the "
                "repeated names"
            )
        return value

    def protocols(self) -> tuple[str, ...]:
        """Give the names of the protocols that have a folder."""
        names = ("classification", "detection", "segmentation", "svm")
        return tuple(name for name in names if getattr(self, name).folder is not None)
