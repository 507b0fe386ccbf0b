"""Cluster sums as integers that follow the labels, and totals over the rows, on either device.

Integers give the same sums in any order, and the totals are added up in one fixed order, so all
results are the same bits on a CPU and on a GPU, for any threads and any split into blocks.
"""

from typing import Any

from ktfast.native.arrays import empty, on_device, stream_of
from ktfast.native.modules import cpu, native_of
from ktfast.native.threads import n_threads as resolve_threads
from ktfast.ops.vectors import row_blocks

# Bounds the workspace: 16 bytes a row.
_CALL_ROWS = 1 << 22


def kmeans_ranges(x: Any, largest: Any, *, n_threads: int | None = None) -> None:
    """Raise `largest` to the largest magnitude of every feature; infinite where one is not finite.

    Parameters
    ----------
    x : [n, d] of NumPy, torch or CuPy.
    largest : float64 [d] on the device of `x`, not negative, written to.
    n_threads : CPU threads; None: OMP_NUM_THREADS or every core.
    """
    with on_device(x):
        for _, block in row_blocks(x, _CALL_ROWS):
            native_of(x).kmeans_ranges(x=block, largest=largest, **_options(x, n_threads))


def kmeans_move(
    x: Any,
    before: Any | None,
    after: Any,
    scale: Any,
    sums: Any,
    counts: Any,
    *,
    n_threads: int | None = None,
) -> None:
    """Bring the sums of clusters from labels `before` to labels `after`.

    Only rows whose label differs are read, each twice.

    Parameters
    ----------
    x : [n, d] of NumPy, torch or CuPy.
    before : int32 [n], or None: the rows are in no sum yet.
    after : int32 [n].
    scale : float64 [d], powers of two with ``abs(x) * scale < 2**51``.
    sums : int64 [k, d], in units of ``1 / scale``; changed.
    counts : int64 [k], rows of each cluster; changed.
    n_threads : CPU threads; None: OMP_NUM_THREADS or every core.

    Raises
    ------
    ValueError : a label out of range (on a CPU; a GPU skips such rows).
    """
    native = native_of(x)
    workspace: Any = None
    with on_device(x):
        for rows, block in row_blocks(x, _CALL_ROWS):
            if workspace is None:  # the first block is the largest
                size = native.kmeans_move_workspace_size(n_rows=len(block), n_clusters=len(counts))
                workspace = empty((size,), "int64", like=x)
            native.kmeans_move(
                x=block,
                before=None if before is None else before[rows],
                after=after[rows],
                scale=scale,
                workspace=workspace,
                sums=sums,
                counts=counts,
                **_options(x, n_threads),
            )


def kmeans_means(
    sums: Any, counts: Any, step: Any, previous: Any, *, n_threads: int | None = None
) -> tuple[Any, Any]:
    """Centres of integer sums; a cluster without rows keeps its previous one.

    Parameters
    ----------
    sums, counts : of `kmeans_move`.
    step : float64 [d], ``1 / scale``.
    previous : float64 [k, d].
    n_threads : CPU threads; None: OMP_NUM_THREADS or every core.

    Returns
    -------
    centers : float64 [k, d], rounded to float32.
    shifts : float64 [k], squared distances to the previous centres.
    """
    with on_device(sums):
        centers = empty(tuple(previous.shape), "float64", like=sums)
        shifts = empty((len(previous),), "float64", like=sums)
        native_of(sums).kmeans_means(
            sums=sums,
            counts=counts,
            step=step,
            previous=previous,
            centers=centers,
            shifts=shifts,
            **_options(sums, n_threads),
        )
    return centers, shifts


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
    distances : float64 [n] of NumPy, torch or CuPy.
    sample_weight : float64 [n] on its device, or None: all 1.
    before, after : int32 [n], or None: no change is counted.
    n_threads : CPU threads; None: OMP_NUM_THREADS or every core.

    Returns
    -------
    float64 [2] on the device: the sum of weight times distance, and the number of changes.
    """
    native = native_of(distances)
    with on_device(distances):
        size = native.kmeans_totals_workspace_size(n_rows=len(distances))
        totals = empty((2,), "float64", like=distances)
        native.kmeans_totals(
            distances=distances,
            sample_weight=sample_weight,
            before=before,
            after=after,
            workspace=empty((size,), "float64", like=distances),
            totals=totals,
            **_options(distances, n_threads),
        )
    return totals


def _options(array: Any, n_threads: int | None) -> dict[str, Any]:
    if native_of(array) is cpu:
        return {"n_threads": resolve_threads(n_threads)}
    return {"stream": stream_of(array)}
