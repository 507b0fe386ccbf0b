"""Share the results of stages between runs, in a folder where runs find the results of other runs.

An entry of the folder belongs to one question (`ktfast.pipeline.question`): the options and inputs
on which a result depends. A run with the same question verifies the hashes of the entry's files.
The run then takes the files as hard links, or as copies where links are impossible. ktfast replaces
files and never changes them in place, so runs with linked files do not disturb each other.

Each entry has a lock, so several runs can use the folder at the same time. The first run computes
the result. The other runs wait, and then take the result.
"""

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

import ktfast
from ktfast.durable import replacing, sha256_json, sync_folder, write_sealed
from ktfast.errors import DataError, shown
from ktfast.manifest import problems, read_result
from ktfast.pipeline.run_folder import RunFolder

logger = logging.getLogger(__name__)

SHARED_STAGES = ("prepare", "pretext", "features", "cluster", "baseline_pretext", "baseline_labels")
"""The stages whose results runs share."""
PROBES = "probe"
"""The kind of the probes of a network, which runs share as well."""
_RESULT = "result.json"


@dataclass(frozen=True)
class SharedEntry:
    """The place of one result in the shared folder, while a run holds the lock of the entry.

    Attributes
    ----------
    place : Path
        Folder of the entry. It exists as soon as a run has stored the result.
    anew : bool
        The user redoes the result: the run takes nothing, and its own result replaces the entry.
    """

    place: Path
    anew: bool = False

    def take(self, folder: Path) -> dict[str, Any] | None:
        """Put the files of the entry into a folder.

        Parameters
        ----------
        folder : Path
            Receives the files. Files of the same names are replaced.

        Returns
        -------
        result : dict or None
            The result that `keep` stored. None if there is no entry, if its files are damaged, or
            if the result is redone.
        """
        path = self.place / _RESULT
        if self.anew or not path.is_file():
            return None
        try:
            result = read_result(path, "it is made again")
            files: Mapping[str, Mapping[str, Any]] = result["files"]
            damaged = problems((self.place / name, record) for name, record in files.items())
        except (DataError, KeyError) as error:
            logger.warning("%s", error)
            return None
        if damaged:
            file, text = damaged[0]
            logger.warning("%s %s, and the result is made again", shown(file), text)
            return None
        for name in files:
            _link(self.place / name, folder / name)
        sync_folder(folder)
        return result

    def keep(self, folder: Path, result: dict[str, Any]) -> None:
        """Store a result for other runs.

        Parameters
        ----------
        folder : Path
            Folder with the files that `result["files"]` lists.
        result : dict
            JSON values.
        """
        new = self.place.with_name(f".{self.place.name}.new")
        for old in (new, self.place):
            if old.exists():
                shutil.rmtree(old)
        new.mkdir(parents=True)
        for name in result["files"]:
            _link(folder / name, new / name)
        write_sealed(new / _RESULT, result)
        new.rename(self.place)
        sync_folder(self.place.parent)


@contextmanager
def shared_entry(
    run: RunFolder, kind: str, question: Any, *, anew: bool = False
) -> Iterator[SharedEntry | None]:
    """Hold the lock of the entry that belongs to a question.

    Parameters
    ----------
    run : RunFolder
        The run.
    kind : str
        What the result is, such as "cluster".
    question : Any
        JSON value of everything on which the result depends.
    anew : bool
        Whether the user redoes the result, so that nothing is taken.

    Yields
    ------
    entry : SharedEntry or None
        None if the run shares no results.
    """
    if run.shared is None:
        yield None
        return
    place = run.shared / kind / sha256_json([ktfast.__version__, run.config.device, question])[:32]
    place.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place.with_name(f"{place.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("%s: waiting for another run that makes the same result", kind)
        lock.acquire()
    try:
        yield SharedEntry(place, anew)
    finally:
        lock.release()


def forget(kind: Path) -> None:
    """Remove the entries of one kind, each while no run holds its lock.

    Parameters
    ----------
    kind : Path
        The folder of the kind in the folder of shared results; it need not exist.
    """
    for place in [path for path in kind.glob("*") if path.is_dir()]:
        with FileLock(place.with_name(f"{place.name}.lock")):
            shutil.rmtree(place)


def _link(source: Path, target: Path) -> None:
    """Make a hard link to a file, or a copy where links are impossible."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        with open(source, "rb") as read, replacing(target) as file:
            shutil.copyfileobj(read, file, 1 << 20)
