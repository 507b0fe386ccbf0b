"""Match rows of features with images by path; without paths, by an unambiguous order."""

import logging
import os
from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ktfast.errors import DataError, shown
from ktfast.features.store import Array, FeatureStore, row_numbers
from ktfast.images.source import ImageSource

logger = logging.getLogger(__name__)

EXAMPLES = 3
"""Number of paths that a message names."""
TORCHVISION_SUFFIXES = (
    ".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp",
)  # fmt: skip
"""Suffixes of the files that torchvision's ImageFolder lists."""
REMEDIES = (
    "give the path of every row: an .npz file with the arrays features and paths, a .csv or .txt "
    "list of the paths beside the .npy file, or a Parquet file with the columns path and features"
)


def match_rows(store: FeatureStore, images: ImageSource, folder: Path) -> FeatureStore:
    """Give the features of the images, in the order of the images.

    Rows with paths are matched by path. The rows of a feature folder that ktfast wrote are matched
    by sample id, which is a hash of the path. The rows of a bare array have no paths. They are
    taken in the order of the images if all common ways to list the folder give that order.

    Parameters
    ----------
    store : FeatureStore
        Features that ktfast or another program wrote.
    images : ImageSource
        The images.
    folder : Path
        Folder that the paths of the images are relative to.

    Returns
    -------
    store : FeatureStore
        One row per image, in the order of the images.

    Raises
    ------
    DataError
        Images have no row or several rows, or the order of a bare array is ambiguous. The message
        names paths.
    """
    if store.paths is not None:
        rows = _rows_of_images(store, images, folder)
    elif np.array_equal(store.sample_ids, np.arange(store.n)):
        _check_order(store, images, folder)
        rows = np.arange(store.n)
    elif np.array_equal(store.sample_ids, images.sample_ids):
        return store
    else:
        rows = _rows_of_ids(store, images)
    return SelectedRows(store, rows, images.sample_ids)


def align(values: Array, store: FeatureStore, images: ImageSource) -> Array:
    """Bring values from the order of a feature store into the order of the images.

    Parameters
    ----------
    values : array [store.n]
        One value per row of the feature store.
    store : FeatureStore
        The feature store. Its sample ids name the images.
    images : ImageSource
        The images.

    Returns
    -------
    values : array [images.n]
        One value per image.

    Raises
    ------
    DataError
        The feature store lacks images. The message names some of them.
    """
    if np.array_equal(store.sample_ids, images.sample_ids):
        return values
    return values[_rows_of_ids(store, images)]


class SelectedRows(FeatureStore):
    """Some rows of a feature store, in any order.

    Parameters
    ----------
    store : FeatureStore
        The store that the rows come from.
    rows : array, int64 [m]
        Row numbers in the store.
    sample_ids : array, int64 [m]
        Sample id of the image of each row.
    """

    def __init__(
        self,
        store: FeatureStore,
        rows: npt.NDArray[np.int64],
        sample_ids: npt.NDArray[np.int64],
    ) -> None:
        super().__init__(store.path, store.shards, sample_ids, store.meta, None)
        self._store = store
        self._rows = rows

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self._rows)

    def read(self, rows: slice | npt.ArrayLike) -> Array:
        """Copy rows into memory; see `FeatureStore.read`."""
        return self._store.read(self._rows[row_numbers(rows, self.n)])


def _rows_of_ids(store: FeatureStore, images: ImageSource) -> npt.NDArray[np.int64]:
    """Row of each image in a store whose sample ids name the images, int64 [images.n]."""
    order = np.argsort(store.sample_ids)
    place = np.searchsorted(store.sample_ids[order], images.sample_ids)
    found = order[np.minimum(place, store.n - 1)]
    missing = np.flatnonzero(store.sample_ids[found] != images.sample_ids)
    if len(missing):
        raise DataError(
            f"the features in {shown(store.path)} ({store.n} rows) lack {len(missing)} of the "
            f"{images.n} images: {_examples([images.paths[row] for row in missing[:4]])}; extract "
            "the features of these images"
        )
    if store.n > images.n:
        logger.info("%s: %d rows belong to no image", shown(store.path), store.n - images.n)
    return found


