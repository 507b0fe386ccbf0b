"""A stage is done once: its folder records what was asked of the stage, and the result.

`begun.json` in the stage's folder holds the stage's question (`ktfast.pipeline.question`) and is
written when the stage starts. `result.json` is written when the stage is done. A call with the same
question returns the recorded result if the stage's files are whole. A call with another question is
refused, so that no finished work is lost silently. If the other question only asks for other parts
(`Question.varying`), the stage keeps the parts that it has and computes what is missing.

`result.json` holds a manifest: size and hash of every file of the stage's folder. Both JSON files
hold a hash of themselves.
"""

import dataclasses
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import ktfast
from ktfast.durable import read_sealed, write_bytes, write_sealed
from ktfast.errors import ConfigError, DataError, InputError, shown
from ktfast.manifest import describe, problems, read_result, read_sealed_or
from ktfast.pipeline.question import Question, as_json, refusal
from ktfast.pipeline.run_folder import RunFolder, as_result, record_configuration, remedy_of
from ktfast.pipeline.shared_curves import keep_curves, take_curves
from ktfast.pipeline.shared_results import SHARED_STAGES, SharedEntry, shared_entry

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
    shared_by: object = None,
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
        Computes the fingerprint of the files that lie in the stage's folder now. It is called only
        if an earlier version of ktfast wrote the result, because such a result has no manifest. If
        the fingerprint differs from the recorded one, the work is done again. None: such a result
        counts as whole.
    shared_by : object
        JSON value of what two runs must also have in common to share the result, beside the
        question.

    Returns
    -------
    result : dict
        Content of `result.json`.

    Raises
    ------
    ConfigError
        The folder was begun with other settings or inputs. The message shows the differences.
    DataError
        A stage that makes an input is not finished. Or both files that record the folder's question
        are damaged.
    """
    for found in question.inputs.values():
        if found.stage:
            run.result(found.stage)
    folder = run.stage(name)
    if redo:
        discard(folder)
        run.redone.add(name)
    folder.mkdir(parents=True, exist_ok=True)
    if begun := read_begun(run, name):
        if changes := question.changes(begun):
            if not question.only_varies(begun):
                raise ConfigError(refusal(folder, name.split("/")[0], changes))
            logger.info("%s: computes what is missing, because %s", name, "; ".join(changes))
            (folder / "result.json").unlink(missing_ok=True)
            write_sealed(folder / "begun.json", question.record())
        elif begun.get("inputs") != question.fingerprints():
            # The record of an earlier version lacks inputs that this version compares.
            write_sealed(folder / "begun.json", question.record())
        if (recorded := _recorded_result(folder, fingerprint)) is not None:
            logger.info("%s: up to date", name)
            return recorded
    else:
        write_sealed(folder / "begun.json", question.record())
    with shared_entry_of(run, name, question, shared_by) as entry:
        if entry is not None and (made := entry.take(folder)) is not None:
            record_configuration(run)
            take_curves(run, name, folder)
            record = question.record()
            result = {**made, "stage": name, **{key: record[key] for key in ("named", "from")}}
            write_sealed(folder / "result.json", result)
            logger.info("%s: taken from %s", name, shown(entry.place))
            return result
        result = _do(run, name, question, work, folder)
        if entry is not None:
            entry.keep(folder, result)
        return result


def _do(
    run: RunFolder, name: str, question: Question, work: Callable[[Path], Outcome], folder: Path
) -> dict[str, Any]:
    """Do a stage's work and record its result."""
    logger.info("%s: started", name)
    started, clock = time.time(), time.monotonic()
    with _recorded_configuration(run, folder):
        outcome = work(folder)
    if run.shared is not None and name in SHARED_STAGES:
        keep_curves(run, name, folder)
    unit_and_value = outcome.throughput
    result = {
        "stage": name,
        "version": ktfast.__version__,
        "config": question.settings,
        "inputs": question.fingerprints(),
        **{key: question.record()[key] for key in ("named", "from")},
        "fingerprint": outcome.fingerprint,
        "started": started,
        "seconds": outcome.seconds or time.monotonic() - clock,
        "throughput": unit_and_value and {"unit": unit_and_value[0], "value": unit_and_value[1]},
        "outputs": outcome.outputs,
        "summary": outcome.summary,
        "files": describe(folder, _verifies_itself),
    }
    recorded: dict[str, Any] = as_json(result)
    write_sealed(folder / "result.json", recorded)
    logger.info("%s: done in %.1f s", name, result["seconds"])
    return recorded


