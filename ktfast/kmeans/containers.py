"""The one conversion of rows and centres that every public function of K-means uses.

What is converted and what is refused depends on the values, not on their container. The containers
are arrays of NumPy (also memory-mapped), torch and CuPy, objects with DLPack's interface, data
frames, lists of numbers, and sequences of matrices.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import check_array

from ktfast.errors import InputError
from ktfast.kmeans.array_types import Float64
from ktfast.kmeans.data.workspace import float64_on_host
from ktfast.native.arrays import contiguous, dtype_name, in_memory, library_of, on_device

READ = ("float64", "float32", "float16", "bfloat16", "uint8", "int8")
"""Dtypes that the kernels read. Numbers of other dtypes are copied."""

_CPU_OF_DLPACK = 1  # kDLCPU
_NO_SEQUENCES = (str, bytes, memoryview)  # sequences for Python, but no sequences of matrices
_FLOAT32_LEAST, _FLOAT32_MOST = 2.0**-126, float(np.finfo(np.float32).max)


def matrices_of(
    given: Any, name: str = "X", *, reads: Sequence[str] = READ, converts_to: str = "float64"
) -> list[Any]:
    """Convert what a user gives as rows to matrices that the kernels read.

    Parameters
    ----------
    given : array, data frame, list of numbers, or sequence of matrices
        The rows. A sequence of matrices stands for their concatenation.
    name : str, default "X"
        Name of the argument in error messages.
    reads : sequence of str
        Dtypes that are returned without a copy.
    converts_to : str, default "float64"
        Dtype to which all other numbers are converted.

    Returns
    -------
    matrices : list of array [n_i, d]
        Matrices of NumPy, torch or CuPy, on the devices of the given ones.

    Raises
    ------
    InputError
        The rows are not two-dimensional, or no numbers, or beyond the range of `converts_to`.
    TypeError
        The rows are sparse.
    """
    parts = _parts(given, name)
    if parts is None:
        return [_matrix(given, name, reads, converts_to)]
    return [_matrix(part, f"{name}[{i}]", reads, converts_to) for i, part in enumerate(parts)]


def named_part(given: Any) -> Any:
    """Give the part of `given` that names the columns of all parts.

    Returns
    -------
    part : object
        `given` itself, unless `given` is a sequence of matrices of which one or more name their
        columns, such as data frames: then the first of them.

    Raises
    ------
    InputError
        Two parts name other columns, or the same columns in another order.
    """
    if not isinstance(given, Sequence) or isinstance(given, _NO_SEQUENCES):
        return given
    named = [(i, part) for i, part in enumerate(given) if hasattr(part, "columns")]
    if not named:
        return given
    first = list(named[0][1].columns)
    for i, part in named[1:]:
        if list(part.columns) != first:
            raise InputError(
                f"X[{i}] has the columns {list(part.columns)}, and X[{named[0][0]}] has {first}; "
                "give parts with the same columns in the same order"
            )
    return named[0][1]


def read_as(dtype: np.dtype[Any]) -> str:
    """Name the dtype as which K-means reads numbers of NumPy of a dtype."""
    return dtype.name if dtype.isnative and dtype.name in READ else "float64"


def host_matrix(given: Any, name: str) -> Float64:
    """Convert centres that a user gives to one finite matrix float64 [k, d] on the host.

    Raises
    ------
    InputError
        As for `matrices_of`, or a value is NaN or infinity.
    TypeError
        As for `matrices_of`.
    """
    matrix = np.concatenate([float64_on_host(part) for part in matrices_of(given, name)])
    if not np.isfinite(matrix).all():
        raise InputError(f"{name} contains NaN or infinity; centers must be finite")
    return matrix


def is_array(value: Any) -> bool:
    """Whether a value is an array of NumPy, torch or CuPy."""
    try:
        library_of(value)
    except TypeError:
        return False
    return True


def _parts(given: Any, name: str) -> list[Any] | None:
    """The matrices of a sequence of matrices; None if `given` is one matrix."""
    if hasattr(getattr(given, "type", None), "list_size"):
        return _from_arrow(given, name)
    if not isinstance(given, Sequence) or isinstance(given, _NO_SEQUENCES) or len(given) == 0:
        return None
    dims = {len(getattr(part, "shape", ())) for part in given}
    if dims == {2}:
        return list(given)
    if dims == {1} and all(is_array(part) and library_of(part) != "numpy" for part in given):
        return [sys.modules[library_of(given[0])].stack(list(given))]  # a list of single rows
    return None


def _from_arrow(lists: Any, name: str) -> list[Any]:
    """The matrices of an array or a chunked array of Arrow whose cells are lists of one length."""
    if lists.null_count:
        raise InputError(
            f"{name} has {lists.null_count} rows without a list; remove these rows, for example "
            f"by {name}.drop_null()"
        )
    d = lists.type.list_size
    chunks = [chunk for chunk in getattr(lists, "chunks", [lists]) if len(chunk)]
    numbers = [chunk.flatten() for chunk in chunks]
    if missing := sum(chunk.null_count for chunk in numbers):
        raise InputError(
            f"{name} has {missing} missing numbers in its lists; replace them, or remove their rows"
        )
    found = [chunk.to_numpy(zero_copy_only=False).reshape(-1, d) for chunk in numbers]
    return found or [np.empty((0, d), np.float32)]


def _matrix(given: Any, name: str, reads: Sequence[str], converts_to: str) -> Any:
    """Convert one matrix."""
    array = _from_dlpack(np.asarray(given) if isinstance(given, memoryview) else given)
    _refuse_no_rows(array, name)
    _refuse_sparse(array, name)
    if not is_array(array):
        array = _from_frame(array, name)
    _check_dimensions(array, name)
    dtype = dtype_name(array)
    if "complex" in dtype:
        raise InputError(f"Complex data not supported: {name} is {dtype}; give real numbers")
    if np.ma.is_masked(array):
        raise InputError(
            f"{name} is a masked array with masked values; replace or remove these values"
        )
    is_numpy = library_of(array) == "numpy"
    if dtype in reads and (not is_numpy or _is_plain(array)):
        return in_memory(array) if library_of(array) == "torch" else array
    if is_numpy:  # also converts strings of digits and objects, and refuses all other text
        array = check_array(array, ensure_all_finite=False, **_ANY_NUMBERS)
    return array if dtype_name(array) in reads else _converted(array, name, converts_to)


def _from_frame(frame: Any, name: str) -> Any:
    """Convert a data frame, a list or another object with numbers to an array of NumPy."""
    if hasattr(frame, "collect") and not hasattr(frame, "shape"):
        raise TypeError(
            f"{name} is a {type(frame).__name__}, whose rows are not computed yet; give "
            f"{name}.collect()"
        )
    try:
        if hasattr(frame, "__array__") and not hasattr(getattr(frame, "dtypes", None), "__array__"):
            frame = np.asarray(frame)  # scikit-learn keeps the dtype of pandas' frames only
        return check_array(frame, ensure_all_finite=False, ensure_2d=False, **_ANY_NUMBERS)
    except TypeError as error:
        if hasattr(frame, "dtypes") or isinstance(frame, Sequence):
            raise TypeError(
                f"{name} holds values that are no numbers ({error}); leave their columns out, or "
                "convert them to numbers"
            ) from error
        raise TypeError(
            f"{name} must be an array [n, d], a data frame, a nested list or a list of matrices, "
            f"got {type(frame).__name__}; collect the rows in an array first"
        ) from error
    except ValueError as error:
        if "with a sequence" not in str(error):
            raise
        raise InputError(
            f"{name} has cells that hold lists, or rows of different lengths; give one number per "
            "cell, for example numpy.stack(frame['embedding']) of a column of equally long lists"
        ) from error


_ANY_NUMBERS: dict[str, Any] = {
    "dtype": (np.float64, np.float32, np.float16, np.uint8, np.int8),
    "order": None,
    "ensure_min_samples": 0,
    "ensure_min_features": 0,
    "allow_nd": True,
}


def _is_plain(array: Any) -> bool:
    return array.dtype.isnative and not isinstance(array, np.matrix | np.ma.MaskedArray)


def _from_dlpack(given: Any) -> Any:
    """Wrap an array of another library, such as JAX, without a copy."""
    is_arrow = type(given).__module__.partition(".")[0] == "pyarrow"  # has vectors of numbers only
    if is_array(given) or is_arrow or not hasattr(given, "__dlpack_device__"):
        return given
    if int(given.__dlpack_device__()[0]) == _CPU_OF_DLPACK:
        return np.from_dlpack(given)
    for library in ("torch", "cupy"):
        if library in sys.modules:
            return sys.modules[library].from_dlpack(given)
    raise TypeError(
        f"the array of type {type(given).__name__} lies on a GPU; import torch or cupy, which "
        "ktfast uses to read the array"
    )


def _refuse_no_rows(given: Any, name: str) -> None:
    """Refuse what holds no rows, and tensors of torch whose memory is not a matrix of numbers."""
    if given is None:
        raise InputError(f"{name} is None; give an array [n, d]")
    if isinstance(given, str | bytes | os.PathLike):
        raise InputError(
            f"{name} is {given!r}, a text or a path; read the file first, for example by "
            "numpy.load(path, mmap_mode='r')"
        )
    if getattr(given, "is_nested", False) is True:
        raise TypeError(f"{name} is a nested tensor; give a dense tensor [n, d]")
    if getattr(given, "is_quantized", False) is True:
        raise TypeError(f"{name} is a quantized tensor; give {name}.dequantize()")


def _refuse_sparse(array: Any, name: str) -> None:
    layout = str(getattr(array, "layout", "torch.strided"))
    scipy = sys.modules.get("scipy.sparse")
    if layout != "torch.strided":
        raise TypeError(
            f"Sparse data was passed for {name} (layout {layout}), but dense data is required. "
            "Use '.to_dense()' to convert to a dense tensor."
        )
    if hasattr(getattr(array, "sparse", None), "to_dense"):  # a frame of pandas
        raise TypeError(
            f"Sparse data was passed for {name}, but dense data is required. Use "
            "'.sparse.to_dense()' to convert to a dense frame."
        )
    if (scipy is not None and scipy.issparse(array)) or "cupyx" in type(array).__module__:
        raise TypeError(
            f"Sparse data was passed for {name}, but dense data is required. Use '.toarray()' to "
            "convert to a dense array."
        )


def _check_dimensions(array: Any, name: str) -> None:
    """Refuse arrays that are not two-dimensional, in scikit-learn's words."""
    shape = tuple(int(length) for length in array.shape)
    if len(shape) == 1:
        raise InputError(
            f"Expected 2D array, got 1D array instead: {name} has shape {shape}. Reshape your data "
            "either using .reshape(-1, 1) if it has a single feature or .reshape(1, -1) if it "
            "contains a single sample."
        )
    if len(shape) == 0:
        raise InputError(
            f"Expected 2D array, got scalar array instead: {name} is one number; give an array "
            "[n, d]"
        )
    if len(shape) > 2:
        raise InputError(
            f"Found array with dim {len(shape)}, but {name} must have 2 dimensions [n, d]; its "
            f"shape is {shape}"
        )


def _converted(array: Any, name: str, dtype: str) -> Any:
    """Copy numbers to another dtype; refuse numbers that would become infinity or all zero."""
    with on_device(array), np.errstate(over="ignore"):
        converted = contiguous(array, dtype)
        if dtype == "float32" and dtype_name(array) == "float64" and 0 not in array.shape:
            peak = float(abs(array).max())
            if _FLOAT32_MOST < peak < np.inf or 0 < peak < _FLOAT32_LEAST:
                raise InputError(
                    f"{name} has values up to {peak:.3g}, which float32 cannot hold; rescale the "
                    "values"
                )
    return converted
