"""Read the list of a split of PASCAL VOC, and find the photograph of each id."""

import os
from collections.abc import Sequence
from pathlib import Path

from ktfast.errors import DataError, reading, shown
from ktfast.images.kinds import IMAGE_SUFFIXES
from ktfast.readers import read_text

PHOTOGRAPHS = "JPEGImages"
_REMEDY = "write a text file in UTF-8 with one image id per line"
_FLAGS = ("-1", "0", "1")


def read_split(folder: Path, split: str, kind: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Read the ids of a split, and find their photographs.

    An id may hold spaces. A line may end with a flag (-1, 0 or 1), as in VOC's lists of one class,
    or with the suffix of the photograph. A photograph may have any suffix of an image.

    Parameters
    ----------
    folder : Path
        Year folder, such as `VOCdevkit/VOC2007`.
    split : str
        Name of the list, such as "trainval".
    kind : str
        Folder of the list, "Main" or "Segmentation".

    Returns
    -------
    ids : tuple of str
        Image ids in the order of the list.
    photographs : tuple of str
        Path of each photograph below the year folder. An id without a photograph has the path that
        VOC would give it.

    Raises
    ------
    DataError
        The list is missing, empty or no text, or an id can mean several photographs.
    """
    path = _list_of(folder, split, kind)
    text = read_text(path, "a list of image ids", _REMEDY)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise DataError(f"{shown(path)} lists no image; give one image id per line")
    photographs = _Photographs(folder)
    flagged = all(_without_flag(line) is not None for line in lines)
    ids = tuple(_id_of(line, photographs, flagged, path) for line in lines)
    return ids, tuple(photographs.find(key) or f"{PHOTOGRAPHS}/{key}.jpg" for key in ids)


def find_photographs(folder: Path, ids: Sequence[str]) -> tuple[str, ...]:
    """Find the photographs of ids below a year folder; see `read_split`."""
    photographs = _Photographs(folder)
    return tuple(photographs.find(key) or f"{PHOTOGRAPHS}/{key}.jpg" for key in ids)


class _Photographs:
    """The files of the folder `JPEGImages`, by id."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: dict[str, dict[str, list[str]]] = {}

    def find(self, key: str) -> str | None:
        """Path of the photograph of an id below the year folder; None if there is none."""
        below, _, name = f"{PHOTOGRAPHS}/{key}".rpartition("/")
        found = self._listed(below).get(name, [])
        if f"{name}.jpg" in found:
            return f"{below}/{name}.jpg"
        if len(found) > 1:
            raise DataError(
                f"the id {key} can mean {' or '.join(sorted(found))} in "
                f"{shown(self._folder / below)}; keep one of the files there"
            )
        return f"{below}/{found[0]}" if found else None

    def _listed(self, below: str) -> dict[str, list[str]]:
        """Names of the image files of a folder by their stems."""
        if below not in self._names:
            names: dict[str, list[str]] = {}
            path = self._folder / below
            with reading(path, "a folder of photographs", "give a PASCAL VOC year folder"):
                for name in os.listdir(path):
                    stem, suffix = os.path.splitext(name)
                    if suffix.lower() in IMAGE_SUFFIXES:
                        names.setdefault(stem, []).append(name)
            self._names[below] = names
        return self._names[below]


def _id_of(line: str, photographs: _Photographs, flagged: bool, path: Path) -> str:
    """The id that a line means: the whole line, or the line without its flag or suffix."""
    short = _without_flag(line)
    whole = photographs.find(line) is not None
    if short is not None and photographs.find(short) is not None:
        if not whole:
            return short
        if flagged:
            raise DataError(
                f"{shown(path)}: the line {line!r} can mean the photograph {line!r}, or {short!r} "
                "with a flag; remove the flags, or rename one of the photographs"
            )
    stem, suffix = os.path.splitext(line)
    if not whole and suffix.lower() in IMAGE_SUFFIXES and photographs.find(stem) is not None:
        return stem
    return line


def _without_flag(line: str) -> str | None:
    """The line without the flag at its end; None if it has no flag."""
    parts = line.rsplit(maxsplit=1)
    return parts[0] if len(parts) == 2 and parts[1] in _FLAGS else None


def _list_of(folder: Path, split: str, kind: str) -> Path:
    """Path of the list of a split, which must exist."""
    lists = folder / "ImageSets" / kind
    path = lists / f"{split}.txt"
    if not path.is_file():
        # Files such as cat_train.txt flag the images of one class; they are not lists of a split.
        known = sorted(p.stem for p in lists.glob("*.txt") if "_" not in p.stem)
        there = f"it has {', '.join(known)}" if known else f"{shown(lists)} has no list"
        raise DataError(
            f"{shown(path)} does not exist: {shown(folder)} must be a PASCAL VOC year folder with "
            f"that list of images; {there}"
        )
    return path
