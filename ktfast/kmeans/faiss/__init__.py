"""K-means with the interface of `faiss.Kmeans`: an existing script changes one import.

`kmeans` holds the class `Kmeans`, `clustering` the class `Clustering`, `index` the exact flat
index, `files` the reading and writing of an index, `parameters` and `inputs` the checks of options
and points. Any other name of faiss raises an AttributeError that lists the names of this module.
"""

from typing import Any

from ktfast.kmeans.faiss.clustering import Clustering, vector_to_array
from ktfast.kmeans.faiss.files import read_index, write_index
from ktfast.kmeans.faiss.flat import (
    GpuIndexFlatConfig,
    GpuIndexFlatIP,
    GpuIndexFlatL2,
    IndexFlat,
    IndexFlatIP,
    IndexFlatL2,
    StandardGpuResources,
    get_num_gpus,
    index_cpu_to_gpu,
    omp_get_max_threads,
    omp_set_num_threads,
)
from ktfast.kmeans.faiss.index import METRIC_INNER_PRODUCT, METRIC_L2
from ktfast.kmeans.faiss.kmeans import Kmeans
from ktfast.kmeans.faiss.parameters import (
    ClusteringInitMethod_KMEANS_PLUS_PLUS,
    ClusteringInitMethod_RANDOM,
    ClusteringParameters,
)

vector_float_to_array = vector_to_array

__all__ = [
    "METRIC_INNER_PRODUCT",
    "METRIC_L2",
    "Clustering",
    "ClusteringInitMethod_KMEANS_PLUS_PLUS",
    "ClusteringInitMethod_RANDOM",
    "ClusteringParameters",
    "GpuIndexFlatConfig",
    "GpuIndexFlatIP",
    "GpuIndexFlatL2",
    "IndexFlat",
    "IndexFlatIP",
    "IndexFlatL2",
    "Kmeans",
    "StandardGpuResources",
    "get_num_gpus",
    "index_cpu_to_gpu",
    "omp_get_max_threads",
    "omp_set_num_threads",
    "read_index",
    "vector_float_to_array",
    "vector_to_array",
    "write_index",
]


def __getattr__(name: str) -> Any:
    """Refuse the other names of faiss (PEP 562)."""
    if name.startswith("__"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    raise AttributeError(
        f"ktfast has no faiss.{name}: it offers K-means and exact flat indexes only "
        f"({', '.join(__all__)}); use faiss itself for {name}"
    )


def __dir__() -> list[str]:
    return sorted(__all__)
