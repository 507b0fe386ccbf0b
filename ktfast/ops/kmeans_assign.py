"""The nearest centre of every row: exact, fused with the product, no n x k matrix."""

from typing import Any

from ktfast._backend import cpu, device_of, empty, native_of, on_device, stream_of
from ktfast._backend import n_threads as resolve_threads
from ktfast.ops.vectors import check_output, check_vectors, contiguous, row_blocks

# Multiplications of one call and thread; at 10 to 100 GFLOP/s a call takes 0.1 to 1 s.
_CALL_PRODUCTS = 5e9


class PreparedCenters:
    """Centres in the form the product reads, to be used for many arrays of rows.

    Parameters
    ----------
    centers : float16, bfloat16, float32 or float64 [k, d], k >= 1.
    n_threads : see `ktfast.ops.kmeans_assign`.

    Notes
    -----
    Holds the centres once in float64 and once as float32 panels: 12 bytes per element, with k
    rounded up to a multiple of 32 (CPU) or 128 (GPU).
    """

    def __init__(self, centers: Any, *, n_threads: int | None = None) -> None:
        centers = check_vectors(centers, "centers")
        self.n_clusters, self.n_features = (int(length) for length in centers.shape)
        if self.n_clusters == 0:
            raise ValueError("centers must hold at least one row, got shape " + str(centers.shape))
        native = native_of(centers)
        size = native.kmeans_prepared_size(n_clusters=self.n_clusters, n_features=self.n_features)
        self.prepared = empty((size,), "float32", like=centers)
        with on_device(centers):
            self.centers = contiguous(centers, "float64")
            native.kmeans_prepare(
                centers=self.centers, prepared=self.prepared, **_launch(centers, n_threads)
            )


def kmeans_assign(
    x: Any,
    centers: Any,
    *,
    n_threads: int | None = None,
    distance_dtype: str = "float32",
    out: tuple[Any, Any] | None = None,
) -> tuple[Any, Any]:
    """Find the nearest centre of every row, and the squared Euclidean distance to it.

    Parameters
    ----------
    x : float32, float64, float16, bfloat16, uint8 or int8 [n, d] of NumPy, torch or CuPy. Read
        where it lies; rows that are not contiguous, aligned and of native byte order are copied
        at most 32 MiB at a time.
    centers : [k, d] on the device of `x`, or `PreparedCenters` made from it.
    n_threads : CPU threads; None: OMP_NUM_THREADS or every core. The result does not depend on it.
    distance_dtype : "float32" or "float64".
    out : (labels int32 [n], distances float64 [n]) on the device of `x` to write to;
        `distance_dtype` is then ignored.

    Returns
    -------
    labels : int32 [n]; of several nearest centres the one with the lowest index.
    distances : [n] of `distance_dtype`, >= 0.

    Raises
    ------
    TypeError : a dtype that is not read.
    ValueError : shapes that do not fit together, no centres, another device.

    Notes
    -----
    A float32 product screens the centres; those that its error bound cannot tell apart are
    compared in float64. So the labels are those of the float64 distances, and the same bits on
    every machine. A row with NaN gets label 0 and distance NaN; a distance beyond the dtype's
    range is infinite. Nothing of size n x k is allocated: the workspace is at most about 1.1 MiB
    per thread (more only where 12 rows of x are larger than that).
    """
    x = check_vectors(x)
    if not isinstance(centers, PreparedCenters):
        _check_pair(x, check_vectors(centers, "centers"))
        centers = PreparedCenters(centers, n_threads=n_threads)
    n, d = (int(length) for length in x.shape)
    if d != centers.n_features:
        raise ValueError(f"x has {d} features, but centers has {centers.n_features}")
    if distance_dtype not in ("float32", "float64"):
        raise TypeError(f"distance_dtype must be float32 or float64, got {distance_dtype}")
    if out is None:
        labels = empty((n,), "int32", like=x)
        distances = empty((n,), "float64", like=x)
    else:
        labels, distances = out
        check_output(labels, "labels", (n,), "int32")
        check_output(distances, "distances", (n,), "float64")
    native = native_of(x)
    options = _launch(x, n_threads)
    if native is cpu:
        size = cpu.kmeans_assign_workspace_size(n_features=d, n_threads=options["n_threads"])
        options["workspace"] = empty((size,), "float32", like=x)
    products = _CALL_PRODUCTS * options.get("n_threads", 1000)
    call_rows = max(1, int(products / max(1, centers.n_clusters * d)))
    with on_device(x):
        for rows, block in row_blocks(x, call_rows):
            native.kmeans_assign(
                x=block,
                centers=centers.centers,
                prepared=centers.prepared,
                labels=labels[rows],
                distances=distances[rows],
                **options,
            )
        if out is None and distance_dtype == "float32":
            distances = contiguous(distances, "float32")
    return labels, distances


def _check_pair(x: Any, centers: Any) -> None:
    if device_of(x) != device_of(centers):
        raise ValueError(
            f"x is on {_device_text(x)}, but centers is on {_device_text(centers)}; "
            "move one of them"
        )


def _device_text(array: Any) -> str:
    kind, index = device_of(array)
    return "the CPU" if kind == "cpu" else f"CUDA device {index}"


def _launch(array: Any, n_threads: int | None) -> dict[str, Any]:
    """How to run a kernel on the array's device."""
    if device_of(array)[0] == "cpu":
        return {"n_threads": resolve_threads(n_threads)}
    return {"stream": stream_of(array)}
