"""Integer sums of the clusters, updated when labels change, and totals over all rows.

Internal: `ktfast.kmeans` updates its centres with these functions.

Integer sums do not depend on the order of additions, and the totals are added up in one fixed
order. All results therefore have the same bits on a CPU and on a GPU, for any number of threads and
any split into blocks.
"""

from typing import Any

from ktfast.native.arrays import empty, on_device
from ktfast.native.modules import native_of
from ktfast.ops.vectors import execution, gpu_row_blocks

__all__ = [
    "LOW_BITS",
    "TOTAL_LANES",
    "TOTAL_ROWS",
    "kmeans_costs",
    "kmeans_means",
    "kmeans_move",
    "kmeans_part_totals",
    "kmeans_ranges",
    "kmeans_totals",
]

TOTAL_LANES, TOTAL_ROWS = 256, 4096
"""Partial sums, and rows of a part, as `csrc/kmeans_update/sum_math.h` defines them."""

LOW_BITS = 44
"""Bits of the second limb of a sum, as `csrc/kmeans_update/sum_math.h` defines them."""

# Rows of one call. They bound the workspace, which is 16 bytes per row.
_CALL_ROWS = 1 << 22
# Rows of one call if sums have two limbs; `kLimbRows` of `csrc/kmeans_update/sum_math.h`.
_LIMB_ROWS = 1 << 18


def kmeans_ranges(x: Any, largest: Any, *, n_threads: int | None = None) -> None:
    """Raise `largest` to the largest magnitude of every feature.

    The result is infinite for a feature with a value that is not finite.

    Parameters
    ----------
    x : array [n, d]
        Rows, of NumPy, torch or CuPy.
    largest : array, float64 [d]
        Magnitudes on the device of `x`, at least 0. The call changes them.
    n_threads : int, optional
        Number of CPU threads; see `ktfast.native.threads.n_threads`.
    """
    with on_device(x):
        for _, block in gpu_row_blocks(x, _CALL_ROWS):
            native_of(x).kmeans_ranges(x=block, largest=largest, **execution(x, n_threads))


def kmeans_move(
    x: Any,
    before: Any | None,
    after: Any,
    scale: Any,
    sums: Any,
    counts: Any,
    *,
    low: Any | None = None,
    sample_weight: Any | None = None,
    n_threads: int | None = None,
) -> None:
    """Change the sums of the clusters from labels `before` to labels `after`.

    The kernel reads only rows whose label changed, each of them twice.

    Parameters
    ----------
    x : array [n, d]
        Rows, of NumPy, torch or CuPy.
    before : array, int32 [n], or None
        Labels by which the sums contain the rows. None: the sums do not contain the rows yet.
    after : array, int32 [n]
        Labels by which the sums will contain the rows.
    scale : array, float64 [d]
        Powers of two with ``abs(sample_weight * x) * scale < 2**51``.
    sums : array, int64 [k, d]
        Sums in units of ``1 / scale``. The call changes them.
    counts : array, int64 [k]
        Number of rows of each cluster. The call changes them.
    low : array, int64 [k, d], optional
        Second limbs of the sums, in units of ``2**-44 / scale``: a sum is ``sums / scale + low *
        2**-44 / scale``. The call changes them, and leaves them in ``0 .. 2**44 - 1``. Without
        them, every number is rounded to a multiple of ``1 / scale``.
    sample_weight : array, float64 [n], optional
        Weights on the device of `x`. They need `low`. None: every weight is 1.
    n_threads : int, optional
        Number of CPU threads; see `ktfast.native.threads.n_threads`.

    Raises
    ------
    ValueError
        A label is out of range (on a CPU; a GPU skips such rows).
    """
    native = native_of(x)
    workspace: Any = None
    with on_device(x):
        for rows, block in gpu_row_blocks(x, _CALL_ROWS if low is None else _LIMB_ROWS):
            if workspace is None:  # the first block is the largest
                size = native.kmeans_move_workspace_size(n_rows=len(block), n_clusters=len(counts))
                workspace = empty((size,), "int64", like=x)
            native.kmeans_move(
                x=block,
                before=None if before is None else before[rows],
                after=after[rows],
                sample_weight=None if sample_weight is None else sample_weight[rows],
                scale=scale,
                workspace=workspace,
                sums=sums,
                low=low,
                counts=counts,
                **execution(x, n_threads),
            )


