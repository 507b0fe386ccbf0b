"""Images in tar files in the layout of WebDataset, here or in object storage.

Files of a tar file whose names differ only after the first dot belong to one sample: `0042.jpg` is
an image, and `0042.cls` holds the name or number of its class. The list of images holds the place
of every image in its tar file, so that a reader fetches the bytes of one image in any order.
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from ktfast.errors import DataError, reading, shown
from ktfast.images.file_records import ContentHashes, FileHashes, FileRecord
from ktfast.images.index import ImageIndex, SkippedImage, by_number
from ktfast.images.kinds import (
    NOT_AN_IMAGE,
    OtherFiles,
    claims_to_be_an_image,
    never_an_image,
)
from ktfast.images.tables import SUFFIXES as TABLES
from ktfast.images.tables import TableIndex
from ktfast.images.tar_members import TarMembers, load_members, members_of, save_members, time_of
from ktfast.native.threads import usable_cores
from ktfast.remote import StoredFile, is_pattern, local_path, stored_files, url_of
from ktfast.sample_ids import sample_ids_of

SUFFIXES = (".tar",)


def holds_tars(place: str | os.PathLike[str]) -> bool:
    """Whether a place stands for tar files: a tar file, a pattern, a URL, or a folder of tar files.

    A folder that holds other folders, or files that may be images, is a folder of images.
    """
    if url_of(place) is not None:
        return not holds_tables(place)
    path = local_path(place)
    if not path.is_dir():
        is_other = not path.exists() and is_pattern(path) and path.suffix not in TABLES
        return path.suffix == ".tar" or is_other
    return _holds_only(path, SUFFIXES)


def holds_tables(place: str | os.PathLike[str]) -> bool:
    """Whether a place stands for Parquet files: a file, a pattern, a URL, or a folder of them."""
    url = url_of(place)
    if url is not None:
        return url.endswith(TABLES)
    path = local_path(place)
    if not path.is_dir():
        return path.suffix in TABLES and (path.exists() or is_pattern(path))
    return _holds_only(path, TABLES)


def _holds_only(folder: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether a folder holds files with these suffixes, no folders, and no images beside them."""
    with reading(folder, "a folder of images"), os.scandir(folder) as entries:
        seen = [entry for entry in entries if not entry.name.startswith(".")]
    packed = [entry for entry in seen if entry.name.endswith(suffixes) and entry.is_file()]
    others = (entry for entry in seen if entry not in packed)
    return bool(packed) and all(each.is_file() and never_an_image(each.name) for each in others)


def images_exist(place: str | os.PathLike[str]) -> bool:
    """Whether a folder of images exists, or the tar or Parquet files that a place stands for."""
    suffixes = TABLES if holds_tables(place) else SUFFIXES if holds_tars(place) else ()
    if not suffixes:
        return Path(place).exists()
    try:
        return bool(stored_files(place, suffixes))
    except DataError:
        return False


def scan_images(
    place: str | os.PathLike[str],
    *,
    labels: Literal["folder", "none"] = "folder",
    arrays: bool = False,
    store: Path | None = None,
) -> ImageIndex:
    """List the images of a folder, or those of tar or Parquet files.

    Parameters
    ----------
    place : path
        A folder of images, see `ImageIndex.scan`. Or tar files: a file, a folder of tar files, a
        pattern such as `shards/{0000..0010}.tar` or `shards/*.tar`, or a URL. Or Parquet files, in
        the same ways; see `ktfast.images.tables`.
    labels : {"folder", "none"}, default "folder"
        "folder": the class of an image is its folder, its file `.cls` in a tar file, or the column
        `label` of a Parquet file. "none": no image has a class.
    arrays : bool, default False
        List the `.npy` files of a folder, or the arrays of Parquet files, instead of the images.
    store : Path, optional
        File that keeps the lists of tar files, so that an unchanged tar file is listed once only.

    Returns
    -------
    index : ImageIndex
        The images.

    Raises
    ------
    DataError
        There are no images, a file is damaged, or `arrays` are asked for from tar files.
    """
    if holds_tables(place):
        return TableIndex.scan(place, labels=labels, arrays=arrays)
    if not holds_tars(place):
        return ImageIndex.scan(place, labels=labels, arrays=arrays)
    return TarIndex.scan(place, labels=labels, arrays=arrays, store=store)


