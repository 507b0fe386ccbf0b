"""K-means clustering.

`KMeans` is an estimator with the interface of scikit-learn. `HierarchicalKMeans` finds very many
clusters and levels of clusters above them. `ktfast.kmeans.faiss` has the interface
of `faiss.Kmeans`. The other modules are internal. Read them in this order:

- `estimator` holds `KMeans`. `containers`, `inputs` and `parameters` check what the user gives.
- `magnitude` scales rows of extreme magnitude.
- `starts` and `seeding` choose the initial centres.
- `runs` repeats the fit from several initial centres. `checkpoint` lets a stopped fit continue.
- `lloyd` iterates. An iteration is an assignment pass (`assignment`) and an update of the centres
  (`sums`, and `relocation` of empty clusters).
- `bounded` iterates with bounded cluster sizes, and `balance` assigns rows within the bounds.
- `data` reads the rows, wherever they lie.
- `distributed` connects several processes.
- `nearest` finds the nearest centres of a fitted estimator, for `predict` and `assign`.
- `hierarchical` holds `HierarchicalKMeans`, which fits `KMeans` to groups of rows and to centres.
- `minibatch` computes `partial_fit`, and `transform` the distances to all centres.
- `progress` writes the log.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ktfast.kmeans.estimator import KMeans
    from ktfast.kmeans.hierarchical.estimator import HierarchicalKMeans
    from ktfast.kmeans.hierarchical.sizes import size_balance

__all__ = ["HierarchicalKMeans", "KMeans", "size_balance"]

_HOMES = {
    "HierarchicalKMeans": "ktfast.kmeans.hierarchical.estimator",
    "KMeans": "ktfast.kmeans.estimator",
    "size_balance": "ktfast.kmeans.hierarchical.sizes",
}


def __getattr__(name: str) -> Any:
    """Import a public name's module on first use (PEP 562): scikit-learn is slow to import."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names (PEP 562)."""
    return sorted([*__all__, "faiss"])
