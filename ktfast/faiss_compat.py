"""`faiss.Kmeans` on ktfast's K-means: an existing script changes one import.

    from ktfast import faiss_compat as faiss
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

from ktfast._backend import cuda, library_of
from ktfast.errors import InputError
from ktfast.kmeans_input import given_centers, is_array, weights_of
from ktfast.kmeans_lloyd import Run, lloyd
from ktfast.kmeans_progress import Progress
from ktfast.kmeans_rows import Float64, Rows, float64_on_host, to_host
from ktfast.kmeans_seeding import first_centers
from ktfast.kmeans_spherical import SphericalRows, lengths

_logger = logging.getLogger(__name__)

Float32 = npt.NDArray[np.float32]

ClusteringInitMethod_RANDOM = 0
ClusteringInitMethod_KMEANS_PLUS_PLUS = 1

# Elements of the table of distances that `CentroidIndex.search` makes at a time.
_TABLE = 1 << 22
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_READ = ("float32", "float16", "uint8", "int8")
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
        self.centroids = best.centers.astype(np.float32)
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
        x = _matrix(x, self.d)
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


class CentroidIndex:
    """Exact search among centroids, as `faiss.IndexFlatL2` or `faiss.IndexFlatIP`.

    Attributes
    ----------
    d : dimension.
    ntotal : number of centroids.
    """

    def __init__(self, d: int, *, inner_product: bool = False) -> None:
        self.d = d
        self.inner_product = inner_product
        self.reset()

    @property
    def ntotal(self) -> int:
        """Number of centroids."""
        return len(self._centroids)

    def reset(self) -> None:
        """Remove all centroids."""
        self._centroids = np.empty((0, self.d), dtype=np.float32)

    def add(self, x: Any) -> None:
        """Append centroids [n, d]."""
        new = float64_on_host(_matrix(x, self.d)).astype(np.float32)
        self._centroids = np.concatenate([self._centroids, new])

    def search(self, x: Any, k: int) -> tuple[Float32, npt.NDArray[np.int64]]:
        """The k nearest centroids of each point, nearest first.

        Parameters
        ----------
        x : [n, d].
        k : how many; those that are missing get number -1.

        Returns
        -------
        squared distances (or inner products) float32 [n, k] and numbers int64 [n, k].
        """
        x = _matrix(x, self.d)
        scores = np.full((len(x), k), -_FLOAT32_MAX if self.inner_product else _FLOAT32_MAX)
        numbers = np.full((len(x), k), -1, dtype=np.int64)
        if k == 1 and self.ntotal and not self.inner_product:
            labels, distances = Rows([x]).assign(self._centroids.astype(np.float64))
            return to_host(distances).astype(np.float32)[:, None], (
                to_host(labels).astype(np.int64)[:, None]
            )
        found = min(k, self.ntotal)
        for place, block in Rows([x]).blocks(max(1, _TABLE // max(1, self.ntotal))):
            table = self._table(float64_on_host(block))
            order = np.argsort(-table if self.inner_product else table, axis=1, kind="stable")
            numbers[place, :found] = order[:, :found]
            scores[place, :found] = np.take_along_axis(table, order[:, :found], axis=1)
        return scores.astype(np.float32), numbers

    def assign(self, x: Any, k: int = 1) -> npt.NDArray[np.int64]:
        """Numbers int64 [n, k] of the k nearest centroids."""
        return self.search(x, k)[1]

    def _table(self, points: Float64) -> Float64:
        """Squared distances or inner products of points to all centroids."""
        centroids = self._centroids.astype(np.float64)
        products = points @ centroids.T
        if self.inner_product:
            return np.asarray(products)
        squares = (points**2).sum(axis=1)[:, None] + (centroids**2).sum(axis=1)
        return np.asarray(np.maximum(squares - 2 * products, 0))


class _Watch:
    """Keeps faiss's statistics of each iteration."""

    def __init__(self, k: int, progress: Progress) -> None:
        self.rows: list[dict[str, float]] = []
        self._k = k
        self._progress = progress
        self._seconds = 0.0

    def __call__(self, run: Run) -> None:
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


def _matrix(x: Any, d: int) -> Any:
    """Points [n, d] that the kernels read: where they lie if possible, else a float32 copy."""
    if not is_array(x) or (library_of(x) == "numpy" and x.dtype.name not in _READ):
        x = np.asarray(x, dtype=np.float32)
    if len(x.shape) != 2 or x.shape[1] != d:
        raise InputError(f"points must have shape [n, {d}], got {list(x.shape)}")
    return x


def _on_gpu(x: Any) -> Any:
    cuda()  # says what is missing
    if library_of(x) != "numpy":
        return x if library_of(x) == "cupy" else x.cuda()
    return importlib.import_module("torch").from_numpy(np.ascontiguousarray(x)).cuda()