def _rows_of_images(
    store: FeatureStore, images: ImageSource, folder: Path
) -> npt.NDArray[np.int64]:
    """Row of each image in a store with paths, int64 [images.n]."""
    wanted = {path: row for row, path in enumerate(images.paths)}
    names = _relative(store.paths or (), wanted, folder)
    image_of = np.fromiter((wanted.get(name, -1) for name in names), np.int64, len(names))
    found = np.flatnonzero(image_of >= 0)
    twice = np.flatnonzero(np.bincount(image_of[found], minlength=images.n) > 1)
    if len(twice):
        raise DataError(
            f"{shown(store.path)} names {len(twice)} paths more than once: "
            f"{_examples([images.paths[row] for row in twice[: EXAMPLES + 1]])}; give one row per "
            "image"
        )
    rows = np.full(images.n, -1, np.int64)
    rows[image_of[found]] = found
    missing = np.flatnonzero(rows < 0)
    extra = store.n - len(found)
    some = [names[row] for row in np.flatnonzero(image_of < 0)[: EXAMPLES + 1]]
    if len(missing):
        lacking = [images.paths[row] for row in missing[: EXAMPLES + 1]]
        unknown = f", and names {extra} other paths: {_examples(some)}" if extra else ""
        raise DataError(
            f"{shown(store.path)} ({store.n} rows) lacks {len(missing)} of the {images.n} images "
            f"of {shown(folder)}: {_examples(lacking)}{unknown}; give one row for every image, "
            "with the image's path below that folder"
        )
    if extra:
        logger.info(
            "%s: %d of %d rows belong to no image of %s and are ignored: %s",
            *(shown(store.path), extra, store.n, shown(folder), _examples(some)),
        )
    return rows


def _relative(paths: Sequence[str], wanted: Collection[str], folder: Path) -> list[str]:
    """Spell paths relative to the folder of the images.

    Relative paths are read as relative to that folder. If no path then names an image, they are
    read as relative to the working directory, as torchvision's ImageFolder gives them.
    """
    roots = {path.rstrip("/") + "/" for path in (os.path.abspath(folder), os.path.realpath(folder))}

    def below(path: str) -> str:
        if path.startswith(".") or "//" in path or "/." in path:  # else it is normal already
            path = os.path.normpath(path)
        for root in roots:
            if path.startswith(root):
                return path[len(root) :]
        return path

    names = [below(path) for path in paths]
    if not any(name in wanted for name in names):
        from_here = [below(os.path.abspath(path)) for path in paths]
        if any(name in wanted for name in from_here):
            return from_here
    return names


def _check_order(store: FeatureStore, images: ImageSource, folder: Path) -> None:
    """Refuse a bare array if its rows may belong to the images in several orders."""
    if store.n != images.n:
        skipped = ""
        if images.skipped:
            first = images.skipped[0]
            skipped = (
                f"; {len(images.skipped)} more images were skipped, the first is "
                f"{shown(first.path)}: {first.reason}"
            )
        raise DataError(
            f"{shown(store.path)} has {store.n} rows for the {images.n} images of "
            f"{shown(folder)}{skipped}; {REMEDIES}"
        )
    for who, order in _other_orders(images):
        row = next(k for k in range(images.n) if order[k] != images.paths[k])
        raise DataError(
            f"the rows of {shown(store.path)} have no paths, and the order of the images is "
            f"ambiguous: row {row} is {shown(images.paths[row])} in the order of the whole "
            f"paths, and {shown(order[row])} in the order of {who}; {REMEDIES}"
        )


def _other_orders(images: ImageSource) -> Iterator[tuple[str, list[str]]]:
    """Yield each common way to list the images that gives another order: its name and its list."""
    keys = {"torchvision's ImageFolder": _folder_key, "sorted pathlib paths": _parts}
    for who, key in keys.items():
        if any(first > second for first, second in pairwise(map(key, images.paths))):
            yield who, sorted(images.paths, key=key)
    # ImageFolder also lists files that ktfast skipped, and leaves out some suffixes.
    listed = [
        path
        for path in (*images.paths, *(image.path for image in images.skipped))
        if "/" in path and path.lower().endswith(TORCHVISION_SUFFIXES)
    ]
    if len(listed) == images.n and set(listed) != set(images.paths):
        yield "torchvision's ImageFolder", sorted(listed, key=_folder_key)


def _parts(path: str) -> list[str]:
    """The order of pathlib: by the names of the folders and of the file."""
    return path.split("/")


def _folder_key(path: str) -> list[str]:
    """The order of torchvision's ImageFolder: by class, then folder, then file name."""
    folder, _, name = path.rpartition("/")
    return [path.partition("/")[0] if folder else "", folder, name]


def _examples(paths: Sequence[str]) -> str:
    """The first paths, and dots if there are more."""
    dots = ", ..." if len(paths) > EXAMPLES else ""
    return ", ".join(shown(path) for path in paths[:EXAMPLES]) + dots
