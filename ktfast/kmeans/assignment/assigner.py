"""The assignment passes of one fit: the interface, and the choice of an implementation."""

from typing import Any, Protocol

from ktfast.kmeans.array_types import Float64
from ktfast.kmeans.assignment.bounds import Inertia
from ktfast.kmeans.assignment.cpu import BoundedAssigner, NoRowsAssigner, PlainAssigner
from ktfast.kmeans.assignment.gpu import GpuAssigner
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.sums import Sums
from ktfast.native.modules import cpu
from ktfast.ops.middle import middle_of

# With fewer distances per pass, distance bounds save no time.
_LEAST_DISTANCES = 1 << 18


class Assigner(Protocol):
    """Finds the nearest centres of all rows, again and again while the centres move.

    If `is_exact`, every call returns the labels and distances of an exhaustive comparison. An
    assigner may keep results of one call, such as distance bounds, to make the next call faster.

    Attributes
    ----------
    is_exact : bool
        Whether labels and distances are exact in every call. If False, they are exact only in a
        call with `last`.
    has_bounds : bool
        Whether the distances of the last call are only upper bounds. Then `inertia` and
        `exact_distances` can be called.
    """

    @property
    def skipped(self) -> float:
        """Share of the distances that the last call skipped; see above."""

    is_exact: bool
    has_bounds: bool

    def assign(self, centers: Any, *, last: bool = False) -> tuple[Any, Any]:
        """Find the nearest centre of every row.

        Parameters
        ----------
        centers : array, float64 [k, d]
            The centres, on the device that processes the rows.
        last : bool, default False
            Whether this is the last call of the fit. The assigner then prepares nothing for a
            further call.

        Returns
        -------
        labels : array, int32 [n]
            Number of the nearest centre. The next call overwrites the array on a CPU; on a GPU,
            the call after the next one does.
        distances : array, float64 [n]
            Squared distance to the nearest centre, or an upper bound; see `has_bounds`. The next
            call overwrites the array.
        """

    def inertia(self, centers: Any) -> Inertia:
        """The inertia of the last call, which was given these centres."""

    def exact_distances(self, labels: Any, centers: Any) -> Any:
        """Compute squared distances float64 [n] to the centres of given labels.

        The result overwrites the distances of the last call.
        """


def make_assigner(
    rows: Rows,
    mean: Float64,
    n_clusters: int,
    sums: Sums,
    *,
    precision: str,
    memory_budget: int | None = None,
    bounds: bool = False,
) -> Assigner:
    """Choose the assigner of a fit by device and size.

    Parameters
    ----------
    rows : Rows
        The data [n, d].
    mean : array, float64 [d]
        Mean of the rows.
    n_clusters : int
        Number of centres k.
    sums : Sums
        Sums of the clusters. The GPU assigner adds each block of rows to them.
    precision : str
        See `ktfast.ops.kmeans_assign`.
    memory_budget : int, optional
        Bytes of GPU memory that the fit may use.
    bounds : bool, default False
        Whether the distances of calls on a GPU may be upper bounds. Labels are exact either way.

    Returns
    -------
    assigner : Assigner
        Assigner for all iterations of one fit.
    """
    if rows.n == 0:  # one of several processes may have no rows
        return NoRowsAssigner(rows, precision)
    mean = middle_of(rows.take, rows.n, mean)
    if rows.on_gpu:
        return GpuAssigner(rows, mean, sums, precision, memory_budget, bounds=bounds)
    few = cpu.kmeans_is_few(n_clusters=n_clusters, n_features=rows.d)
    if few or rows.n * n_clusters < _LEAST_DISTANCES:
        return PlainAssigner(rows, mean, precision, few=few)
    return BoundedAssigner(rows, mean, precision)
