"""A stage is done once: its folder records what was asked of the stage, and the result.

`begun.json` in the stage's folder holds the stage's question (`ktfast.pipeline.question`) and is
written when the stage starts. `result.json` is written when the stage is done. A call with the same
question returns the recorded result if the stage's files are whole. A call with another question is
refused, so that no finished work is lost silently.
"""

import dataclasses
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ktfast
from ktfast.durable import read_json, write_bytes, write_json
from ktfast.errors import ConfigError, DataError, InputError
from ktfast.pipeline.question import Question, as_json, refusal
from ktfast.pipeline.run_folder import RunFolder, as_result, record_configuration

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the work of a stage returns.

    Attributes
    ----------
    fingerprint : str
        Fingerprint of the files that the work wrote.
    outputs : dict
        Name of each file, relative to the stage's folder.
    summary : dict
        Figures for the report, as JSON values.
    throughput : tuple, optional
        Unit and value, such as ("images/s", 812.0).
    seconds : float, optional
        Seconds of the work, including interrupted calls. None: the seconds of this call.
    """

    fingerprint: str
    outputs: dict[str, Any]
    summary: dict[str, Any]
    throughput: tuple[str, float] | None = None
    seconds: float | None = None


def complete_stage(
    run: RunFolder,
    name: str,
    question: Question,
    work: Callable[[Path], Outcome],
    *,
    redo: bool = False,
    fingerprint: Callable[[Path], str] | None = None,
) -> dict[str, Any]:
    """Return the recorded result of a stage, or do the stage's work and record its result.

    Parameters
    ----------
    run : RunFolder
        The run.
    name : str
        Name of the stage. The stage's folder in the run folder has this name.
    question : Question
        Every option that the outcome depends on, and everything that the work reads.
    work : callable
        Does the work in the stage's folder. It must continue from the files that an interrupted
        call left in the folder.
    redo : bool
        Remove the stage's folder first.
    fingerprint : callable, optional
        Computes the fingerprint of the files that lie in the stage's folder now. The work is done
        again if this function raises an error, or if its result differs from the recorded
        fingerprint. None: the stage leaves no files but its result.

    Returns
    -------
    result : dict
        Content of `result.json`.

    Raises
    ------
    ConfigError
        The folder was begun with other settings or inputs. The message shows the differences.
    DataError
        A stage that makes an input is not finished.
    """
    for found in question.inputs.values():
        if found.stage:
            run.result(found.stage)
    folder = run.stage(name)
    if redo:
        discard(folder)
    folder.mkdir(parents=True, exist_ok=True)
    begun_path = folder / "begun.json"
    if begun_path.is_file():
        begun = read_begun(folder)
        if changes := question.changes(begun):
            raise ConfigError(refusal(folder, name.split("/")[0], changes))
        if begun.get("inputs") != question.fingerprints():
            # The record of an earlier version lacks inputs that this version compares.
            write_json(begun_path, question.record())
        if (recorded := _recorded_result(folder, fingerprint)) is not None:
            logger.info("%s: up to date", name)
            return recorded
    else:
        write_json(begun_path, question.record())
    logger.info("%s: started", name)
    started, clock = time.time(), time.monotonic()
    with _recorded_configuration(run, folder):
        outcome = work(folder)
    unit_and_value = outcome.throughput
    result = {
        "stage": name,
        "version": ktfast.__version__,
        "config": question.settings,
        "inputs": question.fingerprints(),
        "from": question.record()["from"],
        "fingerprint": outcome.fingerprint,
        "started": started,
        "seconds": outcome.seconds or time.monotonic() - clock,
        "throughput": unit_and_value and {"unit": unit_and_value[0], "value": unit_and_value[1]},
        "outputs": outcome.outputs,
        "summary": outcome.summary,
    }
    write_json(folder / "result.json", as_json(result))
    logger.info("%s: done in %.1f s", name, result["seconds"])
    return result


def discard(folder: Path) -> None:
    """Remove a stage's folder.

    The folder is renamed before its files are removed. An interruption therefore leaves no
    incomplete folder of the stage's name.
    """
    trash = folder.with_name(f".{folder.name}.discarded")
    if trash.exists():
        shutil.rmtree(trash)
    if folder.exists():
        folder.rename(trash)
        shutil.rmtree(trash)


def read_begun(folder: Path) -> dict[str, Any]:
    """Read the question with which a stage was begun; empty if the stage was not begun."""
    path = folder / "begun.json"
    if not path.is_file():
        return {}
    begun = read_json(path)
    if not isinstance(begun, dict):
        raise DataError(f"{path} is damaged: it should hold one JSON object; redo the stage")
    return begun


def _recorded_result(
    folder: Path, fingerprint: Callable[[Path], str] | None
) -> dict[str, Any] | None:
    """Read a stage's result; None, with a warning, if its files are damaged or missing."""
    path = folder / "result.json"
    if not path.is_file():
        return None
    try:
        result: dict[str, Any] = read_json(path, as_result)
        if fingerprint is None or fingerprint(folder) == result["fingerprint"]:
            return result
        problem = "its files have changed"
    except (DataError, OSError, KeyError, TypeError) as error:
        problem = str(error)
    logger.warning("%s is damaged (%s) and is repaired", folder, problem)
    return None


@contextmanager
def _recorded_configuration(run: RunFolder, folder: Path) -> Iterator[None]:
    """Write the run's configuration into the run folder before the block does a stage's work.

    If the work refuses its input before it has written anything, the stage's folder is removed and
    the former `config.toml` is restored, so that the user can correct the input.
    """
    config = run.folder / "config.toml"
    before = config.read_bytes() if config.is_file() else None
    record_configuration(run)
    try:
        yield
    except InputError:
        if [path.name for path in folder.iterdir()] == ["begun.json"]:
            discard(folder)
            if before is not None:
                write_bytes(config, before)
        raise
