"""K-means as a scikit-learn estimator: Lloyd's algorithm on the native kernels.

The data stay where they are (NumPy, memory maps, torch, CuPy, or a sequence of shards), nothing of
size n x k is kept, and the result is the same, bit for bit, for any number of threads and any split
into shards.
"""

import warnings
from collections.abc import Callable, Sequence
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
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from ktfast._backend import library_of
from ktfast.errors import InputError
from ktfast.kmeans_lloyd import inertia_of, lloyd
from ktfast.kmeans_rows import Float64, Rows, float64_on_host, to_host
from ktfast.kmeans_seeding import kmeans_plus_plus
from ktfast.kmeans_sums import rounded

_TRANSFORM_ROWS = 4096
# NumPy dtypes that are clustered as they are; others are converted to float64.
_NUMPY_DTYPES = (np.float64, np.float32, np.float16, np.uint8, np.int8)

Init = str | Callable[..., Any] | npt.ArrayLike


class KMeans(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """K-means clustering with exact, reproducible assignments and bounded memory.

    Parameters
    ----------
    n_clusters : k, the number of clusters.
    init : "k-means++", "random" (distinct rows), an array [k, d], or a callable
        ``init(X, n_clusters, random_state=...)`` that returns one.
    n_init : how many initialisations to try, keeping the one of least inertia; "auto": 10 for
        "random" and callables, else 1.
    max_iter : the most iterations of one run.
    tol : stop once the centres' squared moves add up to at most `tol` times the mean variance of
        the features; 0: only when no label changes.
    verbose : above 0 logs each iteration.
    random_state : seed, RandomState or None, as in scikit-learn.
    copy_x : accepted for scikit-learn's sake; X is never modified.
    algorithm : "lloyd".
    n_threads : CPU threads; None: OMP_NUM_THREADS or every core. The result does not depend on it.

    Attributes
    ----------
    cluster_centers_ : [k, d], float64 for float64 data, else float32; in X's library, on its
        device.
    labels_ : int32 [n], the nearest centre of each row, ties to the lowest index.
    inertia_ : sum of (weighted) squared distances to the nearest centre.
    n_iter_ : iterations of the run that was kept.
    n_effective_clusters_ : clusters that own at least one row: the smaller of k and the number of
        distinct rows, unless `max_iter` ended the run early.
    history_ : one dict per iteration: inertia, moved (rows whose label changed), shift (sum of the
        centres' squared moves), seconds.
    n_features_in_, feature_names_in_ : as in scikit-learn.

    Notes
    -----
    Lloyd (1982). A cluster that loses all its rows takes the row farthest from its centre, so the
    inertia never rises. k-means++ differs from scikit-learn's: see
    `ktfast.kmeans_seeding.kmeans_plus_plus`.
    X may be float16, bfloat16, float32, float64, uint8 or int8, read where it lies; other dtypes
    are converted to a float64 copy. Workspace beside X: 12 bytes per row for labels and distances
    (twice that while iterating), 8 more per row for the update, 12 to 28 bytes per element of the
    centres, about 1 MiB per thread, and 32 MiB where the rows of X cannot be read in place.
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: Init = "k-means++",
        n_init: int | str = "auto",
        max_iter: int = 300,
        tol: float = 1e-4,
        verbose: int = 0,
        random_state: Any = None,
        copy_x: bool = True,
        algorithm: str = "lloyd",
        n_threads: int | None = None,
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
        self.n_threads = n_threads

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
        n_init = self._check_parameters()
        rows = self._rows(X, reset=True)
        if rows.n < self.n_clusters:
            raise InputError(f"n_samples={rows.n} should be >= n_clusters={self.n_clusters}.")
        weight = self._weight(rows, sample_weight)
        mean, variance = rows.mean_variance()
        random_state = check_random_state(self.random_state)
        runs = (
            lloyd(
                rows,
                self._initial_centers(X, rows, weight, random_state),
                weight,
                mean=mean,
                max_iter=self.max_iter,
                tolerance=self.tol * variance,
            )
            for _ in range(n_init)
        )
        best = min(runs, key=lambda run: run.inertia)
        used = int(np.unique(to_host(best.labels)).size)
        if used < self.n_clusters:
            warnings.warn(
                f"Number of distinct clusters ({used}) found smaller than n_clusters "
                f"({self.n_clusters}). Possibly due to duplicate points in X.",
                ConvergenceWarning,
                stacklevel=2,
            )
        self.cluster_centers_ = rows.to_library(best.centers.astype(rows.center_dtype))
        self.labels_ = rows.to_library(best.labels)
        self.inertia_ = best.inertia
        self.n_iter_ = len(best.history)
        self.n_effective_clusters_ = used
        self.history_ = best.history
        self._n_features_out = self.n_clusters
        return self

    def fit_predict(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Fit, and return `labels_`."""
        return self.fit(X, sample_weight=sample_weight).labels_

    def predict(self, X: Any) -> Any:
        """Return the nearest centre of each row of X, int32 [n], in X's library on its device."""
        rows, centers = self._fitted(X)
        return rows.to_library(rows.assign(centers)[0])

    def transform(self, X: Any) -> Any:
        """Return the distances of each row of X to every centre, [n, k] of the centres' dtype."""
        rows, centers = self._fitted(X)
        distances = np.empty((rows.n, len(centers)), dtype=rows.center_dtype)
        for place, block in rows.blocks(_TRANSFORM_ROWS):
            distances[place] = euclidean_distances(float64_on_host(block), centers)
        return rows.to_library(distances)

    def fit_transform(self, X: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Fit, and return `transform` of X."""
        return self.fit(X, sample_weight=sample_weight).transform(X)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return minus the (weighted) sum of squared distances of X to the nearest centres."""
        rows, centers = self._fitted(X)
        weight = self._weight(rows, sample_weight)
        return -inertia_of(rows.assign(centers)[1], weight)

    def _check_parameters(self) -> int:
        """Refuse parameters out of range; return the number of initialisations."""
        for name, least in (("n_clusters", 1), ("max_iter", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise InputError(f"{name} must be an integer of at least {least}, got {value!r}")
        if not self.tol >= 0:
            raise InputError(f"tol must be 0 or more, got {self.tol!r}")
        if self.algorithm != "lloyd":
            raise InputError(f'algorithm must be "lloyd", got {self.algorithm!r}')
        if isinstance(self.init, str) and self.init not in ("k-means++", "random"):
            raise InputError(
                f'init must be "k-means++", "random", an array or a callable, got {self.init!r}'
            )
        if self.n_init == "auto":
            return 10 if callable(self.init) or str(self.init) == "random" else 1
        if isinstance(self.n_init, str) or self.n_init < 1:
            raise InputError(f'n_init must be "auto" or at least 1, got {self.n_init!r}')
        given = not isinstance(self.init, str) and not callable(self.init)
        return 1 if given else int(self.n_init)

    def _rows(self, X: Any, *, reset: bool) -> Rows:
        """Check X and wrap it without a copy where its dtype is one the kernels read."""
        shards = _as_shards(X)
        if shards is None:
            checked = validate_data(
                self, X, reset=reset, dtype=_NUMPY_DTYPES, ensure_all_finite=False, order=None
            )
            return Rows([checked], n_threads=self.n_threads)
        rows = Rows(shards, n_threads=self.n_threads)
        if rows.n == 0 or rows.d == 0:
            raise InputError(
                f"Found array with {rows.n} sample(s) and {rows.d} feature(s) while a minimum of 1 "
                "is required."
            )
        if reset:
            self.n_features_in_ = rows.d
        elif rows.d != self.n_features_in_:
            raise InputError(
                f"X has {rows.d} features, but KMeans is expecting {self.n_features_in_} features "
                "as input"
            )
        return rows

    def _fitted(self, X: Any) -> tuple[Rows, Float64]:
        check_is_fitted(self)
        rows = self._rows(X, reset=False)
        rows.check_finite()
        return rows, float64_on_host(self.cluster_centers_)

    def _weight(self, rows: Rows, sample_weight: Any) -> Float64 | None:
        """Weights float64 [n] on the CPU, or None where all are 1."""
        if sample_weight is None:
            return None
        if not isinstance(sample_weight, np.ndarray | list | tuple | int | float):
            sample_weight = (
                float64_on_host(sample_weight)
                if _is_array(sample_weight)
                else (np.asarray(sample_weight))
            )
        weight = np.asarray(
            _check_sample_weight(
                sample_weight, np.empty((rows.n, 1)), dtype=np.float64, ensure_non_negative=True
            )
        )
        return weight

    def _initial_centers(
        self, X: Any, rows: Rows, weight: Float64 | None, random_state: Any
    ) -> Float64:
        """Initial centres float64 [k, d], rounded to the dtype of the result."""
        k = self.n_clusters
        if isinstance(self.init, str) and self.init == "k-means++":
            centers = rows.take(kmeans_plus_plus(rows, k, weight, random_state))
        elif isinstance(self.init, str):
            chances = None if weight is None else weight / weight.sum()
            if chances is not None and np.count_nonzero(chances) < k:
                chances = None
            centers = rows.take(random_state.choice(rows.n, k, replace=False, p=chances))
        else:
            given = self.init(X, k, random_state=random_state) if callable(self.init) else self.init
            centers = float64_on_host(given if _is_array(given) else np.asarray(given))
            if centers.shape != (k, rows.d):
                raise InputError(
                    f"The shape of the initial centers {centers.shape} does not match the number "
                    f"of clusters and features {(k, rows.d)}."
                )
            if not np.isfinite(centers).all():
                raise InputError("init contains NaN or infinity; initial centers must be finite")
        return rounded(centers, rows.center_dtype)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _as_shards(X: Any) -> list[Any] | None:
    """The matrices of X if they are to be read where they lie; None: scikit-learn checks X."""
    if isinstance(X, Sequence) and len(X) > 0 and all(_is_matrix(part) for part in X):
        return list(X)
    if _is_array(X) and (library_of(X) != "numpy" or isinstance(X, np.memmap)):
        return [X]
    return None


def _is_array(value: Any) -> bool:
    try:
        library_of(value)
    except TypeError:
        return False
    return True


def _is_matrix(value: Any) -> bool:
    return _is_array(value) and len(value.shape) == 2
