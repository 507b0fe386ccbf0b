"""Checkpoints of a fit: a resumed fit ends with the bits of an uninterrupted fit.

A checkpoint holds the centres and the history of the last complete iteration, the state of the
random generator, and the best earlier run. It holds no labels: they are computed again from the
centres. A checkpoint is therefore small, and another number of processes can continue the fit.
"""

import hashlib
import json
import logging
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ktfast.durable import check_place, replacing
from ktfast.errors import DataError, InputError, reading, shown
from ktfast.kmeans.array_types import Float64
from ktfast.kmeans.lloyd import LloydResult
from ktfast.readers import read_npz

_logger = logging.getLogger(__name__)

_WHAT = "a checkpoint of K-means"
_REMEDY = "remove the file, so that the fit starts anew"
_COLUMNS = ("inertia", "moved", "shift", "relocated", "skipped", "seconds")
_COUNTS = ("moved", "relocated")
_HASH = "sha256"


class Stopped(NamedTuple):
    """State of one run of a fit after its last complete iteration.

    Attributes
    ----------
    centers : array, float64 [k, d]
        Centres of the last iteration.
    history : list of dict
        As `KMeans.history_`.
    inertia : float
        Inertia of the centres.
    """

    centers: Float64
    history: list[dict[str, float]]
    inertia: float

    @classmethod
    def of(cls, result: LloydResult, centers: Float64) -> "Stopped":
        """Copy the run from a result, because the history of the result may grow later."""
        return cls(centers, list(result.history), result.inertia)


class State(NamedTuple):
    """What a checkpoint holds.

    Attributes
    ----------
    run : int
        Number of the present run, from 0 to ``n_init - 1``.
    random : dict
        State of the random generator after the initial centres of this run were drawn.
    present : Stopped
        The present run.
    best : Stopped or None
        The best of the earlier runs. None in the first run.
    """

    run: int
    random: dict[str, Any]
    present: Stopped
    best: Stopped | None


class Checkpoints:
    """Writes the checkpoints of one fit to a file, and reads the file of an interrupted fit.

    Parameters
    ----------
    path : path
        The file.
    seconds : float
        Least time between two checkpoints.
    question : dict
        JSON values on which the result depends. `read` refuses a file with other values.
    """

    def __init__(
        self, path: str | os.PathLike[str], seconds: float, question: dict[str, Any]
    ) -> None:
        check_place(path)
        self._path = Path(path)
        self._seconds = seconds
        self._question = question
        self._last = time.monotonic()
        self._unsaved: State | None = None

    def read(self) -> State | None:
        """Read the checkpoint; None if there is none.

        Raises
        ------
        DataError
            The file is damaged, or is no checkpoint of K-means.
        InputError
            The checkpoint belongs to another fit. The message names the first difference.
        """
        if not self._path.exists():
            return None
        arrays, facts = _content(self._path)
        _refuse_other_fit(self._path, facts["question"], self._question)
        with reading(self._path, _WHAT, _REMEDY):
            best = None if facts["best"] is None else _stopped(arrays, "best", facts["best"])
            random = facts["random"] | {"keys": arrays["keys"]}
            present = _stopped(arrays, "present", facts["present"])
            return State(facts["run"], random, present, best)

    def observe(self, state: State) -> None:
        """Write a state if `seconds` have passed since the last checkpoint; else remember it."""
        self._unsaved = state
        if time.monotonic() - self._last >= self._seconds:
            self.flush()

    def flush(self) -> None:
        """Write the last state, unless it was already written."""
        state, self._unsaved = self._unsaved, None
        if state is None:
            return
        arrays: dict[str, Any] = {
            "keys": state.random["keys"],
            **_arrays("present", state.present),
            **({} if state.best is None else _arrays("best", state.best)),
        }
        facts = {
            "question": self._question,
            "run": state.run,
            "random": {name: value for name, value in state.random.items() if name != "keys"},
            "present": state.present.inertia,
            "best": None if state.best is None else state.best.inertia,
        }
        arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
        with replacing(self._path) as file:
            np.savez(file, **{**arrays, _HASH: np.frombuffer(_digest(arrays), np.uint8)})
        self._last = time.monotonic()


def discard_damaged(path: Path) -> None:
    """Remove the checkpoint if it is damaged, and warn; the fit then starts anew."""
    if not path.exists():
        return
    try:
        _content(path)
    except DataError as error:
        _logger.warning("%s", str(error).replace(_REMEDY, "K-means starts anew"))
        path.unlink()


def _content(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the arrays and the JSON values of a checkpoint, and verify its hash."""
    arrays = read_npz(path, remedy=_REMEDY)
    with reading(path, _WHAT, _REMEDY):
        digest = arrays.pop(_HASH).tobytes()
        if digest != _digest(arrays):
            raise DataError(f"{shown(path)} is damaged; {_REMEDY}")
        return arrays, json.loads(arrays["facts"].tobytes())


def random_state_of(generator: np.random.RandomState) -> dict[str, Any]:
    """The state of a generator: its keys as an array, and JSON values."""
    name, keys, position, has_gauss, gauss = generator.get_state(legacy=True)
    facts = {"name": name, "position": position, "has_gauss": has_gauss, "gauss": gauss}
    return facts | {"keys": np.asarray(keys)}


def restore_random_state(generator: np.random.RandomState, state: dict[str, Any]) -> None:
    """Give a generator a state that `random_state_of` returned."""
    values = (state[name] for name in ("name", "keys", "position", "has_gauss", "gauss"))
    generator.set_state(tuple(values))


def _arrays(name: str, run: Stopped) -> dict[str, Any]:
    table = np.array([[row[column] for column in _COLUMNS] for row in run.history], np.float64)
    return {f"{name}_centers": run.centers, f"{name}_history": table}


def _stopped(arrays: dict[str, Any], name: str, inertia: float) -> Stopped:
    history = [
        {
            column: int(value) if column in _COUNTS else value
            for column, value in zip(_COLUMNS, row, strict=True)
        }
        for row in arrays[f"{name}_history"].tolist()
    ]
    return Stopped(arrays[f"{name}_centers"], history, inertia)


def _digest(arrays: dict[str, Any]) -> bytes:
    """SHA-256 of arrays by name."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape};".encode())
        digest.update(array.tobytes())
    return digest.digest()


def _refuse_other_fit(path: Path, stored: dict[str, Any], own: dict[str, Any]) -> None:
    for name in own:
        if stored.get(name) != own[name]:
            raise InputError(
                f"{shown(path)} is the checkpoint of another fit: its {name} is "
                f"{stored.get(name)!r}, but this fit has {own[name]!r}; give another path as "
                "`checkpoint`, or remove the file"
            )
