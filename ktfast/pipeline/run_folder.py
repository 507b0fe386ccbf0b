"""The run folder: the only place where stages meet.

Each stage owns one folder. It writes `begun.json` (what it was asked to do, and from which
inputs) when it starts and `result.json` when it is done. The same question again is answered by
the result that is there, as long as its files are; a different question is refused, so nothing
finished is lost silently.
"""

import dataclasses
import fcntl
import json
import logging
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import tomli_w

import ktfast
from ktfast.config import Config, load_config
from ktfast.durable import read_json, sha256_json, write_bytes, write_json
from ktfast.errors import ConfigError, DataError, InputError

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """A run folder with the configuration that fills it."""

    folder: Path
    config: Config

    def stage(self, name: str) -> Path:
        """Folder of a stage."""
        return self.folder / name

    @property
    def metrics(self) -> Path:
        """The file of training metrics, one JSON object a line."""
        return self.folder / "metrics.jsonl"

    def result(self, name: str) -> dict[str, Any]:
        """Result of a finished stage; `DataError` tells which command makes it."""
        path = self.stage(name) / "result.json"
        if not path.is_file():
            raise DataError(
                f"{self.folder} has no finished stage {name!r}; run "
                f"`ktfast {name.split('/')[0]}` on it first"
            )
        result: dict[str, Any] = read_json(path)
        return result


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a stage hands back: its files' fingerprint, outputs, summary and throughput."""

    fingerprint: str
    outputs: dict[str, Any]
    summary: dict[str, Any]
    throughput: tuple[str, float] | None = None
    seconds: float | None = None  # over all interrupted calls, where the stage knows it


@contextmanager
def open_run(folder: str | os.PathLike[str], config: Config) -> Iterator[RunFolder]:
    """Open (or create) a run folder for writing; a second process is refused.

    Raises
    ------
    InputError : another process works on the folder, or it is no run folder.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / "lock", "a+")  # noqa: SIM115 - held for the whole run
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{folder} is a file; give a folder for the run") from error
    with lock:
        # The kernel drops the lock when its holder dies, so a stale one cannot exist.
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another ktfast process is working on {folder}; wait for it or give another folder"
            ) from error
        handler = logging.FileHandler(folder / "log.txt", encoding="utf-8", errors="replace")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        package_logger = logging.getLogger("ktfast")
        package_logger.addHandler(handler)
        try:
            run = RunFolder(folder, config)
            if not (folder / "config.toml").is_file():
                _record(run)
            yield run
        except BaseException as error:
            _log_end(handler, error)
            raise
        finally:
            package_logger.removeHandler(handler)
            handler.close()


def _log_end(handler: logging.Handler, error: BaseException) -> None:
    """Keep why a run ended in its log; on the terminal the command line tells it."""
    expected = isinstance(error, InputError | OSError | KeyboardInterrupt)
    trace = None if expected else (type(error), error, error.__traceback__)
    text = f"ended by {type(error).__name__}: {error}"
    record = logging.LogRecord(logger.name, logging.ERROR, __file__, 0, text, None, trace)
    handler.handle(record)


def read_run(folder: str | os.PathLike[str]) -> RunFolder:
    """Open a run folder for reading, with the configuration it was made with."""
    folder = Path(folder)
    if not (folder / "config.toml").is_file():
        raise DataError(f"{folder} is no run folder: it has no config.toml")
    return RunFolder(folder, load_config(folder / "config.toml"))


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
    """Do a stage's work once.

    Parameters
    ----------
    run : the run.
    name : the stage, and its folder below the run's.
    settings : every option that the outcome depends on (JSON values).
    inputs : fingerprints of the artifacts it reads.
    work : fills the folder; it must continue from what an interrupted call left there.
    redo : throw away what the folder holds first.
    fingerprint : of the files that are in the folder now; where it raises, or is not the result's,
        the work is done again. None: the result alone is what the stage makes.

    Returns
    -------
    the content of `result.json`.

    Raises
    ------
    ConfigError : the folder holds the (begun) answer to a different question; shows which.
    """
    folder = run.stage(name)
    if redo:
        discard(folder)
    folder.mkdir(parents=True, exist_ok=True)
    asked = json.loads(json.dumps({"settings": settings, "inputs": inputs}, default=str))
    begun_path, result_path = folder / "begun.json", folder / "result.json"
    if begun_path.is_file():
        _refuse_change(name, folder, read_json(begun_path), asked)
        if result_path.is_file():
            finished, problem = _finished(result_path, fingerprint)
            if problem is None:
                logger.info("%s: up to date", name)
                return finished
            logger.warning("%s is not as it was left and is made whole again: %s", folder, problem)
    else:
        write_json(begun_path, asked)
    logger.info("%s: started", name)
    started, clock = time.time(), time.monotonic()
    with _recorded(run, folder):
        outcome = work(folder)
    result = {
        "stage": name,
        "version": ktfast.__version__,
        "config": asked["settings"],
        "inputs": inputs,
        "fingerprint": outcome.fingerprint,
        "started": started,
        "seconds": outcome.seconds or time.monotonic() - clock,
        "throughput": outcome.throughput
        and {"unit": outcome.throughput[0], "value": outcome.throughput[1]},
        "outputs": outcome.outputs,
        "summary": outcome.summary,
    }
    write_json(result_path, json.loads(json.dumps(result, default=str)))
    logger.info("%s: done in %.1f s", name, result["seconds"])
    return result


def discard(folder: Path) -> None:
    """Remove a stage's folder; one that is removed in part is never taken for a stage's."""
    trash = folder.with_name(f".{folder.name}.discarded")
    if trash.exists():
        shutil.rmtree(trash)
    if folder.exists():
        folder.rename(trash)
        shutil.rmtree(trash)


def _finished(
    path: Path, fingerprint: Callable[[Path], str] | None
) -> tuple[dict[str, Any], str | None]:
    """A stage's result, and what is wrong with its files."""
    try:
        result: dict[str, Any] = read_json(path)
        if fingerprint is not None and fingerprint(path.parent) != result["fingerprint"]:
            return result, "its files have changed"
    except (DataError, OSError, KeyError, TypeError) as error:
        return {}, str(error)
    return result, None


