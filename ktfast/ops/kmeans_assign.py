"""The nearest centre of every row: exact, fused with the product, no n x k matrix."""

from typing import Any

import numpy as np

from ktfast.native.arrays import contiguous, device_of, empty, on_device, stream_of
from ktfast.native.modules import cpu, native_of
from ktfast.native.threads import n_threads as resolve_threads
from ktfast.ops.kmeans_screen import Float32, Screen, codes_for
from ktfast.ops.kmeans_tensor import MOST_FEATURES, TensorScreen, choose_code
from ktfast.ops.vectors import check_output, check_vectors, row_blocks

PRECISIONS = ("exact", "fast", "float32", "bfloat16", "float16", "int8")
# Below so many multiplications nothing is gained by looking at a sample first.
_SMALL = 1e8
_GPU_SMALL = 1e10
_GPU_CALL_PRODUCTS = 5e12


class PreparedCenters:
    """Centres in the form the product reads, to be used for many arrays of rows.

    Parameters
    ----------
    centers : float16, bfloat16, float32 or float64 [k, d], k >= 1.

    Notes
    -----
    Holds the centres in float64, and per precision that was used as a screen reads them: 5 to 8
    bytes per element on a CPU, 1 to 4 on a GPU, with k rounded up to a multiple of 64 to 256.
    """

    def __init__(self, centers: Any) -> None:
        centers = check_vectors(centers, "centers")
        self.n_clusters, self.n_features = (int(length) for length in centers.shape)
        if self.n_clusters == 0:
            raise ValueError("centers must hold at least one row, got shape " + str(centers.shape))
        self._by_code: dict[str, Any] = {}
        self._chosen: str | None = None
        with on_device(centers):
            self.centers = contiguous(centers, "float64")
            if native_of(centers) is cpu:
                self.centers = np.asarray(self.centers)
            with np.errstate(all="ignore"):  # infinite centres are far from everything
                self.mean = contiguous(self.centers.mean(0), "float32")

    def in_code(self, screen: Screen) -> Float32:
        """The centres as a screen without a basis reads them (CPU)."""
        if screen.code not in self._by_code:
            self._by_code[screen.code] = screen.prepare(self.centers)
        prepared: Float32 = self._by_code[screen.code]
        return prepared

    def screen(self, x: Any, precision: str, n_threads: int) -> Screen:
        """The screen for rows x [n, d] (CPU); what is not forced is settled by the first rows."""
        codes = codes_for(precision)
        code = codes[0] if len(codes) == 1 else self._chosen
        if code is None:
            few = cpu.kmeans_is_few(n_clusters=self.n_clusters, n_features=self.n_features)
            code = self._chosen = "float32" if few else self._choose(x, codes, n_threads)
        return Screen(self.mean, code, n_threads=n_threads)

    def _choose(self, x: Any, codes: list[str], n_threads: int) -> str:
        if len(x) * self.n_clusters * self.n_features < _SMALL:
            return "float32"
        screens = [Screen(self.mean, code, n_threads=n_threads) for code in codes]
        sample = sample_of(x)
        return min(screens, key=lambda screen: screen.try_on(sample, self.centers).cycles).code

    def tensor_code(self, x: Any, precision: str, *, n_rows: int | None = None) -> str:
        """What to multiply for rows x [n, d] (GPU): "int8", "float16" or "float32".

        They may stand for more rows, `n_rows`.
        """
        if precision == "bfloat16":
            raise ValueError(
                'precision "bfloat16" needs arrays on a CPU; on a GPU use "float16" or "exact"'
            )
        if precision not in ("exact", "fast"):
            return precision
        products = (n_rows or len(x)) * self.n_clusters * self.n_features
        if products < _GPU_SMALL or self.n_features > MOST_FEATURES:
            return "float32"
        if self._chosen is None:
            self._chosen = choose_code(sample_of(x), self.centers, self.mean)
        return self._chosen

    def in_tensor_code(self, code: str) -> tuple[TensorScreen, Any]:
        """The screen, and the centres as it reads them (GPU)."""
        if code not in self._by_code:
            screen = TensorScreen(self.mean, code, like=self.centers)
            self._by_code[code] = screen, screen.prepare(self.centers)
        found: tuple[TensorScreen, Any] = self._by_code[code]
        return found

    def in_float32(self) -> Any:
        """The centres as the product of float32 reads them (GPU)."""
        if "float32" not in self._by_code:
            native = native_of(self.centers)
            size = native.kmeans_prepared_size(
                n_clusters=self.n_clusters, n_features=self.n_features
            )
            with on_device(self.centers):
                prepared = empty((size,), "float32", like=self.centers)
                native.kmeans_prepare(
                    centers=self.centers, prepared=prepared, stream=stream_of(self.centers)
                )
            self._by_code["float32"] = prepared
        return self._by_code["float32"]


