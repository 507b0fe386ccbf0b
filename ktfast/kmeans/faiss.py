"""K-means with the interface of `faiss.Kmeans`: an existing script changes one import.

    from ktfast.kmeans import faiss
    kmeans = faiss.Kmeans(d, k, niter=20, seed=0)
    kmeans.train(x)
    distances, labels = kmeans.index.search(x, 1)

The differences from faiss are:

- All points are used unless `max_points_per_centroid` is given. faiss uses at most 256 points per
  centroid.
- The result is reproducible, bit for bit, for any number of threads.
- A cluster that becomes empty takes the point with the highest cost. faiss splits another cluster.
- The same seed gives other random initial centroids than in faiss.
- The objective counts the weights of the points.
"""

import importlib
import logging
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from ktfast.errors import InputError
from ktfast.kmeans.array_types import Float32, Float64, Int64
from ktfast.kmeans.flat_index import CentroidIndex, points_of
from ktfast.kmeans.inputs import given_centers, weights_of
from ktfast.kmeans.lloyd import LloydResult, lloyd
from ktfast.kmeans.moments import Moments, moments_of
from ktfast.kmeans.progress import Progress
from ktfast.kmeans.rows import Rows
from ktfast.kmeans.seeding import initial_centers
from ktfast.kmeans.spherical import SphericalRows, lengths
from ktfast.kmeans.workspace import float64_on_host, to_host
from ktfast.native.arrays import library_of
from ktfast.native.modules import cuda

__all__ = [
    "ClusteringInitMethod_KMEANS_PLUS_PLUS",
    "ClusteringInitMethod_RANDOM",
    "Kmeans",
]

_logger = logging.getLogger(__name__)

ClusteringInitMethod_RANDOM = 0
ClusteringInitMethod_KMEANS_PLUS_PLUS = 1

_METHODS = {
    ClusteringInitMethod_RANDOM: "random",
    ClusteringInitMethod_KMEANS_PLUS_PLUS: "k-means++",
}
# Options of faiss that change no result.
_WITHOUT_EFFECT = (
    "update_index",
    "decode_block_size",
    "check_input_data_for_NaNs",
    "use_faster_subsampling",
    "afkmc2_chain_length",
)
# Options of faiss that ktfast lacks, with the value that switches each one off.
_UNSUPPORTED = {
    "frozen_centroids": False,
    "int_centroids": False,
    "early_stop_threshold": 0.0,
    "use_super_kmeans": False,
    "progressive_dim_steps": None,
}


