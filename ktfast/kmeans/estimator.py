"""K-means as a scikit-learn estimator: Lloyd's algorithm on the native kernels.

The data are read where they lie: arrays of NumPy, torch or CuPy, memory maps, or a sequence of
shards. A fit allocates no array of size n x k. The result is the same, bit for bit, for any number
of threads and any split into shards.
"""

import os
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
from sklearn.utils.validation import check_is_fitted

from ktfast.errors import InputError
from ktfast.kmeans.array_types import Float64
from ktfast.kmeans.data.moments import check_finite
from ktfast.kmeans.data.passes import all_below, cluster_weights, inertia_of, nearest_centers
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.distributed.agreement import (
    check_agreement,
    check_any_weight,
    check_enough,
    ranks_of,
)
from ktfast.kmeans.distributed.communicator import Communicator
from ktfast.kmeans.distributed.ranks import Ranks
from ktfast.kmeans.inputs import restore, rows_of, weights_of
from ktfast.kmeans.lloyd import LloydResult
from ktfast.kmeans.magnitude import (
    check_magnitude,
    moments_in_range,
    unscaled,
    unscaled_history,
)
from ktfast.kmeans.nearest import fitted_rows, nearest_rows
from ktfast.kmeans.parameters import check_parameters, warn_of_one_run
from ktfast.kmeans.progress import Progress
from ktfast.kmeans.runs import Runs
from ktfast.kmeans.starts import start_state
from ktfast.kmeans.transform import all_distances

Init = str | Callable[..., Any] | npt.ArrayLike


