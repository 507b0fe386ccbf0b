"""Refuse what faiss's objects have and ktfast's lack, in a sentence that lists what there is."""

from typing import Any


class NamesOfFaiss:
    """Base of the classes that stand for classes of faiss."""

    def __getattr__(self, name: str) -> Any:
        """Refuse an attribute that the object lacks (Python calls this only then)."""
        kind = type(self).__name__
        if name.startswith("_"):
            raise AttributeError(f"{kind!r} object has no attribute {name!r}")
        known = sorted(known for known in {*dir(type(self)), *vars(self)} if known[:1] != "_")
        raise AttributeError(
            f"ktfast's {kind} has no {name}, only {', '.join(known)}; use faiss itself for {name}"
        )
