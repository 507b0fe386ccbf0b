"""The options of the image folders, and of how images are prepared and loaded."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from ktfast.config.section import Section

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
    short_side: int = Field(256, ge=16, description="px; shorter side of the prepared images")
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
        description="how prepare decodes JPEG files; reduced: a file that is much larger than "
        "short_side is decoded at 1/2, 1/4 or 1/8 of its size, which is faster and changes pixels "
        "a little; full: every pixel is decoded; not set: reduced, but images that an earlier "
        "version of ktfast began to prepare stay fully decoded",
    )
    feed: Literal["auto", "dali", "torch", "resident"] = Field(
        "auto",
        description="how images are loaded; resident: decoded once and kept in memory; dali: "
        "decoded by NVIDIA DALI; torch: decoded by Pillow in threads; auto: resident if the "
        "decoded images fit data.memory_budget_gb and, on a GPU, a third of its free memory, else "
        "dali if it is installed, else torch",
    )
    memory_budget_gb: float = Field(
        2.0, ge=0, description="GB of memory for decoded images or features"
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

    def option_of(self, role: str) -> str:
        """Name the option that gives the folder of a role, such as "data.pretext" for "cluster".

        If no option gives a folder, the name is that of the role's own option.
        """
        chain = {"train": "transfer", "transfer": "cluster", "cluster": "pretext"}
        source: str | None = role
        while source is not None and getattr(self, source) is None:
            source = chain.get(source)
        return f"data.{source or role}"
