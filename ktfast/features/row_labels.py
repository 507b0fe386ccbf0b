"""Write the cluster of every row beside the row's id as a Parquet file, block by block."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ktfast.durable import replacing
from ktfast.errors import ConfigError, reading, shown
from ktfast.features.datasets import RowIds
from ktfast.features.store import FeatureStore
from ktfast.optional import problem_of
from ktfast.remote import REMEDY, file_system, url_of


def check_label_file(path: str | os.PathLike[str]) -> None:
    """Refuse a Parquet file that cannot be written, before the rows are clustered.

    Raises
    ------
    ConfigError
        pyarrow is not installed, or the folder does not exist.
    DataError
        A package for object storage is not installed.
    """
    if problem_of("pyarrow.parquet") is not None:
        raise ConfigError(
            f"{shown(path)}: writing Parquet needs pyarrow, which is not installed; pip install "
            "pyarrow, or give a file that ends in .csv"
        )
    if (url := url_of(path)) is not None:
        file_system(url)
    elif not Path(path).absolute().parent.is_dir():
        raise ConfigError(f"the folder of {shown(path)} does not exist; make this folder first")


def write_labels(
    path: str | os.PathLike[str],
    stores: Sequence[FeatureStore],
    labels: npt.NDArray[np.integer[Any]],
    squared_distances: npt.NDArray[np.floating[Any]],
) -> None:
    """Write the cluster of each row as a Parquet file.

    The first columns name the row: the columns of ids of the data, which may be named `path`,
    `paths`, `id` or `ids`; `_rowid` of a Lance dataset; or `file` and `row`, the number of the row
    in the file. These names stay the same if files are added to the data. The columns `cluster` and
    `distance` follow.

    Parameters
    ----------
    path : path
        The file. It may be a URL.
    stores : sequence of FeatureStore
        The features that were clustered.
    labels : array, int [n]
        Cluster of each row of all stores.
    squared_distances : array, float [n]
        Squared distance of each row to the centre of its cluster. The file holds the square root.

    Raises
    ------
    DataError
        A column of ids cannot be read, or the object storage cannot be written.
    """
    import pyarrow as arrow
    from pyarrow import parquet

    shards = [ids for store in stores for ids in store.row_ids]
    columns = {ids.column for ids in shards}
    named = len(columns) == 1 and columns != {None}
    distances = np.sqrt(np.maximum(squared_distances, 0))
    with _opened(path) as file:
        writer, start = None, 0
        for ids in shards:
            place = slice(start, start + ids.n)
            start += ids.n
            table = arrow.table(
                {
                    **_names(ids, named),
                    "cluster": arrow.array(labels[place], arrow.int32()),
                    "distance": arrow.array(distances[place], arrow.float64()),
                }
            )
            writer = writer or parquet.ParquetWriter(file, table.schema)
            writer.write_table(table.cast(writer.schema))
        if writer is not None:
            writer.close()


def _names(ids: RowIds, named: bool) -> dict[str, Any]:
    """The columns that name the rows of a shard."""
    import pyarrow as arrow

    if named:
        return {str(ids.column): ids.read()}
    name = ids.file if _is_utf8(ids.file) else os.fsencode(ids.file)
    return {
        "file": arrow.repeat(name, ids.n),
        "row": arrow.array(ids.first + np.arange(ids.n)),
    }


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file here or in object storage; it is complete when the block ends."""
    if (url := url_of(path)) is None:
        with replacing(path) as file:
            yield file
        return
    system, place = file_system(url)
    with reading(url, "a file to write", REMEDY), system.open(place, "wb") as file:
        yield file
