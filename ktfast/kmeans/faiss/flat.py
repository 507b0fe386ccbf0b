"""faiss's names for exact flat indexes, for GPUs and for threads."""

from typing import Any

from ktfast.errors import InputError
from ktfast.kmeans.faiss.index import (
    METRIC_INNER_PRODUCT,
    METRIC_L2,
    CentroidIndex,
    GpuIndex,
    threads,
)
from ktfast.native.modules import cuda_devices
from ktfast.native.threads import n_threads


def IndexFlat(d: int, metric: int = METRIC_L2) -> CentroidIndex:
    """Make an exact index of a metric, as `faiss.IndexFlat`.

    Parameters
    ----------
    d : int
        Dimension of the vectors.
    metric : int, default `METRIC_L2`
        `METRIC_L2` or `METRIC_INNER_PRODUCT`.

    Returns
    -------
    index : CentroidIndex
        An empty index.

    Raises
    ------
    InputError
        The metric is another one.
    """
    if metric not in (METRIC_L2, METRIC_INNER_PRODUCT):
        raise InputError(
            f"metric must be METRIC_L2 ({METRIC_L2}) or METRIC_INNER_PRODUCT "
            f"({METRIC_INNER_PRODUCT}), got {metric!r}"
        )
    return CentroidIndex(d, inner_product=metric == METRIC_INNER_PRODUCT)


def IndexFlatL2(d: int) -> CentroidIndex:
    """Make an exact index for squared distances in d dimensions, as `faiss.IndexFlatL2`."""
    return CentroidIndex(d)


def IndexFlatIP(d: int) -> CentroidIndex:
    """Make an exact index for inner products in d dimensions, as `faiss.IndexFlatIP`."""
    return CentroidIndex(d, inner_product=True)


class StandardGpuResources:
    """Stands for `faiss.StandardGpuResources`; ktfast needs no such object."""


class GpuIndexFlatConfig:
    """Stands for `faiss.GpuIndexFlatConfig`. ktfast uses the first GPU and stores float32.

    Attributes
    ----------
    device : int
        0.
    useFloat16 : bool
        False.
    """

    device = 0
    useFloat16 = False


def GpuIndexFlatL2(resources: Any, d: int, config: Any = None) -> CentroidIndex:
    """Make an index with which `Clustering` clusters on the first GPU, as `faiss.GpuIndexFlatL2`.

    Parameters
    ----------
    resources : StandardGpuResources
        Ignored.
    d : int
        Dimension of the vectors.
    config : GpuIndexFlatConfig, optional
        Must name device 0 and no float16.

    Returns
    -------
    index : CentroidIndex
        An empty index.

    Raises
    ------
    InputError
        The configuration asks for another device or for float16.
    RuntimeError
        There is no GPU that this build of ktfast can use.
    """
    _check_config(config)
    return GpuIndex(d)


def GpuIndexFlatIP(resources: Any, d: int, config: Any = None) -> CentroidIndex:
    """Make an index of inner products for the first GPU, as `GpuIndexFlatL2`.

    Parameters
    ----------
    resources : StandardGpuResources
        Ignored.
    d : int
        Dimension of the vectors.
    config : GpuIndexFlatConfig, optional
        As for `GpuIndexFlatL2`.

    Returns
    -------
    index : CentroidIndex
        An empty index.

    Raises
    ------
    InputError
        As for `GpuIndexFlatL2`.
    RuntimeError
        As for `GpuIndexFlatL2`.
    """
    _check_config(config)
    return GpuIndex(d, inner_product=True)


def index_cpu_to_gpu(resources: Any, device: int, index: CentroidIndex) -> CentroidIndex:
    """Copy an index for the first GPU, as `faiss.index_cpu_to_gpu`.

    Parameters
    ----------
    resources : StandardGpuResources
        Ignored.
    device : int
        Must be 0.
    index : CentroidIndex
        The index.

    Returns
    -------
    index : CentroidIndex
        An index with the same vectors.

    Raises
    ------
    InputError
        The device is not 0.
    RuntimeError
        There is no GPU that this build of ktfast can use.
    """
    if device != 0:
        raise InputError(f"device must be 0, the first GPU, got {device!r}")
    copy = GpuIndex(index.d, inner_product=index.inner_product)
    if index.ntotal:
        copy.add(index.reconstruct_n())
    return copy


def omp_set_num_threads(n: int) -> None:
    """Set the number of CPU threads of this interface, for later calls.

    Parameters
    ----------
    n : int
        Number of threads, at least 1. The results do not depend on the number.

    Raises
    ------
    InputError
        The number is no integer of at least 1.
    """
    if isinstance(n, bool) or not hasattr(n, "__index__") or n < 1:
        raise InputError(f"the number of threads must be an integer of at least 1, got {n!r}")
    threads.wanted = int(n)


def omp_get_max_threads() -> int:
    """The number of CPU threads that this interface uses."""
    return n_threads(threads.wanted)


def get_num_gpus() -> int:
    """The number of GPUs."""
    return cuda_devices()


def _check_config(config: Any) -> None:
    half, device = getattr(config, "useFloat16", False), getattr(config, "device", 0)
    if half or device != 0:
        raise InputError(
            f"GpuIndexFlatConfig must have device 0 and useFloat16 False, got device {device!r} "
            f"and useFloat16 {half!r}; ktfast uses the first GPU and stores float32"
        )
