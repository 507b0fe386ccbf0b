"""Flat indexes on disk, in the file format of faiss: faiss reads these files, and the reverse."""

import os
import struct

import numpy as np

from ktfast.durable import replacing
from ktfast.errors import DataError, reading, shown
from ktfast.kmeans.faiss.index import METRIC_INNER_PRODUCT, CentroidIndex

# The four letters at the start of a file, by metric.
_KINDS = {False: b"IxF2", True: b"IxFI"}
# The dimension, the number of vectors, two unused numbers, is_trained and the metric. The number of
# float32 values follows, then the values.
_HEADER = struct.Struct("<iqqq?i")
_SIZE = struct.Struct("<Q")
_UNUSED = 1 << 20


def write_index(index: CentroidIndex, path: str | os.PathLike[str]) -> None:
    """Write an index to a file that `read_index` and faiss read.

    Parameters
    ----------
    index : CentroidIndex
        The index.
    path : path-like
        The file, which is replaced.
    """
    vectors = index.reconstruct_n()
    with replacing(path) as file:
        file.write(_KINDS[index.inner_product])
        file.write(_HEADER.pack(index.d, index.ntotal, _UNUSED, _UNUSED, True, index.metric_type))
        file.write(_SIZE.pack(vectors.size))
        file.write(vectors.astype("<f4").tobytes())


def read_index(path: str | os.PathLike[str]) -> CentroidIndex:
    """Read a flat index that `write_index` or faiss wrote.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    index : CentroidIndex
        The index.

    Raises
    ------
    DataError
        The file is damaged, or holds an index of another kind.
    """
    with reading(path, "a flat index of faiss", "write it again with write_index"):
        with open(path, "rb") as file:
            content = file.read()
        kind = content[:4]
        if kind not in _KINDS.values():
            raise DataError(
                f"{shown(path)} holds no flat index: it starts with {kind!r}, not with "
                f"{' or '.join(map(repr, _KINDS.values()))}; ktfast reads IndexFlatL2 and "
                "IndexFlatIP only, so use faiss for other indexes"
            )
        d, ntotal, _, _, _, metric = _HEADER.unpack_from(content, 4)
        start = 4 + _HEADER.size
        (size,) = _SIZE.unpack_from(content, start)
        whole = len(content) == start + _SIZE.size + 4 * size
        if not whole or d < 1 or ntotal * d != size:
            raise DataError(
                f"{shown(path)} is damaged: its size does not fit {ntotal} vectors of dimension "
                f"{d}; write it again with write_index"
            )
        index = CentroidIndex(d, inner_product=metric == METRIC_INNER_PRODUCT)
        vectors = np.frombuffer(content, "<f4", offset=start + _SIZE.size).reshape(ntotal, d)
        if ntotal:
            index.add(vectors.astype(np.float32))
        return index