@dataclass(frozen=True, eq=False)
class TarIndex(ImageIndex):
    """The images of tar files, in the order of the files and of the images in them.

    The path of an image is the path of its tar file below the common folder of the tar files,
    followed by the image's name in the tar file.

    Attributes
    ----------
    tars : tuple of StoredFile
        The tar files.
    tar_of : array, int64 [n]
        Number of the tar file of each image.
    offsets : array, int64 [n]
        First byte of each image in its tar file.
    """

    tars: tuple[StoredFile, ...] = ()
    tar_of: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    offsets: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    @classmethod
    def scan(
        cls,
        folder: str | os.PathLike[str],
        *,
        labels: Literal["folder", "none"] = "folder",
        arrays: bool = False,
        store: Path | None = None,
    ) -> "TarIndex":
        """List the images of tar files; see `scan_images`."""
        if arrays:
            raise DataError(
                f"{shown(folder)} are tar files, but arrays are read from folders and Parquet "
                "files only; unpack the tar files into a folder"
            )
        tars = stored_files(folder, SUFFIXES)
        _check_names(folder, tars)
        lists = _listed(tars, store)
        prefixes = _below_common_folder([tar.name for tar in tars])
        pairs = list(zip(prefixes, lists, strict=True))
        paths = tuple(f"{prefix}/{name}" for prefix, one in pairs for name in one.names)
        skipped = [
            SkippedImage(f"{prefix}/{name}", reason)
            for prefix, one in pairs
            for name, reason in one.skipped
        ]
        if not paths:
            first = f"; the first is {skipped[0].path}: {skipped[0].reason}" if skipped else ""
            raise DataError(
                f"the {len(tars)} tar files of {shown(folder)} hold no image that ktfast reads "
                f"({len(skipped)} images were left out{first}); give tar files of images"
            )
        others = OtherFiles()
        for prefix, one in pairs:
            for name in one.others:
                others.add(f"{prefix}/{name}", NOT_AN_IMAGE)
        given = [label for one in lists for label in one.labels]
        if labels == "none":
            given = [""] * len(paths)
        classes = tuple(sorted(set(given) - {""}, key=by_number))
        number = {name: label for label, name in enumerate(classes)}
        sizes = [len(one.names) for one in lists]
        places = np.concatenate([one.places for one in lists], axis=1)
        return cls(
            root=Path(folder),
            paths=paths,
            labels=np.array(
                [number.get(name, -1) for name in given or [""] * len(paths)], np.int64
            ),
            classes=classes,
            sample_ids=sample_ids_of(paths),
            sizes=places[1],
            mtimes_ns=np.repeat(np.array([one.state[1] for one in lists], np.int64), sizes),
            skipped=tuple(sorted(skipped, key=lambda image: image.path)),
            others=others,
            tars=tuple(tars),
            tar_of=np.repeat(np.arange(len(tars)), sizes),
            offsets=places[0],
        )

    def name(self, row: int) -> str:
        """Path or URL of the tar file, and name of the image in it."""
        return f"{self.tars[self.tar_of[row]].name}: {self.paths[row].rpartition('.tar/')[2]}"

    def read(self, row: int) -> bytes:
        """The bytes of an image.

        Raises
        ------
        DataError
            The tar file cannot be read. The message names it.
        """
        tar = self.tars[int(self.tar_of[row])]
        return tar.read(int(self.offsets[row]), int(self.sizes[row]))

    def read_recorded(self, row: int) -> tuple[bytes, FileRecord]:
        """The bytes of an image, and their record."""
        content = self.read(row)
        sha256 = hashlib.sha256(content).hexdigest()
        return content, FileRecord(len(content), int(self.mtimes_ns[row]), sha256)

    def hashes(self, store: Path | None = None) -> FileHashes:
        """Hashes of images by path; nothing is kept in the store."""
        rows = {os.fspath(self.root / path): row for row, path in enumerate(self.paths)}
        return ContentHashes(lambda path: self.read(rows[path]))

    @property
    def shard_sizes(self) -> npt.NDArray[np.int64]:
        """Number of images of each tar file, int64."""
        return np.bincount(self.tar_of, minlength=len(self.tars)).astype(np.int64)

    def take(self, rows: npt.NDArray[np.int64], skipped: Iterable[SkippedImage] = ()) -> "TarIndex":
        """The index of some rows; `skipped` is added to the skipped images."""
        plain = super().take(rows, skipped)
        return TarIndex(
            **vars(plain),
            tars=self.tars,
            tar_of=self.tar_of[rows],
            offsets=self.offsets[rows],
        )


def _check_names(place: str | os.PathLike[str], tars: Sequence[StoredFile]) -> None:
    """Refuse a pattern of images, which is no pattern of tar files."""
    images = [tar.name for tar in tars if claims_to_be_an_image(tar.name)]
    if images:
        raise DataError(
            f"{shown(place)} is read as a pattern of tar files, but {shown(images[0])} is an "
            "image; give the folder of the images, or tar files"
        )


def _listed(tars: list[StoredFile], store: Path | None) -> list[TarMembers]:
    """List tar files; take the lists of unchanged tar files from the store."""
    known = load_members(store) if store is not None else {}

    def members(tar: StoredFile) -> TarMembers:
        kept = known.get(tar.name)
        if kept is not None and kept.state == (tar.size, time_of(tar)):
            return kept
        return members_of(tar)

    with ThreadPoolExecutor(usable_cores()) as pool:
        lists = list(pool.map(members, tars))
    named = {tar.name: one for tar, one in zip(tars, lists, strict=True)}
    is_new = any(known.get(name) is not one for name, one in named.items())
    if store is not None and store.parent.is_dir() and is_new:
        save_members(store, {**known, **named})
    return lists


def _below_common_folder(names: list[str]) -> list[str]:
    """The names of files below the folder that all of them share."""
    folders = [_folder_of(name).split("/") for name in names]
    first, last = min(folders), max(folders)
    pairs = enumerate(zip(first, last, strict=False))
    shared = next((place for place, (one, other) in pairs if one != other), len(first) - 1)
    start = sum(len(part) + 1 for part in first[:shared])
    return [name[start:] for name in names]


def _folder_of(name: str) -> str:
    return name[: name.rfind("/") + 1]
