"""The sum and the total weight of every cluster's rows, with the same bits on every machine."""

from typing import Any

from ktfast.native.arrays import contiguous, empty, on_device
from ktfast.native.modules import native_of
from ktfast.ops.vectors import check_output, check_vectors, execution, gpu_row_blocks

__all__ = ["kmeans_update"]

# Rows of one call. They bound the workspace, which is 8 bytes per row.
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

    Divide the sums by the counts to get the centres of the next K-means iteration.

    Parameters
    ----------
    x : array, float32, float64, float16, bfloat16, uint8 or int8 [n, d]
        Rows, of NumPy, torch or CuPy. Rows that are row-major without gaps, aligned and of native
        byte order are read in place. Other rows are copied, at most 32 MiB at a time.
    labels : array, int32 [n]
        Cluster of each row on the device of `x`, 0 to ``n_clusters - 1``. A GPU skips rows whose
        label is out of range, because reporting such a label would wait for the GPU.
    n_clusters : int
        Number of clusters k, at least 1.
    sample_weight : array [n], optional
        Weight of each row on the device of `x`; read as float64. None: every weight is 1.
    n_threads : int, optional
        Number of CPU threads. None reads the environment variable OMP_NUM_THREADS, or uses every
        core of this process if the variable is not set. The result does not depend on the number.
    out : tuple of array, optional
        Sums float64 [k, d] and counts float64 [k] on the device of `x`. The call adds to these
        arrays, so that several calls can add up one data set.

    Returns
    -------
    sums : array, float64 [k, d]
        Sum of ``sample_weight[i] * x[i]`` over the rows i of each cluster.
    counts : array, float64 [k]
        Total weight of the rows of each cluster.

    Raises
    ------
    TypeError
        An argument is no array, or has a dtype that is not supported.
    ValueError
        The shapes do not fit together, or a label is out of range (on a CPU).
    RuntimeError
        The arrays are on a GPU that this build of ktfast cannot use. The message says what to do.

    Notes
    -----
    The kernel sorts the rows by label (counting sort) and adds up each cluster in float64 in the
    order of its rows. The sums therefore have the same bits for any number of threads, any split
    into blocks and any device. The workspace is 8 bytes per row of a block of at most 4 million
    rows, and 8 bytes per cluster.

    Examples
    --------
    >>> import numpy as np
    >>> from ktfast.ops import kmeans_update
    >>> x = np.array([[0, 0], [1, 0], [9, 9]], dtype=np.float32)
    >>> sums, counts = kmeans_update(x, np.array([0, 0, 1], dtype=np.int32), n_clusters=2)
    >>> sums / counts[:, None]
    array([[0.5, 0. ],
           [9. , 9. ]])
    """
    x = check_vectors(x)
    n, d = (int(length) for length in x.shape)
    if n_clusters < 1:
        raise ValueError(f"n_clusters must be at least 1, got {n_clusters}")
    check_output(labels, "labels", (n,), "int32")
    if sample_weight is not None and tuple(sample_weight.shape) != (n,):
        raise ValueError(f"sample_weight must have shape ({n},), got {tuple(sample_weight.shape)}")
    native = native_of(x)
    options = execution(x, n_threads)
    workspace: Any = None
    with on_device(x):
        sums, counts = _sums(out, x, n_clusters, d)
        labels = contiguous(labels, "int32")
        if sample_weight is not None:
            sample_weight = contiguous(sample_weight, "float64")
        for rows, block in gpu_row_blocks(x, _CALL_ROWS):
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


def _sums(out: tuple[Any, Any] | None, x: Any, k: int, d: int) -> tuple[Any, Any]:
    """Sums float64 [k, d] and counts float64 [k] to add to: the caller's, or new zeros."""
    if out is None:
        sums = empty((k, d), "float64", like=x)
        counts = empty((k,), "float64", like=x)
        sums[:] = 0
        counts[:] = 0
    else:
        sums, counts = out
        check_output(sums, "sums", (k, d), "float64")
        check_output(counts, "counts", (k,), "float64")
    return sums, counts
