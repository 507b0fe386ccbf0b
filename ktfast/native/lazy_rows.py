"""Rows that lie in files or in object storage, and are read block by block when they are needed.

The functions of `ktfast.ops.mapped` copy such rows as they copy the rows of a memory-mapped file.
"""

import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
_GROUPS = 2


class LazyRows(ABC):
    """A matrix [n, d] on the host whose rows are read when they are asked for.

    Parameters
    ----------
    n, d : int
        Number of rows and of features.
    dtype : dtype
        Type of the rows, in native byte order.

    Attributes
    ----------
    shape : tuple of int
        (n, d).
    dtype : np.dtype
        Type of the rows.
    """

    ndim = 2

    def __init__(self, n: int, d: int, dtype: npt.DTypeLike) -> None:
        self.shape = (n, d)
        self.dtype: np.dtype[Any] = np.dtype(dtype)

    @abstractmethod
    def read(self, first: int, end: int) -> Array:
        """Read the rows `first` to `end` - 1, [end - first, d]; several threads may call this.

        Raises
        ------
        DataError
            The rows cannot be read. The message names the file.
        """

    @abstractmethod
    def take(self, rows: npt.NDArray[np.int64]) -> Array:
        """Read the rows with these numbers in the given order, [len(rows), d].

        Raises
        ------
        DataError
            The rows cannot be read. The message names the file.
        """

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return self.shape[0] * self.shape[1] * self.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Any:
        """A lazy part for a slice without a step, else a copy of the chosen rows."""
        if isinstance(rows, slice) and rows.step in (None, 1):
            first, end, _ = rows.indices(len(self))
            return _Part(self, first, max(first, end))
        return self.take(np.arange(len(self))[rows])

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> Array:
        """All rows in memory."""
        return self.read(0, len(self)).astype(dtype or self.dtype, copy=False)


class _Part(LazyRows):
    """Some rows of lazy rows, one after the other."""

    def __init__(self, whole: LazyRows, first: int, end: int) -> None:
        super().__init__(end - first, whole.shape[1], whole.dtype)
        self._whole, self._first = whole, first

    def read(self, first: int, end: int) -> Array:
        return self._whole.read(self._first + first, self._first + end)

    def take(self, rows: npt.NDArray[np.int64]) -> Array:
        return self._whole.take(self._first + rows)


class RowGroups:
    """The two row groups of Parquet files that were read last; the files of a dataset share them.

    Threads may share the object.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, int], Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[str, int], read: Callable[[], Any]) -> Any:
        """Give a row group that is kept, or read it.

        Parameters
        ----------
        key : tuple of str and int
            Name of the file, and number of the row group in the file.
        read : callable
            Reads the row group.

        Returns
        -------
        group : object
            What `read` returned.
        """
        with self._lock:
            if key not in self._kept:
                while len(self._kept) >= _GROUPS:
                    self._kept.popitem(last=False)
                self._kept[key] = read()
            self._kept.move_to_end(key)
            return self._kept[key]
