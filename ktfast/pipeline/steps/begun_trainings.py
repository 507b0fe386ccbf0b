"""Checkpoints of trainings inside a stage whose inputs may change while its folder stays.

The stage evaluate keeps its folder when weights or options change. A checkpoint of an interrupted
training must then not be taken for a checkpoint of another training.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ktfast.durable import read_sealed, write_sealed
from ktfast.errors import DataError

_ASKED = "asked.json"


@contextmanager
def begun_training(folder: Path, asked: dict[str, Any]) -> Iterator[Path]:
    """Give the folder of a training's checkpoints, and remove the folder after the training.

    Parameters
    ----------
    folder : Path
        Folder of the checkpoints. Checkpoints that answer another question are removed first.
    asked : dict
        Everything on which the training depends, as JSON values.

    Yields
    ------
    folder : Path
        The folder. It stays if the block raises, so that the training can continue.
    """
    if folder.exists() and _asked(folder) != asked:
        shutil.rmtree(folder)
    folder.mkdir(exist_ok=True)
    write_sealed(folder / _ASKED, asked)
    yield folder
    shutil.rmtree(folder)


def remove_trainings(folder: Path) -> None:
    """Remove the checkpoints of finished trainings that an interrupted call left in a folder."""
    for left in folder.iterdir():
        if left.is_dir() and (left / _ASKED).exists():
            shutil.rmtree(left)


def _asked(folder: Path) -> dict[str, Any] | None:
    try:
        return read_sealed(folder / _ASKED, "the training begins again")
    except DataError:
        return None