class Kmeans:
    """K-means with the interface of `faiss.Kmeans`.

    Parameters
    ----------
    d : int
        Dimension of the points.
    k : int
        Number of centroids.
    niter : int, default 25
        Number of iterations.
    nredo : int, default 1
        Number of runs. The run with the best objective is kept.
    verbose : bool, default False
        Whether to log every iteration, at level INFO.
    spherical : bool, default False
        Whether centroids have length one and the inner product replaces the distance. A point of
        zeros is refused.
    seed : int, default 1234
        Seed of the initial centroids.
    gpu : bool or int, default False
        Whether to cluster on the first GPU. NumPy points need torch for the copy to the GPU.
    max_points_per_centroid : int, optional
        The run uses at most this many points per centroid, drawn at random. None means all points.
    min_points_per_centroid : int, default 39
        Fewer points per centroid cause a warning.
    init_method : int, default `ClusteringInitMethod_RANDOM`
        `ClusteringInitMethod_RANDOM` or `ClusteringInitMethod_KMEANS_PLUS_PLUS`.
    **options : Any
        Other options of faiss. Options that change no result are accepted. Options that ktfast
        lacks are refused.

    Attributes
    ----------
    centroids : array, float32 [k, d], or None
        The centroids. None before `train`.
    obj : array, float64 [niter], or None
        Objective at the start of each iteration: the sum of squared distances, or of inner products
        if spherical. Iterations after convergence repeat the objective.
    iteration_stats : list of dict, or None
        Per iteration: obj, time and time_search (both are the seconds since the start),
        imbalance_factor, and nsplit (empty clusters that took a point).
    index : CentroidIndex
        Search among the centroids.

    Raises
    ------
    InputError
        A parameter is out of range, or ktfast lacks an option.
    TypeError
        faiss has no such option.
    """

    def __init__(
        self,
        d: int,
        k: int,
        *,
        niter: int = 25,
        nredo: int = 1,
        verbose: bool = False,
        spherical: bool = False,
        seed: int = 1234,
        gpu: bool | int = False,
        max_points_per_centroid: int | None = None,
        min_points_per_centroid: int = 39,
        init_method: int = ClusteringInitMethod_RANDOM,
        **options: Any,
    ) -> None:
        _check_options(options)
        if init_method not in _METHODS:
            raise InputError(
                f"init_method must be ClusteringInitMethod_RANDOM (0) or "
                f"ClusteringInitMethod_KMEANS_PLUS_PLUS (1), got {init_method!r}"
            )
        for name, value in (("d", d), ("k", k), ("niter", niter), ("nredo", nredo)):
            if int(value) != value or value < 1:
                raise InputError(f"{name} must be an integer of at least 1, got {value!r}")
        self.d = int(d)
        self.k = int(k)
        self.niter = int(niter)
        self.nredo = int(nredo)
        self.verbose = verbose
        self.spherical = spherical
        self.seed = seed
        self.gpu = gpu
        self.max_points_per_centroid = max_points_per_centroid
        self.min_points_per_centroid = min_points_per_centroid
        self.init_method = init_method
        self.centroids: Float32 | None = None
        self.obj: Float64 | None = None
        self.iteration_stats: list[dict[str, float]] | None = None
        self.index = CentroidIndex(self.d, inner_product=spherical)

    def reset(self, k: int | None = None) -> None:
        """Forget the centroids.

        Parameters
        ----------
        k : int, optional
            Number of centroids for the next call of `train`. None keeps the present number.
        """
        if k is not None:
            self.k = int(k)
        self.centroids = self.obj = self.iteration_stats = None
        self.index = CentroidIndex(self.d, inner_product=self.spherical)

    def train(self, x: Any, weights: Any = None, init_centroids: Any = None) -> float:
        """Cluster points.

        Parameters
        ----------
        x : array [n, d]
            The points. Arrays of torch and CuPy, and NumPy arrays of float32, float16, uint8 or
            int8, are read where they lie. Anything else is copied to float32.
        weights : array [n], optional
            Weights >= 0 of the points. None means that all weights are 1.
        init_centroids : array [k, d], optional
            Initial centroids. None means that `init_method` chooses them.

        Returns
        -------
        objective : float
            Objective of the last iteration.

        Raises
        ------
        InputError
            The shape is wrong, there are fewer points than centroids, or a point contains NaN or
            infinity.
        """
        random_state = check_random_state(self.seed)
        rows, weight = self._points(x, weights, random_state)
        moments = moments_of(rows, weight)
        runs = [
            self._run(rows, weight, moments, init_centroids, random_state)
            for _ in range(self.nredo if init_centroids is None else 1)
        ]
        best, stats = min(runs, key=lambda run: run[0].inertia)
        total = float(rows.n if weight is None else weight.sum())
        for row in stats:
            row["obj"] = total - row["obj"] / 2 if self.spherical else row["obj"]
        stats += [dict(stats[-1], nsplit=0) for _ in range(self.niter - len(stats))]
        self.iteration_stats = stats
        self.obj = np.array([row["obj"] for row in stats])
        self.centroids = to_host(best.centers).astype(np.float32)
        self.index.reset()
        self.index.add(self.centroids)
        return float(self.obj[-1])

    def assign(self, x: Any) -> tuple[Float32, Int64]:
        """Find the nearest centroid of each point.

        Parameters
        ----------
        x : array [n, d]
            The points.

        Returns
        -------
        distances : array, float32 [n]
            Squared distance to the nearest centroid, or the inner product if spherical.
        labels : array, int64 [n]
            Number of the nearest centroid.

        Raises
        ------
        InputError
            The shape is wrong, or `train` has not been called.
        """
        if self.centroids is None:
            raise InputError("there are no centroids yet; call train first")
        distances, labels = self.index.search(x, 1)
        return distances.ravel(), labels.ravel()

    def _run(
        self,
        rows: Rows,
        weight: Float64 | None,
        moments: Moments,
        init_centroids: Any,
        random_state: Any,
    ) -> tuple[LloydResult, list[dict[str, float]]]:
        """Run K-means once; return the result and faiss's statistics of each iteration."""
        progress = Progress(self.niter, int(self.verbose))
        if init_centroids is None:
            method = _METHODS[self.init_method]
            start = initial_centers(method, rows, self.k, weight, moments, random_state, progress)
        else:
            start = given_centers(rows, init_centroids, self.k)
        statistics = _Statistics(self.k, progress)
        result = lloyd(
            rows,
            start,
            weight,
            mean=moments.mean,
            max_iter=self.niter,
            tolerance=0,
            observe=statistics.observe,
        )
        return result, statistics.iterations

    def _points(self, x: Any, weights: Any, random_state: Any) -> tuple[Rows, Float64 | None]:
        """Select the points and weights that are clustered."""
        x = points_of(x, self.d)
        n, most = len(x), self.k * (self.max_points_per_centroid or len(x))
        if n < self.k:
            raise InputError(
                f"{n} points are fewer than the {self.k} centroids that are wanted; give more "
                "points or a smaller k"
            )
        if n < self.k * self.min_points_per_centroid:
            _logger.warning(
                "%d points for %d centroids: at least %d would be better",
                n,
                self.k,
                self.k * self.min_points_per_centroid,
            )
        weight = weights_of(weights, n)
        if n > most:
            drawn = np.sort(random_state.choice(n, most, replace=False))
            x, weight = x[drawn], None if weight is None else weight[drawn]
        if self.gpu:
            x = _on_gpu(x)
        if not self.spherical:
            return Rows([x]), weight
        # faiss adds up points, not directions: each direction is weighted by the point's length.
        long = np.concatenate([lengths(float64_on_host(b)) for _, b in Rows([x]).blocks(1 << 14)])
        return SphericalRows([x]), long[:, 0] if weight is None else long[:, 0] * weight


