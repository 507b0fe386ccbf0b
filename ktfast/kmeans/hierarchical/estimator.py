"""Hierarchical K-means as a scikit-learn estimator."""

import itertools
import logging
import warnings
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from ktfast.errors import InputError
from ktfast.kmeans.array_types import Float64, Int64
from ktfast.kmeans.data.moments import check_finite
from ktfast.kmeans.data.passes import cluster_weights, inertia_of
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.data.workspace import to_host
from ktfast.kmeans.distributed.agreement import check_enough
from ktfast.kmeans.hierarchical.division import divided_centers, no_convergence_warnings
from ktfast.kmeans.hierarchical.levels import Level
from ktfast.kmeans.hierarchical.plan import Plan, plan_of
from ktfast.kmeans.hierarchical.resampling import Resampling
from ktfast.kmeans.hierarchical.sampling import balanced_rows
from ktfast.kmeans.inputs import restore, rows_of, weights_of, wrapped
from ktfast.kmeans.nearest import nearest_rows

_logger = logging.getLogger(__name__)


class HierarchicalKMeans(ClusterMixin, BaseEstimator):  # type: ignore[misc]
    """Very many clusters, and levels of coarser clusters above them, by K-means.

    The finest level clusters the rows. Each coarser level clusters the centres of the level below.
    With 10,000 or more clusters, the finest level is found group by group. An iteration then
    compares a row with about 2 sqrt(k) centres instead of k.

    Parameters
    ----------
    n_clusters : int or sequence of int, default 8
        Number of clusters of each level, from the finest to the coarsest. An integer k means two
        levels, of k and of about sqrt(k) clusters.
    n_groups : int or "auto", default "auto"
        The rows are first divided into this many groups by K-means, and each group is then divided
        into its share of the finest clusters, in proportion to its rows. 1 means one K-means of all
        rows. "auto" means about sqrt(k) groups if the finest level has at least 10,000 clusters,
        else 1.
    n_resamples : int or sequence of int, default 10
        Number of resampling steps, which make the clusters of a level spread more evenly over the
        regions where there are rows. An integer applies to all levels but the finest. A sequence
        has one number per level, from the finest to the coarsest.
    resample_size : int, "auto" or sequence of int, default "auto"
        Rows per cluster in a resampling step, the closest to the centre; one number for all levels
        or one per level. "auto" means half the mean size of a cluster.
    init : str, default "k-means||"
        Initial centres, as for `ktfast.KMeans`: "k-means||", "k-means++" or "random".
    max_iter : int, default 50
        Most iterations of each K-means.
    tol : float, default 1e-4
        Tolerance of each K-means, as for `ktfast.KMeans`.
    random_state : int, numpy.random.RandomState or None, default None
        Source of random numbers, as in scikit-learn.
    spherical : bool, default False
        Whether to cluster by the angle between rows, as for `ktfast.KMeans`.
    n_threads : int, optional
        CPU threads, as for `ktfast.KMeans`. The result does not depend on the number.
    device : str, optional
        Device that processes the rows, as for `ktfast.KMeans`.
    memory_budget : int, optional
        Bytes of GPU memory, as for `ktfast.KMeans`.

    Attributes
    ----------
    cluster_centers_ : array [k, d]
        Centres of the finest level, as for `ktfast.KMeans`.
    labels_ : array, int32 [n] (int64 for torch)
        Nearest of all finest centres for each row. Ties go to the lowest number.
    distances_ : array, float64 [n]
        Squared distance of each row to its centre, as an array of NumPy.
    inertia_ : float
        Weighted sum of these distances.
    counts_ : array, float64 [k]
        Total weight of the rows of each finest cluster.
    levels_ : list of Level
        The levels from the finest to the coarsest: `centers`, `labels` (of the rows, or of the
        centres of the level below), `counts`, and `balance()`, which measures how equal the sizes
        of the clusters are.
    n_effective_clusters_ : int
        Number of finest clusters with at least one row.
    n_iter_ : int
        Most iterations of a K-means of the finest level.
    n_features_in_ : int
        Number of features, as in scikit-learn.
    feature_names_in_ : array of str
        Names of the features, as in scikit-learn.

    Notes
    -----
    Vo et al., "Automatic data curation for self-supervised learning: a clustering-based approach"
    (2024). Nister and Stewenius, "Scalable recognition with a vocabulary tree" (2006), divide
    groups into clusters.

    Labels, distances and inertia are exact: after the levels are found, every row is compared with
    all k finest centres, and every centre of a level with all centres of the level above. The
    finest centres are not moved afterwards, so a centre is not exactly the mean of its rows. With
    very many clusters, the comparison with all centres takes most of the time of `fit`.

    `fit` reads rows where they lie, like `ktfast.KMeans`. The rows of a group are copied while the
    group is divided, by as many threads at a time as there are. The result is the same, bit for
    bit, for any number of threads and any split into shards. A row of weight zero has a label but
    does not influence the centres.
    """

    def __init__(
        self,
        n_clusters: Any = 8,
        *,
        n_groups: int | str = "auto",
        n_resamples: Any = 10,
        resample_size: Any = "auto",
        init: str = "k-means||",
        max_iter: int = 50,
        tol: float = 1e-4,
        random_state: Any = None,
        spherical: bool = False,
        n_threads: int | None = None,
        device: str | None = None,
        memory_budget: int | None = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.n_groups = n_groups
        self.n_resamples = n_resamples
        self.resample_size = resample_size
        self.init = init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.spherical = spherical
        self.n_threads = n_threads
        self.device = device
        self.memory_budget = memory_budget

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> "HierarchicalKMeans":
        """Find the clusters of X and the levels above them.

        Parameters
        ----------
        X : array [n, d] or sequence of array
            Rows, as for `ktfast.KMeans.fit`.
        y : None
            Ignored.
        sample_weight : array [n], optional
            Weights >= 0 of the rows. None means that all weights are 1.

        Returns
        -------
        self : HierarchicalKMeans
            The fitted estimator.

        Raises
        ------
        ValueError
            X contains NaN, infinity or values too large, has fewer rows of positive weight than
            clusters, or a parameter is out of range.
        TypeError
            X is sparse, or a parameter has a wrong type.
        """
        before = dict(vars(self))
        try:
            plan = plan_of(self)
            rows = rows_of(self, X, reset=True)
            weight = weights_of(sample_weight, rows.n)
            check_enough(rows, plan.n_clusters[0])
            centers = self._centers(rows, weight, plan)
            self._store(rows, weight, centers)
        except BaseException:
            restore(self, before)
            raise
        k = plan.n_clusters[0]
        if self.n_effective_clusters_ < k:
            warnings.warn(
                f"Only {self.n_effective_clusters_} of the n_clusters={k} finest clusters have "
                "rows. X may contain duplicate points, or all rows of a cluster lie closer to the "
                "centres of other groups.",
                ConvergenceWarning,
                stacklevel=2,
            )
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

    def predict(self, X: Any, level: int = 0) -> Any:
        """Find the cluster of each row of X.

        Parameters
        ----------
        X : array [n, d] or sequence of array
            Rows, as in `fit`.
        level : int, default 0
            Level of the clusters, from 0 (the finest) on.

        Returns
        -------
        labels : array, int32 [n] (int64 for torch)
            For level 0, the number of the nearest finest centre. For other levels, the cluster of
            that level to which the row's finest cluster belongs.

        Raises
        ------
        ValueError
            X contains NaN or infinity, or has another number of features than in `fit`, or there is
            no such level.
        """
        rows, labels, _ = self._nearest(X)
        return self._at_level(rows.workspace.labels_to_library(labels), level)

    def labels_of(self, level: int) -> Any:
        """The cluster of each row of the fit in one level.

        Parameters
        ----------
        level : int
            Level of the clusters, from 0 (the finest) on.

        Returns
        -------
        labels : array, int32 [n] (int64 for torch)
            The cluster of that level to which the row's finest cluster belongs.

        Raises
        ------
        ValueError
            There is no such level.
        """
        check_is_fitted(self)
        return self._at_level(self.labels_, level)

    def assign(self, X: Any) -> tuple[Any, Any]:
        """Find the nearest finest centre of each row of X, and the distance to this centre.

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
            Minus the weighted sum of the squared distances to the nearest finest centres.

        Raises
        ------
        ValueError
            As in `predict`.
        """
        rows, _, distances = self._nearest(X)
        return -inertia_of(rows, distances, weights_of(sample_weight, rows.n))

    def sample(self, n: int, *, closest: bool = False, random_state: Any = 0) -> Int64:
        """Draw a balanced sample of the rows of the fit, such as a curated training set.

        The clusters of the coarsest level give equally many rows each, as far as they have them.
        Within each of them, the clusters of the level below give equally many rows, and so on.

        Parameters
        ----------
        n : int
            Number of rows to draw. No row is drawn twice.
        closest : bool, default False
            Whether a finest cluster gives the rows closest to its centre. False means random rows.
        random_state : int, numpy.random.RandomState or None, default 0
            Source of random numbers. The same number gives the same sample.

        Returns
        -------
        rows : array, int64 [n]
            Numbers of the rows in ascending order, as an array of NumPy. Weights play no role.

        Raises
        ------
        ValueError
            `n` is below 1 or above the number of rows of the fit.
        """
        check_is_fitted(self)
        total = len(self.labels_)
        is_count = isinstance(n, int | np.integer) and not isinstance(n, bool)
        if not is_count or not 1 <= n <= total:
            raise InputError(
                f"n must be an integer from 1 to the number of rows of the fit ({total}), got {n!r}"
            )
        random = check_random_state(random_state)
        keys = self.distances_ if closest else random.random_sample(total)
        labels = [to_host(level.labels) for level in self.levels_]
        return balanced_rows(labels, int(n), keys, random)

    def _centers(self, rows: Rows, weight: Float64 | None, plan: Plan) -> list[Any]:
        """Find the centres of all levels, from the finest to the coarsest."""
        random = check_random_state(self.random_state)
        points, weight = self._counting(rows, weight, plan)
        centers = []
        for level, k in enumerate(plan.n_clusters):
            resampling = Resampling(plan.n_resamples[level], plan.resample_size[level])
            groups = plan.n_groups if level == 0 else 1
            with no_convergence_warnings():
                found, n_iter = divided_centers(self, points, weight, k, groups, resampling, random)
            if level == 0:
                self.n_iter_ = n_iter
            _logger.info("hierarchical k-means: found the %d clusters of level %d", k, level)
            centers.append(rows.workspace.to_library(found, rows.center_dtype))
            points, weight = wrapped(self, [centers[-1]]), None
        return centers

    def _counting(
        self, rows: Rows, weight: Float64 | None, plan: Plan
    ) -> tuple[Rows, Float64 | None]:
        """The rows of positive weight and their weights."""
        if weight is None or weight.all():
            return rows, weight
        check_finite(rows)  # errors name the number of the row that the user gave
        counting = np.flatnonzero(weight)
        if len(counting) < plan.n_clusters[0]:
            raise InputError(
                f"{len(counting)} rows have a positive sample_weight, but "
                f"n_clusters={plan.n_clusters[0]}; give at least as many such rows as clusters"
            )
        return wrapped(self, rows.pick(counting)), weight[counting]

    def _store(self, rows: Rows, weight: Float64 | None, centers: list[Any]) -> None:
        """Set the fitted attributes."""
        self.cluster_centers_ = centers[0]
        rows, labels, distances = nearest_rows(self, rows, centers[0])
        self.labels_ = rows.workspace.labels_to_library(labels)
        self.distances_ = to_host(distances)
        self.inertia_ = inertia_of(rows, distances, weight)
        self.counts_, self.n_effective_clusters_ = cluster_weights(
            rows, labels, weight, len(centers[0])
        )
        self.levels_ = [Level(centers[0], self.labels_, self.counts_)]
        for below, above in itertools.pairwise(centers):
            points, parents, _ = nearest_rows(self, wrapped(self, [below]), above)
            counts, _ = cluster_weights(points, parents, self.levels_[-1].counts, len(above))
            parents = points.workspace.labels_to_library(parents)
            self.levels_.append(Level(above, parents, counts))

    def _nearest(self, X: Any) -> tuple[Rows, Any, Any]:
        """Check X; return its rows, their labels in the finest level and squared distances."""
        check_is_fitted(self)
        return nearest_rows(self, rows_of(self, X, reset=False), self.cluster_centers_)

    def _at_level(self, labels: Any, level: int) -> Any:
        """Replace labels of the finest level by those of another level."""
        levels = getattr(self, "levels_", [None])  # centres that the user set are one level
        if not (isinstance(level, int | np.integer) and 0 <= level < len(levels)):
            raise InputError(f"level must be an integer from 0 to {len(levels) - 1}, got {level!r}")
        for above in levels[1 : level + 1]:
            labels = above.labels[labels]
        return labels
