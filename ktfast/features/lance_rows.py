"""Rows of a Lance dataset, read when they are asked for."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ktfast.errors import reading
from ktfast.features.files import table_matrix
from ktfast.native.lazy_rows import Array, LazyRows
from ktfast.ops.vectors import DTYPES

WRITE_LANCE = "write it again with lance.write_dataset"


class LanceRows(LazyRows):
    """The rows of a Lance dataset.

    Parameters
    ----------
    place : str
        The dataset's path, for messages.
    source : LanceDataset
        The open dataset.
    columns : list of str
        A column of lists, or columns of numbers.
    """

    def __init__(self, place: str, source: Any, columns: list[str]) -> None:
        self._place, self._source, self._columns = place, source, columns
        like = table_matrix(place, source.to_table(columns=columns, limit=1), columns)
        dtype = like.dtype if like.dtype.name in DTYPES else np.dtype(np.float64)
        super().__init__(source.count_rows(), like.shape[1], dtype)

    def read(self, first: int, end: int) -> Array:
        """Read consecutive rows; see `LazyRows.read`."""
        if first >= end:
            return np.empty((0, self.shape[1]), self.dtype)
        return self._matrix(
            lambda: self._source.to_table(columns=self._columns, offset=first, limit=end - first)
        )

    def take(self, rows: npt.NDArray[np.int64]) -> Array:
        """Read rows by number; see `LazyRows.take`."""
        if not len(rows):
            return np.empty((0, self.shape[1]), self.dtype)
        return self._matrix(lambda: self._source.take(rows.tolist(), columns=self._columns))

    def _matrix(self, read: Callable[[], Any]) -> Array:
        with reading(self._place, "a Lance dataset", WRITE_LANCE):
            found = table_matrix(self._place, read(), self._columns)
            if found.shape[1] != self.shape[1]:
                raise ValueError(f"rows of the lengths {self.shape[1]} and {found.shape[1]}")
            return found.astype(self.dtype, copy=False)
