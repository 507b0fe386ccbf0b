"""`faiss.Kmeans` on ktfast's K-means: an existing script changes one import.

    from ktfast.kmeans import faiss
    kmeans = faiss.Kmeans(d, k, niter=20, seed=0)
    kmeans.train(x)
    distances, labels = kmeans.index.search(x, 1)

What differs: every point is used unless `max_points_per_centroid` is given (faiss takes at most 256
per centroid); the result is reproducible, bit for bit, for any number of threads; a cluster that
becomes empty takes the point that costs most, instead of a part of another one; random first
centroids are others than faiss draws from the same seed; the objective counts weights.
"""

import importlib
import logging
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_random_state

from ktfast.errors import InputError
from ktfast.kmeans.flat_index import CentroidIndex, Float32, points_of
from ktfast.kmeans.inputs import given_centers, weights_of
from ktfast.kmeans.lloyd import LloydResult, lloyd
from ktfast.kmeans.progress import Progress
from ktfast.kmeans.rows import Float64, Rows, float64_on_host, to_host
from ktfast.kmeans.seeding import first_centers
from ktfast.kmeans.spherical import SphericalRows, lengths
from ktfast.native.arrays import library_of
from ktfast.native.modules import cuda

_logger = logging.getLogger(__name__)

ClusteringInitMethod_RANDOM = 0
ClusteringInitMethod_KMEANS_PLUS_PLUS = 1

_METHODS = {
    ClusteringInitMethod_RANDOM: "random",
    ClusteringInitMethod_KMEANS_PLUS_PLUS: "k-means++",
}
# Options of faiss that only say how it does something.
_WITHOUT_EFFECT = (
    "update_index",
    "decode_block_size",
    "check_input_data_for_NaNs",
    "use_faster_subsampling",
    "afkmc2_chain_length",
)
# Options that ktfast has nothing for, with the value that asks for nothing.
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
    d : dimension of the points.
    k : number of centroids.
    niter : iterations.
    nredo : how many times to cluster, keeping the best.
    verbose : log every iteration at level INFO.
    spherical : centroids of length one, and the inner product instead of the distance. A point of
        zeros is refused.
    seed : of the first centroids.
    gpu : cluster on the (first) GPU; needs torch.
    max_points_per_centroid : use at most this many points per centroid, drawn at random; None: all.
    min_points_per_centroid : warn if there are fewer.
    init_method : `ClusteringInitMethod_RANDOM` or `ClusteringInitMethod_KMEANS_PLUS_PLUS`.
    options : other options of faiss. Those that change no result are accepted, those that ktfast
        has nothing for are refused.

    Attributes
    ----------
    centroids : float32 [k, d], or None before `train`.
    obj : float64 [niter], the objective at the start of each iteration: the sum of squared
        distances, or of inner products if spherical. Iterations after convergence repeat it.
    iteration_stats : one dict per iteration: obj, time and time_search (seconds since the start,
        not told apart), imbalance_factor, nsplit (empty clusters that took a point).
    index : `CentroidIndex` over the centroids.
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
        self.niter = int(niter)
        self.nredo = int(nredo)
        self.verbose = verbose
        self.spherical = spherical
        self.seed = seed
        self.gpu = gpu
        self.max_points_per_centroid = max_points_per_centroid
        self.min_points_per_centroid = min_points_per_centroid
        self.init_method = init_method
        self.reset(k)

    def reset(self, k: int | None = None) -> None:
        """Forget the centroids, and perhaps look for another number of them next."""
        if k is not None:
            self.k = int(k)
        self.centroids: Float32 | None = None
        self.obj: Float64 | None = None
        self.iteration_stats: list[dict[str, float]] | None = None
        self.index = CentroidIndex(self.d, inner_product=self.spherical)

    def train(self, x: Any, weights: Any = None, init_centroids: Any = None) -> float:
        """Cluster points; return the objective of the last iteration.

        Parameters
        ----------
        x : [n, d]; float32 of NumPy, torch or CuPy is read where it lies, what is no such array is
            copied.
        weights : [n], >= 0; None: all 1.
        init_centroids : first centroids [k, d]; None: by `init_method`.

        Raises
        ------
        InputError : a wrong shape, fewer points than centroids, NaN or infinity.
        """
        random_state = check_random_state(self.seed)
        rows, weight = self._points(x, weights, random_state)
        moments = rows.moments(weight)
        runs = []
        for _ in range(self.nredo if init_centroids is None else 1):
            progress = Progress(self.niter, int(self.verbose))
            if init_centroids is None:
                method = _METHODS[self.init_method]
                start = first_centers(method, rows, self.k, weight, moments, random_state, progress)
            else:
                start = given_centers(rows, init_centroids, self.k)
            watch = _Watch(self.k, progress)
            run = lloyd(
                rows,
                start,
                weight,
                mean=moments.mean,
                max_iter=self.niter,
                tolerance=0,
                observe=watch,
            )
            runs.append((run, watch.rows))
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

    def assign(self, x: Any) -> tuple[Float32, npt.NDArray[np.int64]]:
        """Distance float32 [n] (or inner product) to the nearest centroid, and its number int64."""
        if self.centroids is None:
            raise InputError("there are no centroids yet; call train first")
        distances, labels = self.index.search(x, 1)
        return distances.ravel(), labels.ravel()

    def _points(self, x: Any, weights: Any, random_state: Any) -> tuple[Rows, Float64 | None]:
        """The points and weights that are clustered."""
        x = points_of(x, self.d)
        n, most = len(x), self.k * (self.max_points_per_centroid or len(x))
        if n < self.k:
            raise InputError(f"{n} points are fewer than the {self.k} centroids that are wanted")
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
        # The mean of points is that of their directions, weighted by their lengths.
        long = np.concatenate([lengths(float64_on_host(b)) for _, b in Rows([x]).blocks(1 << 14)])
        return SphericalRows([x]), long[:, 0] if weight is None else long[:, 0] * weight


class _Watch:
    """Keeps faiss's statistics of each iteration."""

    def __init__(self, k: int, progress: Progress) -> None:
        self.rows: list[dict[str, float]] = []
        self._k = k
        self._progress = progress
        self._seconds = 0.0

    def __call__(self, run: LloydResult) -> None:
        self._progress.observe(run)
        last = run.history[-1]
        sizes = np.bincount(to_host(run.labels), minlength=self._k).astype(np.float64)
        self._seconds += last["seconds"]
        self.rows.append(
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
            raise InputError(f"ktfast's Kmeans has no {name}; leave it out, or use faiss for it")
        if name not in _UNSUPPORTED and name not in _WITHOUT_EFFECT:
            raise TypeError(f"Kmeans has no option {name!r}")


def _on_gpu(x: Any) -> Any:
    cuda()  # says what is missing
    if library_of(x) != "numpy":
        return x if library_of(x) == "cupy" else x.cuda()
    return importlib.import_module("torch").from_numpy(np.ascontiguousarray(x)).cuda()
