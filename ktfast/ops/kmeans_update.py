"""Sum and weight of every cluster's rows, the same bits for any number of threads."""

from typing import Any

from ktfast.native.arrays import contiguous, empty, on_device, stream_of
from ktfast.native.modules import cpu, native_of
from ktfast.native.threads import n_threads as resolve_threads
from ktfast.ops.vectors import check_output, check_vectors, row_blocks

# Bounds the workspace: 8 bytes a row.
_CALL_ROWS = 1 << 22


def kmeans_update(
    x: Any,
    labels: Any,
    n_clusters: int,
    *,
    sample_weight: Any | None = None,
    n_threads: int | None = None,
    out: tuple[Any, Any] | None = None,
) -> tuple[Any, Any]:
    """Add up the rows of every cluster.

    Parameters
    ----------
    x : float32, float64, float16, bfloat16, uint8 or int8 [n, d] of NumPy, torch or CuPy. Read
        where it lies; rows that are not contiguous, aligned and of native byte order are copied
        at most 32 MiB at a time.
    labels : int32 [n] on the device of `x`, each in 0 .. n_clusters - 1. (A GPU cannot report
        labels out of range without waiting; it skips those rows.)
    n_clusters : k, at least 1.
    sample_weight : [n] on the device of `x`, or None: all 1. Read as float64.
    n_threads : CPU threads; None: OMP_NUM_THREADS or every core. The result does not depend on it.
    out : (sums float64 [k, d], counts float64 [k]) on the device of `x`; they are added to, so
        several calls continue one another.

    Returns
    -------
    sums : float64 [k, d]; row i of cluster k contributes ``sample_weight[i] * x[i]``.
    counts : float64 [k], the total weight of each cluster.

    Raises
    ------
    TypeError : a dtype that is not read.
    ValueError : shapes that do not fit together, or a label out of range.

    Notes
    -----
    Rows are sorted by label (counting sort) and each cluster is added up in float64 in the order
    of its rows, whatever the threads, the blocks or the device. The workspace is 8 bytes per row
    of a block of at most 4 million rows, and 8 bytes per cluster.
    """
    x = check_vectors(x)
    n, d = (int(length) for length in x.shape)
    if n_clusters < 1:
        raise ValueError(f"n_clusters must be at least 1, got {n_clusters}")
    check_output(labels, "labels", (n,), "int32")
    if sample_weight is not None and tuple(sample_weight.shape) != (n,):
        raise ValueError(f"sample_weight must have shape ({n},), got {tuple(sample_weight.shape)}")
    if out is None:
        sums = empty((n_clusters, d), "float64", like=x)
        counts = empty((n_clusters,), "float64", like=x)
    else:
        sums, counts = out
        check_output(sums, "sums", (n_clusters, d), "float64")
        check_output(counts, "counts", (n_clusters,), "float64")
    native = native_of(x)
    options: dict[str, Any]
    if native is cpu:
        options = {"n_threads": resolve_threads(n_threads)}
    else:
        options = {"stream": stream_of(x)}
    workspace: Any = None
    with on_device(x):
        if out is None:
            sums[:] = 0
            counts[:] = 0
        labels = contiguous(labels, "int32")
        if sample_weight is not None:
            sample_weight = contiguous(sample_weight, "float64")
        for rows, block in row_blocks(x, _CALL_ROWS):
            if workspace is None:  # the first block is the largest
                size = native.kmeans_update_workspace_size(n_rows=len(block), n_clusters=n_clusters)
                workspace = empty((size,), "int64", like=x)
            native.kmeans_update(
                x=block,
                labels=labels[rows],
                sample_weight=None if sample_weight is None else sample_weight[rows],
                workspace=workspace,
                sums=sums,
                counts=counts,
                **options,
            )
    return sums, counts
