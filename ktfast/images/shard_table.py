"""The table of a shard of prepared images: columns of numbers, and the paths in one block of bytes.

A table is a `.npz` file, so that a million rows are read without one Python object per row. Earlier
versions of ktfast wrote the table as JSON, and such tables are read, too.
"""

import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from ktfast import durable, readers
from ktfast.errors import reading

Int64 = npt.NDArray[np.int64]

REMEDY = "run ktfast prepare again"
COLUMNS = ("sample_ids", "labels", "offsets", "lengths", "heights", "widths")
"""Columns of numbers, one entry per image."""


class PathList(Sequence[str]):
    """A list of paths in one block of bytes; a path becomes text when it is asked for.

    Parameters
    ----------
    names : array, uint8 [bytes]
        The paths as the file system spells them, each followed by a zero byte.
    ends : array, int64 [n], optional
        Place of each zero byte. None: the places are searched for.
    """

    def __init__(self, names: npt.NDArray[np.uint8], ends: Int64 | None = None) -> None:
        self._names = names
        self._ends = np.flatnonzero(names == 0) if ends is None else ends
        if names.size and names[-1] != 0:
            raise ValueError("the last path has no end")

    @classmethod
    def of(cls, paths: Iterable[str]) -> "PathList":
        """Pack paths into a list."""
        return cls(np.frombuffer(b"".join(os.fsencode(path) + b"\0" for path in paths), np.uint8))

    @classmethod
    def joined(cls, lists: "Sequence[PathList]") -> "PathList":
        """Join lists in their order."""
        if len(lists) == 1:
            return lists[0]
        first = np.cumsum([0, *(each._names.size for each in lists)])
        ends = [each._ends + start for each, start in zip(lists, first, strict=False)]
        names = [each._names for each in lists]
        return cls(
            np.concatenate([np.empty(0, np.uint8), *names]),
            np.concatenate([np.empty(0, np.int64), *ends]),
        )

    def part(self, rows: slice) -> "PathList":
        """The list of consecutive paths, which shares the memory."""
        first, end, _ = rows.indices(len(self))
        start = int(self._ends[first - 1]) + 1 if first else 0
        stop = int(self._ends[end - 1]) + 1 if end > first else start
        return PathList(self._names[start:stop], self._ends[first : max(first, end)] - start)

    @property
    def names(self) -> npt.NDArray[np.uint8]:
        """The block of bytes, each path followed by a zero byte."""
        return self._names

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> tuple[str, ...]: ...
    def __getitem__(self, row: int | slice) -> str | tuple[str, ...]:
        if isinstance(row, slice):
            return tuple(self[each] for each in range(*row.indices(len(self))))
        row = range(len(self))[row]  # raises IndexError, which ends an iteration
        start = int(self._ends[row - 1]) + 1 if row else 0
        return os.fsdecode(self._names[start : self._ends[row]].tobytes())

    def __iter__(self) -> Iterator[str]:
        step = 1 << 16
        for first in range(0, len(self), step):
            last = min(first + step, len(self)) - 1
            start = int(self._ends[first - 1]) + 1 if first else 0
            yield from os.fsdecode(self._names[start : self._ends[last]].tobytes()).split("\0")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PathList):
            return np.array_equal(self._names, other._names)
        return isinstance(other, tuple) and tuple(self) == other

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} paths>"


class ShardTable:
    """The images of one shard.

    Parameters
    ----------
    head : dict
        JSON values: "key" of the set, rows "first" and "next" of the index of images, the shard
        "tar", and the "skipped" images with their reasons.
    numbers : array, int64 [6, n]
        A row for each of `COLUMNS`.
    paths : PathList
        Path of each image.
    """

    def __init__(self, head: dict[str, Any], numbers: Int64, paths: PathList) -> None:
        self.head = head
        self.numbers = numbers
        self.paths = paths
        if numbers.shape != (len(COLUMNS), len(paths)):
            raise ValueError(f"{len(paths)} paths and numbers of the shape {numbers.shape}")

    def column(self, name: str) -> Int64:
        """The column of this name in `COLUMNS`, int64 [n]."""
        column: Int64 = self.numbers[COLUMNS.index(name)]
        return column

    @classmethod
    def read(cls, path: Path) -> "ShardTable":
        """Read a table that this or an earlier version of ktfast wrote.

        Parameters
        ----------
        path : Path
            The table. An earlier version wrote a file whose name ends in `.json`.

        Returns
        -------
        table : ShardTable
            The table.

        Raises
        ------
        DataError
            The file is missing or damaged. The message names the file.
        """
        with reading(path, "a table of prepared images", REMEDY):
            if path.suffix == ".json":
                content = durable.read_json(path)
                numbers = np.array([content.pop(name) for name in COLUMNS], np.int64)
                return cls(content, numbers, PathList.of(content.pop("paths")))
            arrays = readers.read_npz(path, ["head", "numbers", "paths"], remedy=REMEDY)
            if [array.dtype for array in arrays.values()] != [np.uint8, np.int64, np.uint8]:
                raise ValueError("its arrays have other types")
            head = json.loads(arrays["head"].tobytes())
            return cls(dict(head), arrays["numbers"], PathList(arrays["paths"]))

    def write(self, path: Path) -> None:
        """Write the table to a `.npz` file, whose bytes depend on the values only."""
        head = np.frombuffer(json.dumps(self.head).encode(), np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, head=head, numbers=self.numbers, paths=self.paths.names)
        durable.write_bytes(path, buffer.getvalue())
