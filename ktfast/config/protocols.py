"""What the stage evaluate probes beside the run's own networks and images."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ktfast.config.section import Section

OWN_NETWORKS = ("transfer", "random", "pretext", "labels")
"""Names of a run's own networks."""
OWN_MODELS = (*OWN_NETWORKS, "teacher")
"""Names of a run's own networks, and of its teacher."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class ModelFile(Section):
    """A network that is probed beside the run's own: an entry of `evaluate.models`."""

    file: Path | None = Field(
        None,
        description="weights.safetensors of a run, or a safetensors or torch file with the state "
        "dict of the network; not set: random weights",
    )
    network: str = Field(
        "",
        description="alexnet, vgg16, torchvision:NAME or timm:NAME; not needed for a file that "
        "ktfast wrote, which names its network",
    )
    layers: tuple[str, ...] = Field(
        (),
        description="layers that are probed; empty: evaluate.layers if the network has all of "
        "them, else the stages of the network",
    )
    crop: int = Field(
        0,
        ge=0,
        description="px; side of the centre square that the network sees; 0: as the file or the "
        "library says, else transfer.crop",
    )
    normalization: Literal["auto", "image", "imagenet"] = Field(
        "auto",
        description="how pixels are normalised; image: by each image's own mean and standard "
        "deviation; imagenet: by ImageNet's; auto: as the file or the library says, else imagenet",
    )

    @model_validator(mode="after")
    def _names_something(self) -> "ModelFile":
        if self.file is None and not self.network:
            raise ValueError(
                "neither file nor network is given; give a file of weights, or a network, which "
                "then has random weights"
            )
        return self

    @field_validator("network")
    @classmethod
    def _known_network(cls, value: str) -> str:
        library, _, name = value.partition(":")
        if value in ("", "alexnet", "vgg16") or (library in ("torchvision", "timm") and name):
            return value
        raise ValueError(f"expected alexnet, vgg16, torchvision:NAME or timm:NAME, got {value!r}")


class LabelledImages(Section):
    """Labelled images on which networks are probed: an entry of `evaluate.sets`."""

    train: Path = Field(
        ..., description="folder of the images that probes learn from, one folder per class"
    )
    test: Path = Field(
        ..., description="folder of the images that probes are tested on, one folder per class"
    )


def read_models(value: Any) -> Any:
    """Write every entry of `evaluate.models` that is a path as a table with the entry `file`."""
    if not isinstance(value, Mapping):
        return value
    return {
        name: {"file": entry} if isinstance(entry, str | Path) else entry
        for name, entry in value.items()
    }


def check_names(names: Mapping[str, Any], reserved: tuple[str, ...] = ()) -> None:
    """Raise `ValueError` if a name is reserved, or cannot be a part of a file's name."""
    for name in names:
        if name in reserved:
            raise ValueError(
                f"the name {name!r} is that of one of the run's own networks "
                f"({', '.join(reserved)}); give another name"
            )
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"the name {name!r} must consist of letters, digits, '.', '_' and '-', and begin "
                "with a letter or a digit; give another name"
            )
