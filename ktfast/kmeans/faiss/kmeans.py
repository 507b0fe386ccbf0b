"""K-means with the interface of `faiss.Kmeans`: an existing script changes one import.

    from ktfast.kmeans import faiss
    kmeans = faiss.Kmeans(d, k, niter=20, seed=0)
    kmeans.train(x)
    distances, labels = kmeans.index.search(x, 1)

The differences from faiss are:

- All points are used unless `max_points_per_centroid` is given. faiss uses at most 256 points per
  centroid.
- The result is reproducible, bit for bit, for any number of threads.
- A cluster that becomes empty takes the point with the largest weighted squared distance to its
  centroid. faiss splits another cluster.
- The same seed gives other random initial centroids than in faiss.
- The objective multiplies each term by the weight of its point.
"""

from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from ktfast.errors import InputError
from ktfast.kmeans.array_types import Float32, Float64, Int64
from ktfast.kmeans.data.moments import Moments, moments_of
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.data.workspace import to_host
from ktfast.kmeans.faiss.index import CentroidIndex
from ktfast.kmeans.faiss.inputs import check_options, select_points
from ktfast.kmeans.faiss.names import NamesOfFaiss
from ktfast.kmeans.faiss.parameters import (
    METHODS,
    ClusteringInitMethod_RANDOM,
    ParametersOf,
    check_settings,
)
from ktfast.kmeans.inputs import given_centers
from ktfast.kmeans.lloyd import LloydResult, lloyd
from ktfast.kmeans.progress import Progress
from ktfast.kmeans.seeding import initial_centers

__all__ = ["Kmeans"]


class Kmeans(NamesOfFaiss):
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
        Whether to print every iteration.
    spherical : bool, default False
        Whether centroids have length one and the inner product replaces the distance. A point of
        zeros is refused.
    seed : int, default 1234
        Seed of all random draws: the initial centroids, and the points that are used if
        `max_points_per_centroid` limits their number.
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
        if spherical. If `train` gets weights, the sum is weighted (faiss leaves the weights out).
        Iterations after convergence repeat the objective.
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
        check_options(options)
        self.d = d
        self.k = k
        self.niter = niter
        self.nredo = nredo
        self.verbose = verbose
        self.spherical = spherical
        self.seed = seed
        self.gpu = gpu
        self.max_points_per_centroid = max_points_per_centroid
        self.min_points_per_centroid = min_points_per_centroid
        self.init_method = init_method
        check_settings(self)
        self.centroids: Float32 | None = None
        self.obj: Float64 | None = None
        self.iteration_stats: list[dict[str, float]] | None = None
        self.index = CentroidIndex(self.d, inner_product=bool(spherical))

    @property
    def cp(self) -> ParametersOf:
        """The parameters, to read and to change, as `faiss.Kmeans.cp`."""
        return ParametersOf(self)

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
            The points. Arrays of float32, float16, bfloat16, uint8 and int8 are read where they
            lie. Other numbers are copied to float32.
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
        check_settings(self)
        if self.spherical != self.index.inner_product:  # changed since the last call
            self.index = CentroidIndex(self.d, inner_product=bool(self.spherical))
        random_state = check_random_state(self.seed % 2**32)  # faiss takes negative seeds too
        rows, weight = select_points(self, x, weights, random_state)
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
        progress = Progress(self.niter)
        if init_centroids is None:
            method = METHODS[self.init_method]
            start = initial_centers(method, rows, self.k, weight, moments, random_state, progress)
        else:
            start = given_centers(rows, init_centroids, self.k)
        statistics = _Statistics(self.k, progress, prints=bool(self.verbose))
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


class _Statistics:
    """Collects faiss's statistics of each iteration, and passes each result on to the progress."""

    def __init__(self, k: int, progress: Progress, *, prints: bool) -> None:
        self.iterations: list[dict[str, float]] = []
        self._k = k
        self._progress = progress
        self._prints = prints
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
        if self._prints:
            print(
                "  Iteration {} ({time:.2f} s, search {time_search:.2f} s): objective={obj:g} "
                "imbalance={imbalance_factor:.3f} nsplit={nsplit}".format(
                    len(self.iterations) - 1, **self.iterations[-1]
                ),
                flush=True,
            )
