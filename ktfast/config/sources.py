"""Read the option `features.source`: the name of a teacher, or of several teachers."""

import re
from dataclasses import dataclass

FORMS = (
    "pretext, hog, torchvision:MODEL, timm:MODEL, hf:MODEL, MODULE:CALLABLE, or several of them "
    "joined by ' + '"
)
LIBRARIES = ("torchvision", "timm", "hf")
"""Libraries of networks. `@LAYER` may follow the name of a network."""
_PLUS = re.compile(r"\s+\+\s+")


@dataclass(frozen=True)
class TeacherName:
    """One teacher of `features.source`.

    Attributes
    ----------
    text : str
        How the option spells the teacher.
    kind : str
        "pretext", "hog", "torchvision", "timm", "hf", "function"; "" for an unknown name.
    name : str
        Name of the model, or MODULE:CALLABLE.
    layer : str
        Layer after the "@"; empty if none is given.
    """

    text: str
    kind: str
    name: str = ""
    layer: str = ""

    @property
    def is_network(self) -> bool:
        """Whether ktfast builds the network, and so chooses the precision of its products."""
        return self.kind in ("pretext", *LIBRARIES)

    @property
    def takes_weights(self) -> bool:
        """Whether the weights may come from the file `features.weights`."""
        return self.kind in ("pretext", "torchvision", "timm")

    @property
    def is_pooled(self) -> bool:
        """Whether the teacher may give maps, which `features.pool` and `features.pooling` pool."""
        return self.kind == "pretext" or bool(self.layer)


def read_source(source: str) -> tuple[TeacherName, ...]:
    """Read a value of `features.source`.

    Parameters
    ----------
    source : str
        One name, or several names joined by " + ".

    Returns
    -------
    teachers : tuple of TeacherName
        The teachers in their order. An unknown name has the kind "".
    """
    return tuple(_read(text) for text in _PLUS.split(source.strip()))


def join_sources(source: str) -> str:
    """Spell a value of `features.source` with one space on each side of every "+"."""
    return " + ".join(_PLUS.split(source.strip()))


def _read(text: str) -> TeacherName:
    head, colon, name = text.partition(":")
    if text == "hog":
        return TeacherName(text, "hog")
    if not colon:
        kind, at, layer = text.partition("@")
        known = kind == "pretext" and bool(layer) == bool(at)
        return TeacherName(text, "pretext" if known else "", layer=layer)
    if head in LIBRARIES:
        model, at, layer = name.rpartition("@") if "@" in name else (name, "", "")
        whole = bool(model) and bool(layer) == bool(at)
        return TeacherName(text, head if whole else "", model, layer)
    is_function = bool(head and name) and "+" not in text and "@" not in text
    return TeacherName(text, "function" if is_function else "", text)