def shared_entry_of(
    run: RunFolder, name: str, question: Question, shared_by: object
) -> AbstractContextManager[SharedEntry | None]:
    """Hold the place of a stage's result among the results that runs share.

    Parameters
    ----------
    run : RunFolder
        The run.
    name : str
        Name of the stage.
    question : Question
        The question of the stage.
    shared_by : object
        What two runs must also have in common.

    Returns
    -------
    entry : context manager
        Gives the entry, or None if runs do not share results of the stage.
    """
    kind = name.partition("/")[0]
    if kind not in SHARED_STAGES:
        return nullcontext()
    asked = [question.settings, question.fingerprints(), shared_by]
    return shared_entry(run, kind, as_json(asked), anew=name in run.redone)


def stored_row(path: Path) -> dict[str, Any] | None:
    """Read figures that an interrupted or damaged stage has stored with `write_sealed`.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    row : dict or None
        The figures. None: the file is missing or damaged, and the figures must be computed again. A
        damaged file is logged as a warning.
    """
    if not path.is_file():
        return None
    try:
        return read_sealed(path, "its figures are computed again")
    except DataError as error:
        logger.warning("%s", error)
        return None


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


def read_begun(run: RunFolder, name: str) -> dict[str, Any]:
    """Read the question with which a stage was begun.

    A damaged `begun.json` is made again from a whole `result.json`, which holds the question too.

    Parameters
    ----------
    run : RunFolder
        The run.
    name : str
        Name of the stage, such as "prepare/pretext".

    Returns
    -------
    begun : dict
        What `Question.record` gave; empty if the stage was not begun.

    Raises
    ------
    DataError
        The files that hold the question are damaged. The message names the stage to redo.
    """
    folder = run.stage(name)
    path, result_path = folder / "begun.json", folder / "result.json"
    if not path.is_file() and not result_path.is_file():
        return {}
    try:
        return read_sealed_or(path, remedy_of(name), frozenset({"settings", "inputs"}))
    except DataError as damage:
        stage = name.split("/")[0]
        try:
            result = read_result(result_path, remedy_of(name))
            begun = {"settings": result["config"], "inputs": result["inputs"]}
        except (DataError, KeyError) as error:
            raise DataError(
                f"{shown(path)} is damaged, so it is unknown with which options the files beside "
                f"it were made; redo the stage {stage} (--redo {stage} on the command line), which "
                "removes what the folder holds"
            ) from error
        begun |= {key: result[key] for key in ("named", "from") if key in result}
        logger.warning("%s: it is made again from result.json", str(damage).partition(";")[0])
        write_sealed(path, begun)
        return begun


def _recorded_result(
    folder: Path, fingerprint: Callable[[Path], str] | None
) -> dict[str, Any] | None:
    """Read a stage's result; None, with a warning, if its files are damaged or missing."""
    path = folder / "result.json"
    if not path.is_file():
        return None
    try:
        result = as_result(read_result(path, "the stage makes the file again"), path)
        if "files" not in result:
            result = _with_manifest(folder, result, fingerprint)
        damaged = problems((folder / file, record) for file, record in result["files"].items())
        if not damaged:
            return result
        problem = "; ".join(f"{shown(file.name)} {text}" for file, text in damaged)
    except (DataError, OSError, KeyError, TypeError) as error:
        problem = str(error)
    logger.warning("%s is damaged (%s) and is repaired", shown(folder), problem)
    return None


def _with_manifest(
    folder: Path, result: dict[str, Any], fingerprint: Callable[[Path], str] | None
) -> dict[str, Any]:
    """Add a manifest to a result of an earlier version of ktfast.

    The earlier version stored one fingerprint of the stage, and no hash of each file.
    """
    if fingerprint is not None and fingerprint(folder) != result["fingerprint"]:
        raise DataError("its files have changed")
    result = {**result, "files": describe(folder, _verifies_itself)}
    write_sealed(folder / "result.json", result)
    return result


def _verifies_itself(file: str) -> bool:
    """Say whether the manifest leaves a file out.

    Checkpoints, `begun.json` and `result.json` hold their own hash. A damaged checkpoint of a
    finished training is no damage of the stage. Hidden files and TensorBoard's are never read.
    """
    name = file.rpartition("/")[2]
    return (
        file in ("begun.json", "result.json")
        or name.startswith((".", "checkpoint-"))
        or file.startswith("tensorboard/")
    )


@contextmanager
def _recorded_configuration(run: RunFolder, folder: Path) -> Iterator[None]:
    """Write the run's configuration into the run folder before the block does a stage's work.

    If the work refuses its input before it has written anything, the stage's folder is removed and
    the former `config.toml` is restored or removed, so that the user can correct the input.
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
            else:
                config.unlink()
        raise
