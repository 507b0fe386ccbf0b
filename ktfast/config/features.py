"""The options of the teacher and of its features."""

from collections.abc import Collection
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from ktfast.config.section import Section, side_option
from ktfast.config.sources import TeacherName, join_sources, read_source


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
