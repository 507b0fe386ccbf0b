"""ktfast: fast, dependable self-supervised knowledge transfer on one GPU or CPU.

`import ktfast` loads neither NumPy nor torch. The estimator, the ops and the pipeline are imported
when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ktfast.ops as ops
    from ktfast.kmeans import HierarchicalKMeans, KMeans
    from ktfast.ops.permutations import permutation_set
    from ktfast.pipeline.image_model import load
    from ktfast.pipeline.runner import run

__all__ = [
    "HierarchicalKMeans",
    "KMeans",
    "__version__",
    "load",
    "ops",
    "permutation_set",
    "run",
]
__version__ = "0.1.0"

_HOMES = {
    "HierarchicalKMeans": "ktfast.kmeans",
    "KMeans": "ktfast.kmeans",
    "load": "ktfast.pipeline.image_model",
    "permutation_set": "ktfast.ops.permutations",
    "run": "ktfast.pipeline.runner",
}


def __getattr__(name: str) -> Any:
    """Import a public name's module on first use (PEP 562).

    Raises
    ------
    ModuleNotFoundError
        The name needs a package that is not installed. The message names the extra to install.
    """
    if name in ("faiss_compat", "ops"):
        return importlib.import_module(f"ktfast.{name}")
    if name in _HOMES:
        try:
            value = getattr(importlib.import_module(_HOMES[name]), name)
        except ModuleNotFoundError as error:
            missing = str(error.name).partition(".")[0]
            if missing == __name__:
                raise
            raise ModuleNotFoundError(
                f"{missing} is not installed, and ktfast.{name} needs it: "
                'pip install "ktfast[train]"',
                name=error.name,
            ) from error
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names (PEP 562)."""
    return sorted([*__all__, "faiss_compat"])