@contextmanager
def _recorded(run: RunFolder, folder: Path) -> Iterator[None]:
    """Record the configuration of the work in a stage's folder.

    If its input is bad and nothing was done, it is forgotten, so that it can be put right.
    """
    config = run.folder / "config.toml"
    before = config.read_bytes() if config.is_file() else None
    _record(run)
    try:
        yield
    except InputError:
        if [path.name for path in folder.iterdir()] == ["begun.json"]:
            discard(folder)
            if before is not None:
                write_bytes(config, before)
        raise


def _record(run: RunFolder) -> None:
    """Write the configuration and environment of the newest work."""
    write_bytes(run.folder / "config.toml", to_toml(run.config).encode())
    write_json(run.folder / "environment.json", environment(run.config))


def _refuse_change(name: str, folder: Path, was: Any, now: Any) -> None:
    differences = [f"{key} was {old!r}, is now {new!r}" for key, old, new in _differences(was, now)]
    if differences:
        raise ConfigError(
            f"{folder} was begun with other options or data: {'; '.join(differences[:5])}"
            f"{'; ...' if len(differences) > 5 else ''}. Use another --run folder, or "
            f"--redo {name.split('/')[0]} to throw away what it holds"
        )


def _differences(was: Any, now: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(was, dict) and isinstance(now, dict):
        for key in sorted(was.keys() | now.keys()):
            yield from _differences(was.get(key), now.get(key), f"{prefix}{key}.")
    elif was != now:
        yield prefix.rstrip("."), was, now


def fingerprint_of(*parts: Any) -> str:
    """One fingerprint of several JSON values."""
    return sha256_json(parts)


def to_toml(config: Config) -> str:
    """The configuration as TOML; options that are not set are left out.

    Paths become absolute, so that a run can be continued from any working directory.
    """
    return tomli_w.dumps(_for_toml(config.model_dump()))


def _for_toml(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _for_toml(item) for key, item in value.items() if item is not None}
    return os.path.abspath(value) if isinstance(value, Path) else value


def environment(config: Config) -> dict[str, Any]:
    """What a result depends on besides its configuration: versions, processor, device."""
    import torch

    versions = {}
    for package in ("numpy", "scikit-learn", "torch", "torchvision", "nvidia-dali-cuda130"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    device = resolve_device(config.device)
    return {
        "ktfast": ktfast.__version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processor": _processor_name(),
        "threads": config.threads or len(os.sched_getaffinity(0)),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else "cpu",
        "packages": versions,
    }


def _processor_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor()


def resolve_device(device: str) -> str:
    """Turn 'auto' into the device that will be used; `ConfigError` if it is not there."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device {device!r} was asked for, but torch finds no CUDA device")
    index = device.partition(":")[2]
    if index and int(index) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {device!r} was asked for, but torch finds {torch.cuda.device_count()} CUDA "
            "devices, counted from cuda:0"
        )
    return device