class _Statistics:
    """Collects faiss's statistics of each iteration, and passes each result on to the progress."""

    def __init__(self, k: int, progress: Progress) -> None:
        self.iterations: list[dict[str, float]] = []
        self._k = k
        self._progress = progress
        self._seconds = 0.0

    def observe(self, result: LloydResult) -> None:
        self._progress.observe(result)
        last = result.history[-1]
        sizes = np.bincount(to_host(result.labels), minlength=self._k).astype(np.float64)
        self._seconds += last["seconds"]
        self.iterations.append(
            {
                "obj": last["inertia"],
                "time": self._seconds,
                "time_search": self._seconds,
                "imbalance_factor": float((sizes**2).sum() * self._k / sizes.sum() ** 2),
                "nsplit": int(last["relocated"]),
            }
        )


def _check_options(options: dict[str, Any]) -> None:
    for name, value in options.items():
        if name in _UNSUPPORTED and value != _UNSUPPORTED[name]:
            raise InputError(
                f"ktfast's Kmeans does not support {name}={value!r}; leave {name} out, or use faiss"
            )
        if name not in _UNSUPPORTED and name not in _WITHOUT_EFFECT:
            raise TypeError(f"Kmeans has no option {name!r}; check the spelling")


def _on_gpu(x: Any) -> Any:
    cuda()  # raises an error that says what is missing
    if library_of(x) != "numpy":
        return x if library_of(x) == "cupy" else x.cuda()
    return importlib.import_module("torch").from_numpy(np.ascontiguousarray(x)).cuda()
