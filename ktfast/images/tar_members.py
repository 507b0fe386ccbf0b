"""The images of tar files with their byte offsets, and a file that keeps these lists.

Listing a tar file reads the header of every file in it. For object storage, that can transfer most
of the tar file. A run therefore keeps the lists, and lists only tar files that are new or changed.
"""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt

from ktfast.durable import write_bytes
from ktfast.errors import DataError, reading
from ktfast.images.kinds import (
    HEAD_BYTES,
    NOT_AN_IMAGE,
    claims_to_be_an_image,
    never_an_image,
    why_unread_bytes,
)
from ktfast.images.shard_table import PathList
from ktfast.remote import LocalFile, StoredFile

CLASS_SUFFIX = "cls"
_CLASS_BYTES = 4096
_REMEDY = "write the tar file again"
_SEAL = 64


@dataclass(frozen=True)
class TarMembers:
    """What a tar file holds.

    Attributes
    ----------
    state : tuple of int
        Size of the tar file, and its time, see `time_of`.
    names : PathList
        Name of each image in the tar file.
    labels : PathList
        Name of the class of each image; empty for an image without a class.
    places : array, int64 [2, n]
        First byte and size of each image.
    skipped : list of list of str
        Name of each image that is not used, and the reason.
    others : list of str
        Names of the files that are no images.
    """

    state: tuple[int, int]
    names: PathList
    labels: PathList
    places: npt.NDArray[np.int64]
    skipped: list[list[str]]
    others: list[str]


def members_of(tar: StoredFile) -> TarMembers:
    """List the images of a tar file; read its headers and the files of classes only.

    Raises
    ------
    DataError
        The tar file cannot be read or is damaged. The message names it.
    """
    state = tar.size, time_of(tar)
    images: list[tarfile.TarInfo] = []
    skipped: list[list[str]] = []
    others: list[str] = []
    classes: dict[str, str] = {}
    with reading(tar.name, "a tar file", _REMEDY), tar.open() as stream:
        for member in _headers(tar, stream):
            key, suffix = _sample(member.name)
            if suffix == CLASS_SUFFIX:
                stream.seek(member.offset_data)
                content = stream.read(min(member.size, _CLASS_BYTES))
                classes[key] = os.fsdecode(content.replace(b"\0", b"")).strip()
            elif never_an_image(member.name):
                others.append(member.name)
            elif (reason := _why_left_out(member, stream)) is None:
                images.append(member)
            elif reason == NOT_AN_IMAGE:
                others.append(member.name)
            else:
                skipped.append([member.name, reason])
    keys = [_sample(member.name)[0] for member in images]
    labels = [classes.get(key, key.partition("/")[0] if "/" in key else "") for key in keys]
    places = np.array([(m.offset_data, m.size) for m in images], np.int64).reshape(-1, 2).T
    names = PathList.of(member.name for member in images)
    return TarMembers(state, names, PathList.of(labels), places, skipped, others)


def time_of(file: StoredFile) -> int:
    """Modification time of a file; for object storage a number that its content changes."""
    if isinstance(file, LocalFile):
        with reading(file.name, "a file of images"):
            return os.stat(file.name).st_mtime_ns
    return int(hashlib.sha256(file.identity.encode()).hexdigest()[:15], 16)


def save_members(path: Path, members: Mapping[str, TarMembers]) -> None:
    """Write the lists of tar files, completely or not at all.

    Parameters
    ----------
    path : Path
        The file.
    members : mapping
        The lists by the name of the tar file.
    """
    lists = list(members.values())
    head = [
        [name, each.state, len(each.names), each.skipped, each.others]
        for name, each in members.items()
    ]
    buffer = io.BytesIO()
    np.savez(
        buffer,
        head=np.frombuffer(json.dumps(head).encode(), np.uint8),
        names=PathList.joined([each.names for each in lists]).names,
        labels=PathList.joined([each.labels for each in lists]).names,
        places=np.concatenate([np.empty((2, 0), np.int64), *(m.places for m in lists)], axis=1),
    )
    content = buffer.getvalue()
    write_bytes(path, hashlib.sha256(content).hexdigest().encode() + content)


def load_members(path: Path) -> dict[str, TarMembers]:
    """Read what `save_members` wrote; nothing if the file is missing or damaged."""
    try:
        with reading(path, "a list of tar files"):
            content = path.read_bytes()
            if hashlib.sha256(content[_SEAL:]).hexdigest().encode() != content[:_SEAL]:
                return {}
            with np.load(io.BytesIO(content[_SEAL:]), allow_pickle=False) as arrays:
                head = json.loads(arrays["head"].tobytes())
                return _separated(head, *(arrays[name] for name in ("names", "labels", "places")))
    except DataError:
        return {}


def _separated(head: Any, names: Any, labels: Any, places: Any) -> dict[str, TarMembers]:
    """Cut joined lists into those of each tar file."""
    found, first = {}, 0
    all_names, all_labels = PathList(names), PathList(labels)
    for name, state, n, skipped, others in head:
        rows = slice(first, first + n)
        found[str(name)] = TarMembers(
            (int(state[0]), int(state[1])),
            all_names.part(rows),
            all_labels.part(rows),
            places[:, rows],
            skipped,
            others,
        )
        first += n
    return found


def _headers(tar: StoredFile, stream: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """The files of a tar file. A damaged header is an error: `tarfile` would end the list there."""
    with (
        reading(tar.name, "a tar file", _REMEDY),
        tarfile.open(fileobj=stream, mode="r:") as archive,
    ):
        for member in archive:
            if member.offset_data + (member.size if member.isreg() else 0) > tar.size:
                raise ValueError(f"it ends before the end of its file {member.name}")
            cast(Any, archive).members = []  # else the list of all files would grow
            if not member.isdir():
                yield member
        stream.seek(archive.offset)
        block = stream.read(tarfile.BLOCKSIZE)
        if block.strip(b"\0"):
            raise ValueError(f"its header at byte {archive.offset:,} is damaged")


def _why_left_out(member: tarfile.TarInfo, stream: BinaryIO) -> str | None:
    """Why a file of a tar file is not used; None for an image that ktfast decodes."""
    claims = claims_to_be_an_image(member.name)
    if not member.isreg() or member.issparse():
        return "not a regular file" if claims else NOT_AN_IMAGE
    if not member.size:
        return "the file is empty" if claims else NOT_AN_IMAGE

    def head() -> bytes:
        stream.seek(member.offset_data)
        return stream.read(min(HEAD_BYTES, member.size))

    return why_unread_bytes(head, member.name)


def _sample(name: str) -> tuple[str, str]:
    """The key of the sample that a file belongs to, and the rest of the name, in lower case."""
    folder = name[: name.rfind("/") + 1]
    key, _, suffix = name[len(folder) :].partition(".")
    return folder.removeprefix("./") + key, suffix.lower()