def kmeans_means(
    sums: Any,
    counts: Any,
    step: Any,
    previous: Any,
    *,
    low: Any | None = None,
    weights: Any | None = None,
    narrow: bool = True,
    n_threads: int | None = None,
) -> tuple[Any, Any]:
    """Divide integer sums by counts or weights; a cluster of weight zero keeps its former centre.

    Parameters
    ----------
    sums : array, int64 [k, d]
        Sums of `kmeans_move`.
    counts : array, int64 [k]
        Counts of `kmeans_move`.
    step : array, float64 [d]
        Value of the last bit of a sum: ``1 / scale`` of `kmeans_move`, or ``2**-44 / scale`` if
        there are second limbs.
    previous : array, float64 [k, d]
        Centres of the previous iteration.
    low : array, int64 [k, d], optional
        Second limbs of `kmeans_move`.
    weights : array, float64 [k], optional
        Total weights of the clusters. None: the counts.
    narrow : bool, default True
        Whether to round the centres to float32.
    n_threads : int, optional
        Number of CPU threads; see `ktfast.native.threads.n_threads`.

    Returns
    -------
    centers : array, float64 [k, d]
        The centres.
    shifts : array, float64 [k]
        Squared distance of each centre to its previous one.
    """
    with on_device(sums):
        centers = empty(tuple(previous.shape), "float64", like=sums)
        shifts = empty((len(previous),), "float64", like=sums)
        native_of(sums).kmeans_means(
            sums=sums,
            low=low,
            counts=counts,
            weights=weights,
            step=step,
            previous=previous,
            narrow=narrow,
            centers=centers,
            shifts=shifts,
            **execution(sums, n_threads),
        )
    return centers, shifts


def kmeans_costs(
    sums: Any, counts: Any, step: Any, mean: Any, centers: Any, *, low: Any | None = None
) -> tuple[Any, Any]:
    """Compute what the clusters add to the inertia, from integer sums on a GPU.

    The inertia is the sum of the squared distances of all rows to `mean`, plus the sum of the
    costs.

    Parameters
    ----------
    sums : array, int64 [k, d]
        Sums of `kmeans_move`, without weights.
    counts : array, int64 [k]
        Counts of `kmeans_move`.
    step : array, float64 [d]
        As for `kmeans_means`.
    mean : array, float64 [d]
        Any vector. The errors are least if it is near the mean of the rows.
    centers : array, float64 [k, d]
        Centre of each cluster.
    low : array, int64 [k, d], optional
        Second limbs of `kmeans_move`.

    Returns
    -------
    costs : array, float64 [k]
        The costs.
    errors : array, float64 [k]
        Upper bounds of the errors of the costs.
    """
    with on_device(sums):
        costs = empty((len(centers),), "float64", like=sums)
        errors = empty((len(centers),), "float64", like=sums)
        native_of(sums).kmeans_costs(
            sums=sums,
            low=low,
            counts=counts,
            step=step,
            mean=mean,
            centers=centers,
            costs=costs,
            errors=errors,
            **execution(sums, None),
        )
    return costs, errors


def kmeans_totals(
    distances: Any,
    sample_weight: Any | None,
    before: Any | None,
    after: Any | None,
    *,
    n_threads: int | None = None,
) -> Any:
    """Add up distances, and count the rows whose label changed.

    Parameters
    ----------
    distances : array, float64 [n]
        Squared distances, of NumPy, torch or CuPy.
    sample_weight : array, float64 [n], or None
        Weights on the device of the distances. None: every weight is 1.
    before, after : array, int32 [n], or None
        Labels of two iterations. None: no changes are counted.
    n_threads : int, optional
        Number of CPU threads; see `ktfast.native.threads.n_threads`.

    Returns
    -------
    array, float64 [2]
        Sum of weight times distance, and number of changed labels, on the device.
    """
    return _totals(distances, sample_weight, before, after, n_threads)[0]


def kmeans_part_totals(
    distances: Any, sample_weight: Any | None, *, n_threads: int | None = None
) -> Any:
    """Add up the distances of each part of `TOTAL_ROWS` rows.

    Parameters
    ----------
    distances : array, float64 [n]
        Squared distances, of NumPy, torch or CuPy.
    sample_weight : array, float64 [n], or None
        Weights on the device of the distances. None: every weight is 1.
    n_threads : int, optional
        Number of CPU threads; see `ktfast.native.threads.n_threads`.

    Returns
    -------
    array, float64 [m]
        Sum of weight times distance of each part, on the device.
    """
    workspace = _totals(distances, sample_weight, None, None, n_threads)[1]
    return workspace[: len(workspace) // 2]  # the second half counts changed labels


def _totals(
    distances: Any, sample_weight: Any, before: Any, after: Any, n_threads: int | None
) -> tuple[Any, Any]:
    """Call the kernel; return the totals, and its workspace, which holds the sums of the parts."""
    native = native_of(distances)
    with on_device(distances):
        size = native.kmeans_totals_workspace_size(n_rows=len(distances))
        totals = empty((2,), "float64", like=distances)
        workspace = empty((size,), "float64", like=distances)
        native.kmeans_totals(
            distances=distances,
            sample_weight=sample_weight,
            before=before,
            after=after,
            workspace=workspace,
            totals=totals,
            **execution(distances, n_threads),
        )
    return totals, workspace
