"""A stage is done once: its folder records what was asked of the stage, and the result.

The options and the fingerprints of the inputs are the stage's question. `begun.json` in the stage's
folder holds the question and is written when the stage starts. `result.json` is written when the
stage is done. A call with the same question returns the recorded result if the stage's files are
whole. A call with another question is refused, so that no finished work is lost silently.

`result.json` holds a manifest: size and hash of every file of the stage's folder. Both JSON files
hold a hash of themselves.
"""

import dataclasses
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ktfast
from ktfast.config import differences
from ktfast.durable import read_sealed, write_bytes, write_sealed
from ktfast.errors import ConfigError, DataError, InputError, shown
from ktfast.manifest import describe, problems, read_result, read_sealed_or
from ktfast.pipeline.run_folder import RunFolder, record_configuration, remedy_of

logger = logging.getLogger(__name__)

SHOWN_DIFFERENCES = 5


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
    settings: dict[str, Any],
    inputs: dict[str, str],
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
    settings : dict
        Every option that the outcome depends on.
    inputs : dict
        Fingerprint of each artifact that the work reads.
    work : callable
        Does the work in the stage's folder. It must continue from the files that an interrupted
        call left in the folder.
    redo : bool
        Remove the stage's folder first.
    fingerprint : callable, optional
        Computes the fingerprint of the files that lie in the stage's folder now. It decides
        whether the work is done again if an earlier version of ktfast wrote the result, which then
        has no manifest. None: such a result counts as whole.

    Returns
    -------
    result : dict
        Content of `result.json`.

    Raises
    ------
    ConfigError
        The folder was begun with other settings or inputs. The message shows the differences.
    DataError
        It is unknown with which settings and inputs the folder was begun, because the files that
        say so are damaged.
    """
    folder = run.stage(name)
    if redo:
        discard(folder)
    folder.mkdir(parents=True, exist_ok=True)
    question = _as_json({"settings": settings, "inputs": inputs})
    begun = _begun_question(name, folder)
    if begun is not None:
        _refuse_change(name, folder, begun, question)
        if (recorded := _recorded_result(folder, fingerprint)) is not None:
            logger.info("%s: up to date", name)
            return recorded
    else:
        write_sealed(folder / "begun.json", question)
    logger.info("%s: started", name)
    started, clock = time.time(), time.monotonic()
    with _recorded_configuration(run, folder):
        outcome = work(folder)
    unit_and_value = outcome.throughput
    result = {
        "stage": name,
        "version": ktfast.__version__,
        "config": question["settings"],
        "inputs": inputs,
        "fingerprint": outcome.fingerprint,
        "started": started,
        "seconds": outcome.seconds or time.monotonic() - clock,
        "throughput": unit_and_value and {"unit": unit_and_value[0], "value": unit_and_value[1]},
        "outputs": outcome.outputs,
        "summary": outcome.summary,
        "files": describe(folder, _verifies_itself),
    }
    write_sealed(folder / "result.json", _as_json(result))
    logger.info("%s: done in %.1f s", name, result["seconds"])
    return result


def stored_row(path: Path) -> dict[str, Any] | None:
    """Read figures that an interrupted or damaged stage has stored with `write_sealed`.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    row : dict or None
        The figures. None, with a warning unless the file is missing: they must be computed again.
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

    The folder is renamed first. If the removal is interrupted, the rest is not taken for the
    stage's folder.
    """
    trash = folder.with_name(f".{folder.name}.discarded")
    if trash.exists():
        shutil.rmtree(trash)
    if folder.exists():
        folder.rename(trash)
        shutil.rmtree(trash)


def _as_json(value: Any) -> Any:
    """Convert a value as writing it to JSON and reading it back would."""
    return json.loads(json.dumps(value, default=str))


def _recorded_result(
    folder: Path, fingerprint: Callable[[Path], str] | None
) -> dict[str, Any] | None:
    """Read a stage's result; None, with a warning, if its files are damaged or missing."""
    path = folder / "result.json"
    if not path.is_file():
        return None
    try:
        result = read_result(path, "the stage makes the file again")
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
    """Add a manifest to the result of an earlier version, whose files have no hash but one."""
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


def _begun_question(name: str, folder: Path) -> dict[str, Any] | None:
    """Read the question with which a stage was begun; None if the stage was not begun.

    A damaged `begun.json` is made again from a whole `result.json`, which holds the question too.
    """
    path, result_path = folder / "begun.json", folder / "result.json"
    if not path.is_file() and not result_path.is_file():
        return None
    try:
        return read_sealed_or(path, remedy_of(name), frozenset({"settings", "inputs"}))
    except DataError as damage:
        stage = name.split("/")[0]
        try:
            result = read_result(result_path, remedy_of(name))
            question = {"settings": result["config"], "inputs": result["inputs"]}
        except (DataError, KeyError) as error:
            raise DataError(
                f"{shown(path)} is damaged, so it is unknown with which options the files beside "
                f"it were made; redo the stage {stage} (--redo {stage} on the command line), which "
                "removes what the folder holds"
            ) from error
        logger.warning("%s: it is made again from result.json", str(damage).partition(";")[0])
        write_sealed(path, question)
        return question


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


def _refuse_change(name: str, folder: Path, before: Any, now: Any) -> None:
    changes = [f"{key} was {old!r}, is now {new!r}" for key, old, new in differences(before, now)]
    if changes:
        stage = name.split("/")[0]
        raise ConfigError(
            f"{folder} was begun with other options or data: "
            f"{'; '.join(changes[:SHOWN_DIFFERENCES])}"
            f"{'; ...' if len(changes) > SHOWN_DIFFERENCES else ''}. Use another run folder, or "
            f"redo the stage {stage} (--redo {stage} on the command line), which removes what the "
            "folder holds"
        )
