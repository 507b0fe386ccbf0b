"""K-means as a scikit-learn estimator: Lloyd's algorithm on the native kernels.

The data stay where they are (NumPy, memory maps, torch, CuPy, or a sequence of shards), nothing of
size n x k is kept, and the result is the same, bit for bit, for any number of threads and any split
into shards.
"""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import (
    BaseEstimator,
    ClassNamePrefixFeaturesOutMixin,
    ClusterMixin,
    TransformerMixin,
)
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ktfast.errors import InputError
from ktfast.kmeans.inputs import check_parameters, given_centers, restore, rows_of, weights_of
from ktfast.kmeans.lloyd import LloydResult, lloyd
from ktfast.kmeans.minibatch import MiniBatches
from ktfast.kmeans.progress import Progress
from ktfast.kmeans.rows import Float64, Moments, Rows, float64_on_host, to_host
from ktfast.kmeans.seeding import first_centers
from ktfast.kmeans.transform import all_distances

Init = str | Callable[..., Any] | npt.ArrayLike


class KMeans(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """K-means clustering with exact, reproducible assignments and bounded memory.

    Parameters
    ----------
    n_clusters : k, the number of clusters.
    init : first centres. "k-means||": the best of more candidates than clusters, drawn in few
        passes; "k-means++": greedy, as scikit-learn's; "random": different rows; an array [k, d];
        or a callable ``init(X, n_clusters, random_state=...)`` that returns one.
    n_init : how many initialisations to try, keeping the one of least inertia; "auto": 10 for
        "random" and callables, else 1.
    max_iter : the most iterations of one run.
    tol : stop once the centres' squared moves add up to at most `tol` times the mean variance of
        the features; 0: only when no label changes.
    verbose : above 0 logs each iteration; 0: a line every ten seconds (both at level INFO).
    random_state : seed, RandomState or None, as in scikit-learn.
    copy_x : accepted for scikit-learn's sake; X is never modified.
    algorithm : "lloyd".
    spherical : cluster by the angle: rows are scaled to length one (a row of zeros is refused),
        and so are the centres after each update. The result is that of X / ||X||. Up to 512 MiB
        of scaled rows are kept during a fit; more are scaled whenever they are read (CPU).
    precision : "exact", or what is multiplied to sort out far centres, or "fast", see
        `ktfast.ops.kmeans_assign`. But for "fast" on a GPU the result does not depend on it.
    n_threads : CPU threads; None: OMP_NUM_THREADS or every core. The result does not depend on it.
    device : where the rows are worked on: "cuda", "cuda:N" or "cpu"; None: where X lies. X on the
        host is streamed to a GPU block by block, so it may be larger than the GPU's memory; torch
        or CuPy holds the blocks there. The result does not depend on what is streamed.
    memory_budget : bytes of the GPU's memory that a fit may use, beside an X that lies there; None:
        80 % of what is free. What fits stays on the GPU between passes. No use on a CPU.

    Attributes
    ----------
    cluster_centers_ : [k, d], float64 for float64 data, else float32; in X's library, on its
        device.
    labels_ : int32 [n], the nearest centre of each row, ties to the lowest index; after
        `partial_fit`, of the last batch.
    inertia_ : sum of (weighted) squared distances to the nearest centre, of the same rows.
    counts_ : float64 [k], total weight of the rows that each cluster was given.
    n_iter_ : iterations of the run that was kept.
    n_effective_clusters_ : clusters that own at least one row: the smaller of k and the number of
        distinct rows, unless `max_iter` ended the run early.
    history_ : one dict per iteration: inertia, moved (rows whose label changed), shift (sum of the
        centres' squared moves), relocated (empty clusters that took a row), skipped (share of the
        distances that did not have to be looked at), seconds.
    n_steps_ : batches that `partial_fit` has seen.
    n_features_in_, feature_names_in_ : as in scikit-learn.

    Notes
    -----
    Lloyd (1982). A cluster that loses all its rows takes the row farthest from its centre, so the
    inertia never rises. The first centres do not depend on the order of the rows, and a row of
    weight two counts as the row given twice. Where they come from: `ktfast.kmeans.seeding`.
    Ctrl-C ends `fit` within about a second with a KeyboardInterrupt; the estimator then holds the
    last complete iteration of the best run, or is as it was if there was none.
    X may be float16, bfloat16, float32, float64, uint8 or int8, read where it lies; other dtypes
    are converted to a float64 copy. Workspace beside X: about 200 bytes per row (labels, distances,
    bounds) and up to 256 more for codes; an eighth of X in float32, or 32 MiB, at most for
    snapshots of the centres; 32 bytes per row while the first centres are drawn; 40 bytes per
    element of the centres (120 for "k-means||"); up to 9 MiB per thread; and 32 MiB where the rows
    of X cannot be read in place.
    On a GPU: about 40 bytes per row, 40 per element of the centres, and up to 320 and 2 per feature
    for each of the at most 262,144 rows that are worked on at a time; codes of all rows, 1 or 2
    bytes per feature, if they fit `memory_budget`. Streamed rows take two blocks of up to 128 MiB
    there, as much pinned memory on the host, and what fits of X. Every iteration copies the rest
    once. `spherical` takes 28 bytes more for each number of a block of scaled rows, two million of
    them where X lies there. Centres, inertia and labels are those of the CPU, bit for bit, unless
    `spherical`, where lengths may be rounded differently.
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: Init = "k-means||",
        n_init: int | str = "auto",
        max_iter: int = 300,
        tol: float = 1e-4,
        verbose: int = 0,
        random_state: Any = None,
        copy_x: bool = True,
        algorithm: str = "lloyd",
        spherical: bool = False,
        precision: str = "exact",
        n_threads: int | None = None,
        device: str | None = None,
        memory_budget: int | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.verbose = verbose
        self.random_state = random_state
        self.copy_x = copy_x
        self.algorithm = algorithm
        self.spherical = spherical
        self.precision = precision
        self.n_threads = n_threads
        self.device = device
        self.memory_budget = memory_budget

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> "KMeans":
        """Find the clusters of X.

        Parameters
        ----------
        X : [n, d] of NumPy (also memory-mapped), torch or CuPy, or a sequence of such matrices,
            which are clustered as their concatenation.
        y : ignored.
        sample_weight : weights >= 0 [n]; None: all 1.

        Raises
        ------
        ValueError : NaN, infinity or values too large (the row is named), fewer rows than clusters,
            or a parameter out of range.
        """
        n_init = check_parameters(self)
        before = dict(vars(self))
        progress = Progress(self.max_iter, self.verbose)
        try:
            rows = self._enough_rows(X)
            weight = weights_of(sample_weight, rows.n)
            moments = rows.moments(weight)
            rows.expect_passes()
            random_state = check_random_state(self.random_state)
            for _ in range(n_init):
                run = lloyd(
                    rows,
                    self._first_centers(X, rows, weight, moments, random_state, progress),
                    weight,
                    mean=moments.mean,
                    max_iter=self.max_iter,
                    tolerance=self.tol * moments.variance,
                    precision=self.precision,
                    memory_budget=self.memory_budget,
                    observe=progress.observe,
                )
                best = progress.keep(run)
            self._store(rows, weight, best)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt) and progress.best is not None:
                self._store(rows, weight, progress.best)
            else:
                restore(self, before)
            raise
        if self.n_effective_clusters_ < self.n_clusters:
            warnings.warn(
                f"Number of distinct clusters ({self.n_effective_clusters_}) found smaller than "
                f"n_clusters ({self.n_clusters}). Possibly due to duplicate points in X.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> "KMeans":
        """Continue with one mini-batch, as scikit-learn's MiniBatchKMeans does.

        Each centre is the weighted mean of all rows that it was ever given. The first batch makes
        the first centres by `init` (once, whatever `n_init`), unless `fit` did; clusters that
        starve are placed anew on rows of a batch. A pickled estimator goes on bit for bit.

        Parameters
        ----------
        X, y, sample_weight : as in `fit`; the first batch has at least `n_clusters` rows.

        Raises
        ------
        ValueError : as in `fit`, or `n_clusters` was changed.
        """
        check_parameters(self)
        before = dict(vars(self))
        try:
            fitted = hasattr(self, "cluster_centers_")
            rows = rows_of(self, X, reset=False) if fitted else self._enough_rows(X)
            weight = weights_of(sample_weight, rows.n)
            moments = rows.moments(weight)
            state = self._mini_batches(X, rows, weight, moments).step(rows, weight, moments)
            labels, distances = rows.assign(state.centers)
            self._batches = state
            self.cluster_centers_ = rows.to_library(state.centers, rows.center_dtype)
            self.labels_ = rows.to_library(labels)
            self.inertia_ = rows.totals(distances, weight)[0]
            self.counts_ = state.counts.copy()
            self.n_steps_ = state.steps
            self._n_features_out = self.n_clusters
        except BaseException:
            restore(self, before)
            raise
        return self

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Fit, and return `labels_`."""
        return self.fit(X, sample_weight=sample_weight).labels_

    def predict(self, X: Any) -> Any:
        """Return the nearest centre of each row of X, int32 [n], in X's library on its device."""
        rows, labels, _ = self._nearest(X)
        return rows.to_library(labels)

    def assign(self, X: Any) -> tuple[Any, Any]:
        """Return what `predict` does and the squared distances to these centres, float64 [n]."""
        rows, labels, distances = self._nearest(X)
        return rows.to_library(labels), rows.to_library(distances)

    def transform(self, X: Any) -> Any:
        """Return the distances of each row of X to every centre, [n, k] of the centres' dtype."""
        rows, centers = self._fitted(X)
        rows.check_finite()
        return all_distances(rows, centers)

    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Fit, and return `transform` of X."""
        return self.fit(X, sample_weight=sample_weight).transform(X)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return minus the (weighted) sum of squared distances of X to the nearest centres."""
        rows, _, distances = self._nearest(X)
        weight = weights_of(sample_weight, rows.n)
        return -rows.totals(distances, weight)[0]

    def _enough_rows(self, X: Any) -> Rows:
        """The rows of a first batch, at least one per cluster."""
        rows = rows_of(self, X, reset=True)
        if rows.n < self.n_clusters:
            raise InputError(f"n_samples={rows.n} should be >= n_clusters={self.n_clusters}.")
        return rows

    def _fitted(self, X: Any) -> tuple[Rows, Float64]:
        check_is_fitted(self)
        return rows_of(self, X, reset=False), float64_on_host(self.cluster_centers_)

    def _nearest(self, X: Any) -> tuple[Rows, Any, Any]:
        """Rows, and the labels and squared distances of their nearest centres."""
        rows, centers = self._fitted(X)
        labels, distances = rows.assign(centers)
        if not rows.all_below(distances, np.inf):
            rows.check_finite()
        return rows, labels, distances

    def _first_centers(
        self,
        X: Any,
        rows: Rows,
        weight: Float64 | None,
        moments: Moments,
        random_state: Any,
        progress: Progress,
    ) -> Float64:
        """Initial centres float64 [k, d], rounded to the dtype of the result."""
        if isinstance(self.init, str):
            return first_centers(
                self.init, rows, self.n_clusters, weight, moments, random_state, progress
            )
        given = self.init
        if callable(given):
            given = given(X, self.n_clusters, random_state=random_state)
        return given_centers(rows, given, self.n_clusters)

    def _mini_batches(
        self, X: Any, rows: Rows, weight: Float64 | None, moments: Moments
    ) -> MiniBatches:
        """What `partial_fit` goes on from: the batches before, a fit, or first centres."""
        if hasattr(self, "counts_") and len(self.counts_) != self.n_clusters:
            raise InputError(
                f"n_clusters is {self.n_clusters}, but there are {len(self.counts_)} centers to go "
                "on from; set it back, or start with a clone"
            )
        if hasattr(self, "_batches"):
            return self._batches
        random_state = check_random_state(self.random_state)
        if hasattr(self, "cluster_centers_"):
            centers = given_centers(rows, self.cluster_centers_, self.n_clusters)
            counts = self.counts_.copy()
        else:
            progress = Progress(self.max_iter, self.verbose)
            centers = self._first_centers(X, rows, weight, moments, random_state, progress)
            counts = np.zeros(self.n_clusters)
        return MiniBatches(centers, centers * counts[:, None], counts, random_state)

    def _store(self, rows: Rows, weight: Float64 | None, run: LloydResult) -> None:
        """Make a run the fitted state; nothing of it is computed from the rows."""
        labels = to_host(run.labels)
        self.cluster_centers_ = rows.to_library(run.centers, rows.center_dtype)
        self.labels_ = rows.to_library(run.labels)
        self.inertia_ = run.inertia
        self.counts_ = np.bincount(labels, weight, self.n_clusters).astype(np.float64)
        self.n_iter_ = len(run.history)
        self.n_effective_clusters_ = int(np.count_nonzero(np.bincount(labels)))
        self.history_ = run.history
        self._n_features_out = self.n_clusters
        for name in {"_batches", "n_steps_"} & vars(self).keys():
            delattr(self, name)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
