"""The list of images in a folder: paths, labels and stable sample ids.

Every later stage names an image by its sample id, a hash of the path below the root. If files are
added to the folder, the sample ids and the random choices of the other images stay the same.
"""

import functools
import hashlib
import logging
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from ktfast.errors import DataError, shown
from ktfast.images.arrays import ARRAY_SUFFIX, is_array
from ktfast.images.file_records import FileHashes, FileRecord, read_recorded
from ktfast.images.kinds import (
    IMAGE_SUFFIXES,
    NOT_AN_IMAGE,
    OtherFiles,
    claims_to_be_an_image,
    never_an_image,
    why_unread,
)
from ktfast.sample_ids import sample_ids_of

logger = logging.getLogger(__name__)

FileId = tuple[int, int]  # device and inode number
UNREADABLE = "cannot be read"
"""Start of the reason of a skipped image if the operating system did not let ktfast read it."""


@dataclass(frozen=True)
class SkippedImage:
    """An image that is not used.

    Attributes
    ----------
    path : str
        Path below the root.
    reason : str
        Why the image is not used.
    """

    path: str
    reason: str


@dataclass(frozen=True, eq=False)
class ImageIndex:
    """The images below one folder, in the order of their paths.

    Attributes
    ----------
    root : Path
        Folder that the paths are relative to.
    paths : tuple of str
        Relative path of each image with forward slashes; sorted if `scan` made the index.
    labels : array, int64 [n]
        Index into `classes`; -1 means that the image has no class.
    classes : tuple of str
        Names of the classes; sorted if `scan` made the index.
    sample_ids : array, int64 [n]
        Hash of each relative path, 63 bits. All sample ids are different.
    sizes : array, int64 [n]
        Number of bytes of each file when the folder was listed.
    mtimes_ns : array, int64 [n]
        Time of the last modification of each file, nanoseconds since 1970.
    skipped : tuple of SkippedImage
        Images that cannot be used: empty files, broken links, special files, and formats that
        ktfast does not read.
    others : OtherFiles
        Files that are no images, and hidden files.
    file_ids : array, uint64 [n, 2]
        Device and inode number of each file when the folder was listed, which are equal for all
        paths and links to one file. [0, 2] if no file was looked at.
    """

    root: Path
    paths: tuple[str, ...]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    sample_ids: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    mtimes_ns: npt.NDArray[np.int64]
    skipped: tuple[SkippedImage, ...] = ()
    others: OtherFiles = field(default_factory=OtherFiles)
    file_ids: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty((0, 2), np.uint64))

    @classmethod
    def scan(
        cls,
        folder: str | os.PathLike[str],
        *,
        labels: Literal["folder", "none"] = "folder",
        arrays: bool = False,
    ) -> "ImageIndex":
        """List the images below `folder`, at any depth.

        A file without an image suffix is an image if its first bytes are those of an image.
        Hidden files and folders, and files that are no images, are only listed in `others`. Every
        folder is listed once, also if symbolic links form a loop. A folder that lies below `folder`
        is listed under its own path, not under the path of a link.

        Parameters
        ----------
        folder : str or Path
            Root of the images.
        labels : {"folder", "none"}, default "folder"
            "folder": the class of an image is the first folder below the root; an image in the root
            itself has no class. "none": no image has a class.
        arrays : bool, default False
            List the `.npy` files instead of the images. Images then count as other files.

        Returns
        -------
        ImageIndex
            The images, sorted by path.

        Raises
        ------
        DataError
            The folder is missing, cannot be read or holds no image.
        """
        root = Path(folder)
        if not root.is_dir():
            raise DataError(f"image folder {root} does not exist or is not a folder")
        found, skipped, others = _list_images(root, arrays=arrays)
        if not found:
            reasons = (
                f" ({len(skipped)} unusable files, first {skipped[0].path}: {skipped[0].reason})"
                if skipped
                else ""
            )
            if others.n:
                reasons += f" ({others.n} files are no images: {others.describe()})"
            if arrays:
                raise DataError(f"{root} holds no array{reasons}; expected .npy files")
            suffixes = " ".join(IMAGE_SUFFIXES)
            hint = (
                "; for arrays, set transfer.channels to their number of channels"
                if others.by_suffix[ARRAY_SUFFIX]
                else ""
            )
            raise DataError(
                f"{root} holds no image file{reasons}; expected one of {suffixes}{hint}"
            )
        found.sort()
        paths = tuple(path for path, *_ in found)
        names: list[str] = []
        if labels == "folder":
            names = [path.partition("/")[0] if "/" in path else "" for path in paths]
        classes = tuple(sorted(set(names) - {""}))
        number = {name: label for label, name in enumerate(classes)}
        return cls(
            root=root,
            paths=paths,
            labels=np.array(
                [number.get(name, -1) for name in names] or [-1] * len(paths), np.int64
            ),
            classes=classes,
            sample_ids=sample_ids_of(paths),
            sizes=np.array([size for _, size, *_ in found], np.int64),
            mtimes_ns=np.array([mtime for _, _, mtime, *_ in found], np.int64),
            skipped=tuple(sorted(skipped, key=lambda image: image.path)),
            others=others,
            file_ids=np.array([file_id for *_, file_id in found], np.uint64),
        )

    @classmethod
    def of(
        cls,
        root: str | os.PathLike[str],
        paths: Sequence[str],
        *,
        labels: npt.ArrayLike | None = None,
        classes: Sequence[str] = (),
    ) -> "ImageIndex":
        """Index a list of files in the given order.

        Parameters
        ----------
        root : str or Path
            Folder that the paths are relative to.
        paths : sequence of str
            Relative path of each image, each listed once.
        labels : array, integers [n], optional
            Index into `classes`. None: no image has a class.
        classes : sequence of str, optional
            Names of the classes.

        Returns
        -------
        ImageIndex
            The images.

        Raises
        ------
        DataError
            A file does not exist, or is listed twice, and the message names the file; or the
            number of labels differs from the number of paths.
        """
        root = Path(root)
        try:
            found = [os.stat(root / path) for path in paths]
        except OSError as error:
            raise DataError(f"listed image {error.filename}: {error.strerror}") from error
        if labels is not None and len(np.asarray(labels)) != len(paths):
            raise DataError(
                f"{len(np.asarray(labels))} labels were given for {len(paths)} images of {root}; "
                "give one label per image, in the order of the paths"
            )
        return cls(
            root=root,
            paths=tuple(paths),
            labels=np.full(len(paths), -1, np.int64)
            if labels is None
            else np.array(labels, np.int64),
            classes=tuple(classes),
            sample_ids=sample_ids_of(paths),
            sizes=np.array([status.st_size for status in found], np.int64),
            mtimes_ns=np.array([status.st_mtime_ns for status in found], np.int64),
            file_ids=np.array([(s.st_dev, s.st_ino) for s in found], np.uint64).reshape(-1, 2),
        )

    @property
    def n(self) -> int:
        """Number of images."""
        return len(self.paths)

    def name(self, row: int) -> str:
        """Full path of an image, for messages."""
        return str(self.root / self.paths[row])

    def read(self, row: int) -> bytes:
        """The bytes of an image's file.

        Raises
        ------
        DataError
            The file does not exist any more or cannot be read.
        """
        try:
            with open(self.name(row), "rb") as file:
                return file.read()
        except OSError as error:
            raise DataError(f"{self.name(row)} cannot be read: {error.strerror}") from error

    def read_recorded(self, row: int) -> tuple[bytes, FileRecord]:
        """The bytes of an image's file, and the file's record.

        Raises
        ------
        OSError
            The file cannot be read.
        """
        return read_recorded(self.name(row))

    def hashes(self, store: Path | None = None) -> FileHashes:
        """Hashes of the images' files, kept in a store; see `FileHashes`."""
        return FileHashes(store)

    @property
    def shard_sizes(self) -> npt.NDArray[np.int64]:
        """Number of images of each tar file, int64; one number for separate files."""
        return np.array([self.n], np.int64)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the path and size of every file.

        Equal fingerprints do not mean equal content: see `ktfast.images.file_records`.
        """
        digest = hashlib.sha256()
        for path, size in zip(self.paths, self.sizes.tolist(), strict=True):
            digest.update(os.fsencode(path) + b"\0%d\n" % size)
        return digest.hexdigest()

    def take(
        self, rows: npt.NDArray[np.int64], skipped: Iterable[SkippedImage] = ()
    ) -> "ImageIndex":
        """The index of some rows; `skipped` is added to the skipped images."""
        return ImageIndex(
            root=self.root,
            paths=tuple(self.paths[row] for row in rows.tolist()),
            labels=self.labels[rows],
            classes=self.classes,
            sample_ids=self.sample_ids[rows],
            sizes=self.sizes[rows],
            mtimes_ns=self.mtimes_ns[rows],
            skipped=tuple(sorted((*self.skipped, *skipped), key=lambda image: image.path)),
            others=self.others,
            file_ids=self.file_ids[rows] if len(self.file_ids) else self.file_ids,
        )


def by_number(name: str) -> tuple[int, str]:
    """The order of classes that a file names: numbers by their value, then other names."""
    return (int(name), name) if name.isdecimal() and name.isascii() else (1 << 64, name)


def _list_images(
    root: Path, *, arrays: bool
) -> tuple[list[tuple[str, int, int, FileId]], list[SkippedImage], OtherFiles]:
    """Path, size, time and `FileId` of every image, unsorted, and the files left out."""
    found: list[tuple[str, int, int, FileId]] = []
    skipped: list[SkippedImage] = []
    others = OtherFiles()
    entered: set[tuple[int, int]] = set()
    folders, links = [""], list[str]()
    while folders or links:
        # Real folders come before links, so a link never decides the class of an image.
        folder = folders.pop() if folders else links.pop()
        try:
            status = os.stat(root / folder)
            if (status.st_dev, status.st_ino) in entered:
                continue
            entered.add((status.st_dev, status.st_ino))
            with os.scandir(root / folder) as entries:
                in_order = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"cannot list image folder {root / folder}: {error}") from error
        nested: list[str] = []
        for entry in in_order:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name[0] == ".":
                others.add(path, "hidden folder" if entry.is_dir() else "hidden file")
            elif entry.is_dir():
                (links if entry.is_symlink() else nested).append(path)
            elif not is_array(entry.name) if arrays else never_an_image(entry.name):
                others.add(path, NOT_AN_IMAGE)
            elif isinstance(state := _file_state(entry), str):
                if arrays or claims_to_be_an_image(entry.name):
                    skipped.append(SkippedImage(path, state))
                else:
                    others.add(path, state)
            elif arrays or (reason := _why_left_out(entry)) is None:
                found.append((path, *state))
            elif reason == NOT_AN_IMAGE:
                others.add(path, reason)
            else:
                skipped.append(SkippedImage(path, reason))
        folders.extend(reversed(nested))
        links.sort(reverse=True)
    if others.n:
        logger.info("%s: %d files are no images: %s", shown(root), others.n, others.describe())
    return found, skipped, others


def _why_left_out(entry: os.DirEntry[str]) -> str | None:
    """Why a file is not used; None for an image that ktfast decodes."""
    try:
        return why_unread(entry.path, entry.name)
    except OSError as error:
        return f"{UNREADABLE} ({error.strerror})"


def _file_state(entry: os.DirEntry[str]) -> tuple[int, int, FileId] | str:
    """Size in bytes, modification time and `FileId`, or why the entry cannot be an image."""
    try:
        status = entry.stat()
    except OSError as error:
        return f"{UNREADABLE} ({error.strerror})"
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    if not status.st_size:
        return "the file is empty"
    return status.st_size, status.st_mtime_ns, (status.st_dev, status.st_ino)
