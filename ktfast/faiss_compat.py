"""Alias of `ktfast.kmeans.faiss`, K-means with the interface of `faiss.Kmeans`."""

from typing import Any

from ktfast.kmeans import faiss as _faiss
from ktfast.kmeans.faiss import *  # noqa: F403

__all__ = list(_faiss.__all__)


def __getattr__(name: str) -> Any:
    """Refuse the other names of faiss, as `ktfast.kmeans.faiss` does."""
    return getattr(_faiss, name)


def __dir__() -> list[str]:
    return dir(_faiss)