def kmeans_assign(
    x: Any,
    centers: Any,
    *,
    precision: str = "exact",
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
    precision : what is multiplied to sort out far centres. "exact": whichever code a sample of x
        and the processor make fastest. "float32", "bfloat16" (CPU), "float16" (GPU) or "int8" force
        one. The result does not depend on it. "fast": as "exact", but on a GPU what the screen
        cannot tell apart is not compared: the label is that of the least rounded score, and the
        distance is rounded too. On a CPU comparing costs next to nothing, so that it is exact.
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
    ValueError : shapes that do not fit together, no centres, another device, unknown precision.

    Notes
    -----
    A product of low precision screens the centres; those that its error bound cannot tell apart are
    compared in float64. So the labels are those of the float64 distances, and the same bits on
    every machine. A row with NaN gets label 0 and distance NaN; a distance beyond the dtype's
    range is infinite. Nothing of size n x k is allocated: the workspace on a CPU is at most about
    9 MiB per thread, 0.4 MiB for 256 features (more only where 6 rows of x are larger than that);
    on a GPU 76 MB, and at most 256 MiB for codes of rows.
    """
    x = check_vectors(x)
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if not isinstance(centers, PreparedCenters):
        _check_pair(x, check_vectors(centers, "centers"))
        centers = PreparedCenters(centers)
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
    if native_of(x) is cpu:
        screen = centers.screen(x, precision, resolve_threads(n_threads))
        screen.assign(x, centers.centers, centers.in_code(screen), labels, distances)
    else:
        _assign_on_gpu(x, centers, labels, distances, precision)
    if out is None and distance_dtype == "float32":
        with on_device(x):
            distances = contiguous(distances, "float32")
    return labels, distances


def sample_of(x: Any, size: int = 512) -> Any:
    """At most `size` rows of x [n, d], evenly spaced."""
    step = -(-len(x) // size)
    return contiguous(x[:: max(1, step)])


def _assign_on_gpu(
    x: Any, centers: PreparedCenters, labels: Any, distances: Any, precision: str
) -> None:
    code = centers.tensor_code(x, precision)
    if code != "float32":
        screen, prepared = centers.in_tensor_code(code)
        certify = precision != "fast"
        screen.assign(x, centers.centers, prepared, labels, distances, certify=certify)
        return
    products = max(1, centers.n_clusters * centers.n_features)
    with on_device(x):
        for rows, block in row_blocks(x, max(1, int(_GPU_CALL_PRODUCTS / products))):
            native_of(x).kmeans_assign(
                x=block,
                centers=centers.centers,
                prepared=centers.in_float32(),
                labels=labels[rows],
                distances=distances[rows],
                stream=stream_of(x),
            )


def _check_pair(x: Any, centers: Any) -> None:
    if device_of(x) != device_of(centers):
        raise ValueError(
            f"x is on {_device_text(x)}, but centers is on {_device_text(centers)}; "
            "move one of them"
        )


def _device_text(array: Any) -> str:
    kind, index = device_of(array)
    return "the CPU" if kind == "cpu" else f"CUDA device {index}"
