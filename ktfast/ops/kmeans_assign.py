"""The nearest centre of every row: exact labels, and no matrix of n x k distances."""

from typing import Any

import numpy as np

from ktfast.native.arrays import contiguous, device_of, empty, on_device, stream_of
from ktfast.native.modules import cpu, native_of
from ktfast.native.threads import n_threads as resolve_threads
from ktfast.ops.kmeans_screen import Float32, Screen, codes_for
from ktfast.ops.kmeans_tensor import MOST_FEATURES, TensorScreen, choose_code
from ktfast.ops.middle import middle_of
from ktfast.ops.vectors import check_output, check_vectors, gpu_row_blocks

__all__ = ["PRECISIONS", "PreparedCenters", "kmeans_assign", "sample_of"]

PRECISIONS = ("exact", "fast", "float32", "bfloat16", "float16", "int8")
# With fewer multiplications than this, trying codes on a sample takes longer than it saves.
_SMALL = 1e8
_GPU_SMALL = 1e10
# Most multiplications of one call on a GPU.
_GPU_CALL_PRODUCTS = 5e12


class PreparedCenters:
    """Centres in the form that `kmeans_assign` reads, prepared once for many arrays of rows.

    The methods are internal: `kmeans_assign` and the estimator's assignment on a GPU use them.

    Parameters
    ----------
    centers : array, float32, float64, float16, bfloat16, uint8 or int8 [k, d]
        Centres, of NumPy, torch or CuPy; k is at least 1.

    Attributes
    ----------
    n_clusters : int
        Number of centres k.
    n_features : int
        Number of features d.
    centers : array, float64 [k, d]
        The centres on their device.
    mean : array, float32 [d]
        Mean of the centres, or their median if a few large values have moved the mean.

    Raises
    ------
    TypeError
        The centres are no array, or of a dtype that the kernels do not read.
    ValueError
        The centres do not have shape [k, d] with k at least 1.

    Notes
    -----
    An object holds the centres in float64, and once more for each screen that used them: 5 to 8
    bytes per element on a CPU and 1 to 4 bytes per element on a GPU. For a screen, k is rounded up
    to a multiple of 64 on a CPU, and of 128 or 256 on a GPU.
    """

    def __init__(self, centers: Any) -> None:
        centers = check_vectors(centers, "centers")
        self.n_clusters, self.n_features = (int(length) for length in centers.shape)
        if self.n_clusters == 0:
            raise ValueError(
                f"centers must hold at least one row, got shape {tuple(centers.shape)}"
            )
        self._by_code: dict[str, Any] = {}
        self._chosen: str | None = None
        with on_device(centers):
            self.centers = contiguous(centers, "float64")
            if native_of(centers) is cpu:
                self.centers = np.asarray(self.centers)
            with np.errstate(all="ignore"):  # infinite centres are far from every row
                mean = self.centers.mean(0)
                if native_of(centers) is cpu:
                    mean = middle_of(self.centers.__getitem__, self.n_clusters, mean)
                self.mean = contiguous(mean, "float32")

    def in_code(self, screen: Screen) -> Float32:
        """The centres in the form of a CPU screen that compares all features (no basis)."""
        if screen.code not in self._by_code:
            self._by_code[screen.code] = screen.prepare(self.centers)
        prepared: Float32 = self._by_code[screen.code]
        return prepared

    def screen(self, x: Any, precision: str, n_threads: int) -> Screen:
        """The CPU's screen for rows x [n, d].

        If `precision` leaves the code open, the first rows decide the code for all later rows.
        """
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

    def tensor_code(
        self, x: Any, precision: str, *, n_rows: int | None = None, passes: int = 1
    ) -> str:
        """The code in which a GPU multiplies rows x [n, d]: "int8", "float16" or "float32".

        Give `n_rows` if `x` is only a part of that many rows, and the number of `passes`, of which
        all but the first know probable labels.
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
            sample = sample_of(x)
            self._chosen = choose_code(sample, self.centers, self.mean, passes=passes)
        return self._chosen

    def in_tensor_code(self, code: str) -> tuple[TensorScreen, Any]:
        """The GPU's screen, and the centres as that screen reads them."""
        if code not in self._by_code:
            screen = TensorScreen(self.mean, code, like=self.centers)
            self._by_code[code] = screen, screen.prepare(self.centers)
        found: tuple[TensorScreen, Any] = self._by_code[code]
        return found

    def in_float32(self) -> Any:
        """The centres as the GPU's matrix product in float32 reads them."""
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

    This is one assignment pass of K-means, which turns features of images into pseudo-labels
    (Noroozi et al., CVPR 2018, section 3).

    Parameters
    ----------
    x : array, float32, float64, float16, bfloat16, uint8 or int8 [n, d]
        Rows, of NumPy, torch or CuPy. Rows that are row-major without gaps, aligned and of native
        byte order are read in place. Other rows are copied, at most 32 MiB at a time.
    centers : array [k, d], or PreparedCenters
        Centres on the device of `x`, of any dtype that `x` may have. Pass `PreparedCenters` to use
        the same centres for several arrays of rows.
    precision : str, default "exact"
        Number format of the screen, the cheap comparison that excludes far centres. Only "fast" on
        a GPU changes the result.

        - "exact": the format that is fastest for a sample of `x` on this processor.
        - "fast": on a CPU as "exact". On a GPU the label is the centre with the best score of the
          screen. Label and distance then have the rounding error of the screen.
        - "float32" or "int8": this format.
        - "bfloat16": this format, on a CPU only.
        - "float16": this format, on a GPU only.
    n_threads : int, optional
        Number of CPU threads. None reads the environment variable OMP_NUM_THREADS, or uses every
        core of this process if the variable is not set. The result does not depend on the number.
    distance_dtype : {"float32", "float64"}, default "float32"
        Dtype of the distances.
    out : tuple of array, optional
        Memory for the result on the device of `x`: labels int32 [n] and distances float64 [n].
        `distance_dtype` is ignored if `out` is given.

    Returns
    -------
    labels : array, int32 [n]
        Index of the nearest centre. If several centres are equally near, the lowest index.
    distances : array, float32 or float64 [n]
        Squared Euclidean distance to this centre, at least 0.

    Raises
    ------
    TypeError
        An argument is no array, or has a dtype that is not supported.
    ValueError
        The shapes do not fit together, there is no centre, `x` and `centers` are on different
        devices, or the precision is unknown or not available on the device.
    RuntimeError
        The arrays are on a GPU that this build of ktfast cannot use. The message says what to do.

    Notes
    -----
    The screen multiplies rows and centres in a low precision. Its certificate, a proven error
    bound, excludes most centres. If several centres remain, their distances to the row are
    compared in float64. The labels are therefore those of the float64 distances, with the same
    bits on every machine.

    A row with a NaN gets label 0 and distance NaN. A distance beyond the range of its dtype is
    infinite.

    The workspace on a CPU takes about 0.3 MiB per thread for 256 features and 7 MiB per thread for
    9,216 features. Up to 200,000 features, it takes at most about 9 MiB per thread. On a GPU, the
    workspace takes at most 71 MB, and the codes of the rows take at most 256 MiB.

    Examples
    --------
    >>> import numpy as np
    >>> from ktfast.ops import kmeans_assign
    >>> x = np.array([[0, 0], [1, 0], [9, 9]], dtype=np.float32)
    >>> centers = np.array([[0, 0], [9, 8]], dtype=np.float32)
    >>> labels, distances = kmeans_assign(x, centers)
    >>> labels.tolist(), distances.tolist()
    ([0, 0, 1], [0.0, 1.0, 1.0])
    """
    x = check_vectors(x)
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if not isinstance(centers, PreparedCenters):
        _check_pair(x, check_vectors(centers, "centers"))
        centers = PreparedCenters(centers)
    if int(x.shape[1]) != centers.n_features:
        raise ValueError(
            f"x has {int(x.shape[1])} features, but centers has {centers.n_features}; "
            "give both the same number of columns"
        )
    if distance_dtype not in ("float32", "float64"):
        raise TypeError(f"distance_dtype must be float32 or float64, got {distance_dtype}")
    labels, distances = _outputs(out, x)
    if native_of(x) is cpu:
        screen = centers.screen(x, precision, resolve_threads(n_threads))
        screen.assign(x, centers.centers, centers.in_code(screen), labels, distances)
    else:
        _assign_on_gpu(x, centers, labels, distances, precision)
    if out is None and distance_dtype == "float32":
        with on_device(x):
            distances = contiguous(distances, "float32")
    return labels, distances


def _outputs(out: tuple[Any, Any] | None, x: Any) -> tuple[Any, Any]:
    """Memory for labels int32 [n] and distances float64 [n]: the caller's, or new arrays."""
    n = int(x.shape[0])
    if out is None:
        return empty((n,), "int32", like=x), empty((n,), "float64", like=x)
    labels, distances = out
    check_output(labels, "labels", (n,), "int32")
    check_output(distances, "distances", (n,), "float64")
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
        for rows, block in gpu_row_blocks(x, max(1, int(_GPU_CALL_PRODUCTS / products))):
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
