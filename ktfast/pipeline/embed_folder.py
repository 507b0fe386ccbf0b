"""Turn a folder of photographs into a file of vectors: `ktfast embed`."""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ktfast.durable import check_place, replacing
from ktfast.errors import ConfigError, DataError, shown
from ktfast.images.index import ImageIndex
from ktfast.images.prepare import verified
from ktfast.images.source import FolderSource
from ktfast.images.tars import scan_images
from ktfast.pipeline.image_model import ImageModel
from ktfast.tables import write_csv

_logger = logging.getLogger(__name__)

Vectors = npt.NDArray[np.float32]


def embed_folder(
    model: ImageModel,
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    batch_size: int = 64,
    n_threads: int | None = None,
) -> int:
    """Write the vector of every photograph below a folder to a file.

    A photograph that cannot be decoded is left out, and named in a warning.

    Parameters
    ----------
    model : ImageModel
        The network, from `ktfast.load`.
    folder : path
        Folder of photographs, at any depth, or what else `data.pretext` takes: tar files, Parquet
        files or a URL.
    out : path
        The file. Its suffix gives its format; see `writer_of`.
    batch_size : int
        Number of photographs that the network sees at a time.
    n_threads : int, optional
        Number of threads that decode. None: one per core of this process.

    Returns
    -------
    n : int
        Number of vectors.

    Raises
    ------
    ConfigError
        The suffix of `out` is unknown, the file cannot be written there, or its format needs a
        package that is not installed.
    DataError
        The folder holds no photograph that can be decoded.
    """
    write = writer_of(Path(out))
    index = verified(scan_images(folder, labels="none"), n_threads=n_threads)
    for skip in index.skipped:
        _logger.warning("%s is left out: %s", shown(skip.path), skip.reason)
    if index.n == 0:
        raise DataError(f"{shown(folder)} holds no photograph that can be decoded")
    vectors = model.embed(_Opened(index), batch_size=batch_size, n_threads=n_threads)
    write(Path(out), list(index.paths), vectors)
    return index.n


class _Opened(Sequence[Image.Image]):
    """The photographs of an index, each decoded when it is asked for."""

    def __init__(self, index: ImageIndex) -> None:
        self._source = FolderSource(index)

    def __len__(self) -> int:
        return self._source.n

    def __getitem__(self, row: Any) -> Any:
        return self._source.image(row)


def writer_of(path: Path) -> Callable[[Path, list[str], Vectors], None]:
    """Choose the function that writes paths and vectors to a file of this name.

    `.npz` holds the arrays "paths" and "features". `.csv` has the column "path" and one column per
    value. `.parquet` has the columns "path" and "features", a list per row. If a path is not UTF-8,
    the column "path" of a Parquet file holds bytes.

    Raises
    ------
    ConfigError
        The suffix is unknown, the file cannot be written there, or the package pyarrow is not
        installed.
    """
    writers = {".npz": _write_npz, ".csv": _write_csv, ".parquet": _write_parquet}
    if path.suffix not in writers:
        raise ConfigError(f"{shown(path)}: give a file name that ends in {', '.join(writers)}")
    check_place(path)
    if path.suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise ConfigError(
                f"{shown(path)}: Parquet files need pyarrow; install it (pip install pyarrow), or "
                "write a .npz file"
            ) from error
    return writers[path.suffix]


def _write_npz(path: Path, names: list[str], vectors: Vectors) -> None:
    with replacing(path) as file:
        np.savez(file, paths=np.array(names), features=vectors)


def _write_csv(path: Path, names: list[str], vectors: Vectors) -> None:
    columns = ["path", *(f"f{column}" for column in range(vectors.shape[1]))]
    rows = zip(names, vectors, strict=True)
    write_csv(path, columns, ([name, *row.tolist()] for name, row in rows))


def _write_parquet(path: Path, names: list[str], vectors: Vectors) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    # Text in Parquet is UTF-8. If a file name is not, the column holds the bytes of the names.
    utf8 = all(shown(name) == name for name in names)
    paths = names if utf8 else pa.array(map(os.fsencode, names), pa.binary())
    values = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    with replacing(path) as file:
        parquet.write_table(pa.table({"path": paths, "features": values}), file)