class KMeans(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """K-means clustering with exact, reproducible assignments and bounded memory.

    Parameters
    ----------
    n_clusters : int, default 8
        Number of clusters k.
    init : str, array [k, d] or callable, default "k-means||"
        Initial centres. "k-means||" draws candidates in a few passes over the rows and chooses
        centres among them. "k-means++" is greedy k-means++, as in scikit-learn. "random" draws
        distinct rows. A callable ``init(X, n_clusters, random_state=...)`` returns the centres.
    n_init : int or "auto", default "auto"
        Number of runs with different initial centres. The run with the lowest inertia is kept.
        "auto" means 10 for "random" and for callables, else 1. If `init` is an array, there is one
        run.
    max_iter : int, default 300
        Most iterations of one run.
    tol : float, default 1e-4
        A run ends when the squared movements of the centres sum to at most `tol` times the mean
        variance of the features, without weights. With 0, a run ends when no label changes.
    verbose : int, default 0
        Above 0, each iteration is printed in scikit-learn's words, and logged. With 0, at most one
        line is logged every ten seconds. Log lines have level INFO.
    random_state : int, numpy.random.RandomState or None, default None
        Source of random numbers, as in scikit-learn.
    copy_x : bool, default True
        Accepted for compatibility with scikit-learn. X is never modified.
    algorithm : str, default "lloyd"
        Only "lloyd" is accepted.
    spherical : bool, default False
        Whether to cluster by the angle between rows. Rows are scaled to length one, and centres
        are scaled to length one after each update. The result is that of ``X / ||X||``. A row of
        zeros is refused.
    precision : str, default "exact"
        Precision of the screen, the cheap comparison that excludes far centres: "exact" chooses
        the fastest one; "float32", "bfloat16" (CPU), "float16" (GPU) and "int8" force one. The
        result does not depend on the choice. "fast" gives approximate labels during the iterations
        on a GPU and exact labels at the end.
    n_threads : int, optional
        CPU threads. None means `OMP_NUM_THREADS`, or all cores if the variable is not set. The
        result does not depend on the number.
    device : str, optional
        Device that processes the rows: "cuda", "cuda:N" or "cpu". None means the device that holds
        X. If X lies on the host, blocks of X are streamed to the GPU, so X may be larger than the
        GPU's memory. Streaming needs torch or CuPy. The result does not depend on streaming.
    memory_budget : int, optional
        Bytes of GPU memory that a fit may use, not counting an X that lies on the GPU. None means
        80 % of the free memory. Streamed rows that fit stay on the GPU between passes. A CPU
        ignores the budget.
    size_min, size_max : int, optional
        Fewest and most rows of each cluster in `labels_` after `fit`. If only one is given, the
        other is 1 or n. Both None means no bounds. `predict` still gives the nearest centre. Fits
        with bounds take no weights and need a CPU. `partial_fit` refuses bounds.
    distributed : "torch", communicator or None, default None
        Other processes with which `fit` works. Each process gives its own rows, which may be none.
        The data are the rows of all processes in the order of the ranks. Labels are those of the
        own rows, all other results are the same on every process. The result does not depend on
        the number of processes. "torch" means the processes of torch.distributed, such as those
        that torchrun starts. A `ktfast.kmeans.distributed.Communicator` connects other processes.
    checkpoint : path, optional
        File to which `fit` writes a checkpoint from time to time, and when it is interrupted. If
        the file exists, `fit` continues from it, with the bits of an uninterrupted fit. The number
        of processes, threads and GPUs may change. The file stays after `fit`. Process 0 reads and
        writes it.
    checkpoint_seconds : float, default 60.0
        Least seconds between two checkpoints.

    Attributes
    ----------
    cluster_centers_ : array [k, d]
        Centres in the library and on the device of X; float64 for float64 data, else float32.
    labels_ : array, int32 [n] (int64 for torch)
        Nearest centre of each row. Ties go to the lowest number. After `partial_fit`, these are the
        labels of the last batch. With `size_min` or `size_max`, the cluster of each row.
    inertia_ : float
        Weighted sum of the squared distances to the nearest centres, over the rows of `labels_`.
        With `size_min` or `size_max`, the distances to the centres of the rows' own clusters.
    counts_ : array, float64 [k]
        Total weight of the rows of each cluster. After `partial_fit`, this includes the rows of all
        batches.
    n_iter_ : int
        Iterations of the run that was kept.
    n_effective_clusters_ : int
        Number of clusters with at least one row. This is the smaller of k and the number of
        distinct rows, unless `max_iter` ended the run early.
    history_ : list of dict
        Per iteration: inertia; moved (rows whose label changed); shift (sum of the squared
        movements of the centres); relocated (empty clusters that took a row); skipped (share of
        the distances that were neither screened nor computed); seconds. On a GPU, the inertia of
        an iteration may have a rounding error in the last digits.
    n_steps_ : int
        Number of batches that `partial_fit` has seen.
    n_features_in_ : int
        Number of features, as in scikit-learn.
    feature_names_in_ : array of str
        Names of the features, as in scikit-learn.

    Notes
    -----
    Lloyd, "Least squares quantization in PCM" (1982). Labels are those of exact float64 distances.
    A cluster that loses all its rows takes the row with the largest weighted squared distance to
    its nearest centre, so the inertia never rises. The initial centres do not depend on the order
    of the rows, except that sums of fractional weights are rounded in this order. With ``tol=0``, a
    row of weight two counts as the row given twice. Otherwise the weights do not enter the variance
    that `tol` is relative to, as in scikit-learn.

    X may be float16, bfloat16, float32, float64, uint8 or int8, and is read where it lies. Other
    dtypes are copied to float64. Every method takes arrays of NumPy, torch and CuPy, memory maps,
    data frames, nested lists, objects with DLPack's interface, and sequences of matrices.

    If the largest magnitude of float64 data is above 1e18 or below 1e-91, the data are copied and
    multiplied by a power of two. Squared distances beyond the range of float64 are then given as
    infinity or zero.

    Ctrl-C ends `fit` within about a second with a KeyboardInterrupt. The estimator then holds the
    last complete iteration of the best run. If there was none, the estimator is unchanged.

    On a GPU, centres, inertia and labels are those of the CPU, bit for bit. With `spherical`, a GPU
    may round the lengths of the rows differently.

    Bounded cluster sizes are the problem of Bradley, Bennett and Demiriz, "Constrained k-means
    clustering" (2000). The bounds hold exactly. The assignment within the bounds is close to the
    best one, not always the best.

    For the memory that a fit needs, see the page Memory of the documentation.
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
        size_min: int | None = None,
        size_max: int | None = None,
        distributed: str | Communicator | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_seconds: float = 60.0,
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
        self.size_min = size_min
        self.size_max = size_max
        self.distributed = distributed
        self.checkpoint = checkpoint
        self.checkpoint_seconds = checkpoint_seconds

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> "KMeans":
        """Find the clusters of X.

        Parameters
        ----------
        X : array [n, d] or sequence of array
            Rows of NumPy (also memory-mapped), torch or CuPy. A sequence of matrices is clustered
            as their concatenation.
        y : None
            Ignored.
        sample_weight : array [n], optional
            Weights >= 0 of the rows. None means that all weights are 1.

        Returns
        -------
        self : KMeans
            The fitted estimator.

        Raises
        ------
        ValueError
            X contains NaN, infinity or values too large (the message names the row), has fewer rows
            than clusters, or a parameter is out of range. No clusters of X keep `size_min` and
            `size_max`, or bounds are given together with weights or a GPU. The checkpoint is
            damaged or belongs to another fit, or two processes were given different parameters. If
            several processes fit together, all of them raise the error of any of them.
        TypeError
            X is sparse, or a parameter has a wrong type.
        RuntimeError
            Another process has stopped, or bits that the processes exchange have changed.
        """
        ranks = ranks_of(self.distributed)
        before = dict(vars(self))
        progress: Progress | None = None
        try:
            n_init = ranks.agreed(lambda: check_parameters(self))
            progress = Progress(self.max_iter, self.verbose, is_silent=not ranks.leads)
            rows, weight = self._joined(X, sample_weight, ranks)
            bounds = self._bounds(rows, weight)
            if ranks.leads:
                warn_of_one_run(self)
            rows, moments = moments_in_range(self, rows, weight)
            progress.exponent, progress.total = rows.exponent, rows.total
            found = Runs(self, rows, weight, moments, progress, bounds).best(X, n_init)
            self._store(rows, weight, found)
        except BaseException as error:
            best = None if progress is None else progress.interrupted()
            if isinstance(error, KeyboardInterrupt) and best is not None and ranks.size == 1:
                self._store(rows, weight, best)
            else:
                restore(self, before)
            ranks.leave(error)
            raise
        ranks.leave()
        if self.n_effective_clusters_ < self.n_clusters and ranks.leads:
            warnings.warn(
                f"Number of distinct clusters ({self.n_effective_clusters_}) found smaller than "
                f"n_clusters ({self.n_clusters}). Possibly due to duplicate points in X.",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def partial_fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> "KMeans":
        """Continue with one mini-batch, as scikit-learn's MiniBatchKMeans does.

        Each centre is the weighted mean of all rows that were ever assigned to its cluster. If
        `fit` was not called before, `init` chooses initial centres from the first batch, and
        `n_init` is ignored. From time to time, clusters with less than 1 % of the weight of the
        heaviest cluster are moved to rows of the present batch. A pickled estimator continues with
        the same bits.

        Parameters
        ----------
        X : array [n, d] or sequence of array
            The batch, as in `fit`. The first batch has at least `n_clusters` rows.
        y : None
            Ignored.
        sample_weight : array [n], optional
            Weights, as in `fit`.

        Returns
        -------
        self : KMeans
            The estimator after the batch.

        Raises
        ------
        ValueError
            As in `fit`, `n_clusters` was changed since the last batch, or `size_min`, `size_max` or
            `distributed` is given.

        Notes
        -----
        Sculley, "Web-scale k-means clustering" (2010).
        """
        check_parameters(self)
        if self.distributed is not None:
            raise InputError(
                "partial_fit runs on one process; set distributed to None, or call fit on all rows"
            )
        if self._has_bounds():
            raise InputError(
                f"partial_fit cannot bound cluster sizes, got size_min={self.size_min!r} and "
                f"size_max={self.size_max!r}; set both to None, or call fit on all rows"
            )
        before = dict(vars(self))
        try:
            fitted = hasattr(self, "cluster_centers_")
            rows = rows_of(self, X, reset=False) if fitted else self._enough_rows(X)
            weight = weights_of(sample_weight, rows.n)
            rows, moments = moments_in_range(self, rows, weight)
            state = start_state(self, X, rows, weight, moments).step(rows, weight, moments)
            labels, distances = nearest_centers(rows, state.centers)
            state = state.scaled(-rows.exponent)
            self._batches = state
            self.cluster_centers_ = rows.workspace.to_library(state.centers, rows.center_dtype)
            self.labels_ = rows.workspace.labels_to_library(labels)
            self.inertia_ = unscaled(inertia_of(rows, distances, weight), -2 * rows.exponent)
            self.counts_ = state.counts.copy()
            self.n_steps_ = state.steps
        except BaseException:
            restore(self, before)
            raise
        return self

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Find the clusters of X and return the labels.

        Parameters
        ----------
        X : array [n, d] or sequence of array
            Rows, as in `fit`.
        y : None
            Ignored.
        sample_weight : array [n], optional
            Weights, as in `fit`.

        Returns
        -------
        labels : array, int32 [n] (int64 for torch)
            `labels_`.

        Raises
        ------
        ValueError
            As in `fit`.
        """
        return self.fit(X, sample_weight=sample_weight).labels_

    def predict(self, X: Any) -> Any:
        """Find the nearest centre of each row of X.

        Parameters
        ----------
        X : array [n, d] or sequence of array
            Rows, as in `fit`.

        Returns
        -------
        labels : array, int32 [n] (int64 for torch)
            Number of the nearest centre, in the library and on the device of X.

        Raises
        ------
        ValueError
            X contains NaN or infinity, or has another number of features than in `fit`.
        """
        rows, labels, _ = self._nearest(X)
        return rows.workspace.labels_to_library(labels)

    def assign(self, X: Any) -> tuple[Any, Any]:
        """Find the nearest centre of each row of X, and the distance to this centre.

        Parameters
        ----------
        X : array [n, d] or sequence of array
            Rows, as in `fit`.

        Returns
        -------
        labels : array, int32 [n] (int64 for torch)
            Number of the nearest centre, as from `predict`.
        distances : array, float64 [n]
            Squared distance to the nearest centre.

        Raises
        ------
        ValueError
            As in `predict`.
        """
        rows, labels, distances = self._nearest(X)
        return rows.workspace.labels_to_library(labels), rows.workspace.to_library(distances)

    def transform(self, X: Any) -> Any:
        """Compute the distance of each row of X to every centre.

        Parameters
        ----------
        X : array [n, d] or sequence of array
            Rows, as in `fit`.

        Returns
        -------
        distances : array [n, k]
            Euclidean distances, in the dtype of the centres and the library of X. The first of the
            least distances of a row belongs to the centre that `predict` gives.

        Raises
        ------
        ValueError
            As in `predict`.
        """
        rows, centers = self._fitted(X)
        check_finite(rows)
        distances = unscaled(all_distances(rows, centers), -rows.exponent)
        if not all_below(distances, np.inf):
            check_magnitude(rows)
        return distances

    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Find the clusters of X and return the distances to their centres.

        Parameters
        ----------
        X : array [n, d] or sequence of array
            Rows, as in `fit`.
        y : None
            Ignored.
        sample_weight : array [n], optional
            Weights, as in `fit`.

        Returns
        -------
        distances : array [n, k]
            Euclidean distances, as from `transform`.

        Raises
        ------
        ValueError
            As in `fit`.
        """
        return self.fit(X, sample_weight=sample_weight).transform(X)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Compute the negative inertia of X.

        Parameters
        ----------
        X : array [n, d] or sequence of array
            Rows, as in `fit`.
        y : None
            Ignored.
        sample_weight : array [n], optional
            Weights, as in `fit`.

        Returns
        -------
        score : float
            Minus the weighted sum of the squared distances to the nearest centres.

        Raises
        ------
        ValueError
            As in `predict`.
        """
        rows, _, distances = self._nearest(X)
        return -inertia_of(rows, distances, weights_of(sample_weight, rows.n))

    def _enough_rows(self, X: Any) -> Rows:
        """Check the rows of a first batch: at least one per cluster."""
        rows = rows_of(self, X, reset=True)
        check_enough(rows, self.n_clusters)
        return rows

    def _joined(self, X: Any, sample_weight: Any, ranks: Ranks) -> tuple[Rows, Float64 | None]:
        """Check the rows and weights of this process together with those of the others."""
        is_part = ranks.size > 1
        rows = ranks.agreed(lambda: rows_of(self, X, reset=True, is_part=is_part))
        weight = ranks.agreed(lambda: weights_of(sample_weight, rows.n, is_part=is_part))
        check_agreement(ranks, self, rows, is_weighted=weight is not None)
        rows.join(ranks)
        check_enough(rows, self.n_clusters)
        if weight is not None and is_part:
            check_any_weight(ranks, weight)
        return rows, weight

    @property
    def _n_features_out(self) -> int:
        """Number of columns of `transform`, for scikit-learn; also with centres without a fit."""
        return len(self.cluster_centers_)

    def _has_bounds(self) -> bool:
        return self.size_min is not None or self.size_max is not None

    def _bounds(self, rows: Rows, weight: Float64 | None) -> Any:
        """Check the bounds of the cluster sizes; None if there are none."""
        if not self._has_bounds():
            return None
        from ktfast.kmeans.bounded import bounds_of  # not loaded by fits without bounds

        return bounds_of(self, rows, weight)

    def _fitted(self, X: Any) -> tuple[Rows, Float64]:
        """Check X; return its rows, and the centres float64 [k, d] in the scale of the rows."""
        check_is_fitted(self)
        return fitted_rows(self, rows_of(self, X, reset=False), self.cluster_centers_)

    def _nearest(self, X: Any) -> tuple[Rows, Any, Any]:
        """Check X; return its rows, their labels and squared distances."""
        check_is_fitted(self)
        return nearest_rows(self, rows_of(self, X, reset=False), self.cluster_centers_)

    def _store(self, rows: Rows, weight: Float64 | None, result: LloydResult) -> None:
        """Set the fitted attributes. This reads no rows, so it is fast enough after Ctrl-C.

        If several processes fit together, all of them call this method.
        """
        centers = unscaled(result.centers, -rows.exponent)
        self.cluster_centers_ = rows.workspace.to_library(centers, rows.center_dtype)
        self.labels_ = rows.workspace.labels_to_library(result.labels)
        self.inertia_ = unscaled(result.inertia, -2 * rows.exponent)
        self.counts_, self.n_effective_clusters_ = cluster_weights(
            rows, result.labels, weight, self.n_clusters
        )
        self.n_iter_ = len(result.history)
        self.history_ = unscaled_history(result.history, -2 * rows.exponent)
        for name in {"_batches", "n_steps_"} & vars(self).keys():
            delattr(self, name)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
