"""Points of every container, as the faiss interface reads them: float32 or narrower."""

from typing import Any

from ktfast.errors import InputError
from ktfast.kmeans.containers import matrices_of

# Dtypes that are read without a copy. faiss converts all others to float32.
_READ = ("float32", "float16", "bfloat16", "uint8", "int8")


def points_of(x: Any, d: int, name: str = "x") -> list[Any]:
    """Check points [n, d]; convert them to float32 if the kernels cannot read their dtype.

    Parameters
    ----------
    x : array, data frame, list of numbers, or sequence of matrices
        The points.
    d : int
        Their dimension.
    name : str, default "x"
        Name of the argument in error messages.

    Returns
    -------
    matrices : list of array [n_i, d]
        The points in one or several matrices.

    Raises
    ------
    InputError
        The shape is wrong, or a value is beyond the range of float32.
    """
    matrices = matrices_of(x, name, reads=_READ, converts_to="float32")
    for i, matrix in enumerate(matrices):
        if matrix.shape[1] != d:
            named = name if len(matrices) == 1 else f"{name}[{i}]"
            raise InputError(
                f"{named} must have shape [n, {d}], because d is {d}; got {list(matrix.shape)}"
            )
    return matrices
