"""Clustering with an index, as `faiss.Clustering`, which DeepCluster's code calls."""

from types import SimpleNamespace
from typing import Any

import numpy as np

from ktfast.errors import InputError
from ktfast.kmeans.array_types import Float32, Float64
from ktfast.kmeans.faiss.index import CentroidIndex
from ktfast.kmeans.faiss.kmeans import Kmeans
from ktfast.kmeans.faiss.names import NamesOfFaiss
from ktfast.kmeans.faiss.parameters import DEFAULTS, ClusteringParameters, set_parameter


class IterationStats(list[Any]):
    """Statistics of each iteration: a list that also has the methods of faiss's vector."""

    def at(self, i: int) -> Any:
        """The statistics of iteration i."""
        return self[i]

    def size(self) -> int:
        """Number of iterations."""
        return len(self)


class Clustering(NamesOfFaiss):
    """K-means that leaves its centroids in an index, as `faiss.Clustering`.

        clus = faiss.Clustering(d, k)
        clus.niter = 20
        clus.max_points_per_centroid = 10_000_000
        clus.train(x, index)
        centroids = faiss.vector_float_to_array(clus.centroids).reshape(k, d)

    The options of `Kmeans` are attributes. As in `Kmeans`, all points are used unless
    `max_points_per_centroid` is set; faiss uses 256 points per centroid.

    Parameters
    ----------
    d : int
        Dimension of the points.
    k : int
        Number of centroids.
    cp : ClusteringParameters, optional
        Options. None means the defaults.

    Attributes
    ----------
    centroids : array, float32 [k * d]
        The centroids, one after another. Empty before `train`. Centroids that are set before
        `train` are the initial centroids.
    obj : array, float64 [niter]
        Objective at the start of each iteration, as in `Kmeans`.
    iteration_stats : IterationStats
        Per iteration, an object with the attributes obj, time, time_search, imbalance_factor and
        nsplit.
    """

    def __init__(self, d: int, k: int, cp: ClusteringParameters | None = None) -> None:
        self.d = d
        self.k = k
        for name, default in DEFAULTS.items():
            set_parameter(self, name, getattr(cp, name, default))
        self.centroids: Float32 = np.empty(0, dtype=np.float32)
        self.obj: Float64 = np.empty(0)
        self.iteration_stats = IterationStats()

    def __setattr__(self, name: str, value: Any) -> None:
        own = {"d", "k", "centroids", "obj", "iteration_stats"}
        if name in own:
            object.__setattr__(self, name, value)
        else:
            set_parameter(self, name, value)

    def train(self, x: Any, index: Any, x_weights: Any = None) -> None:
        """Cluster points, and replace the vectors of an index by the centroids.

        Parameters
        ----------
        x : array [n, d]
            The points, as in `Kmeans.train`.
        index : CentroidIndex
            A flat index of ktfast. A `GpuIndexFlatL2` clusters on the first GPU.
        x_weights : array [n], optional
            Weights >= 0 of the points. None means that all weights are 1.

        Raises
        ------
        InputError
            As in `Kmeans.train`, or the index does not fit.
        """
        if not isinstance(index, CentroidIndex):
            raise InputError(
                f"index must be a flat index of ktfast.faiss_compat, such as IndexFlatL2({self.d}),"
                f" got {type(index).__name__}"
            )
        if index.d != self.d:
            raise InputError(
                f"the index holds vectors of dimension {index.d}, not {self.d}; make the index "
                "with the d of the clustering"
            )
        options = {name: getattr(self, name) for name in DEFAULTS}
        if index.inner_product and not options["spherical"]:
            raise InputError(
                "an index of inner products needs spherical=True; set it, or give IndexFlatL2"
            )
        kmeans = Kmeans(self.d, self.k, gpu=index.gpu, **options)
        start = None if self.centroids.size == 0 else np.reshape(self.centroids, (-1, self.d))
        kmeans.train(x, x_weights, start)
        assert kmeans.centroids is not None
        assert kmeans.obj is not None
        self.centroids = kmeans.centroids.ravel()
        self.obj = kmeans.obj
        stats = kmeans.iteration_stats or []
        self.iteration_stats = IterationStats(SimpleNamespace(**row) for row in stats)
        index.reset()
        index.add(kmeans.centroids)


def vector_to_array(v: Any) -> Any:
    """Copy an array that stands where faiss has a vector, such as `Clustering.centroids`."""
    return np.array(v)
