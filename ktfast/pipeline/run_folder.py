"""The run folder: stages exchange data only through the files in it.

A run folder holds `config.toml` and `environment.json` of the stage that worked last, `log.txt`,
`metrics.jsonl`, and one folder per stage (`ktfast.pipeline.stage_result`).
"""

import dataclasses
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import tomli_w
from filelock import FileLock, Timeout

from ktfast.config import Config, load_config, spell_path
from ktfast.durable import remove_leftovers, write_bytes, write_sealed
from ktfast.errors import DataError, InputError, ShownFormatter, shown
from ktfast.images.index import ImageIndex
from ktfast.manifest import read_result, verified
from ktfast.pipeline.environment import describe_environment
from ktfast.pipeline.job_metrics import METRICS, append_all_rows
from ktfast.pipeline.places import check_places
from ktfast.pipeline.team import ONE, Team
from ktfast.remote import url_of

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """A run folder and the configuration of the work in it.

    Attributes
    ----------
    folder : Path
        The run folder.
    config : Config
        Every option.
    trust_source : bool
        Whether the code that `features.source` and `pretext.task` name may be imported and called.
        False: the names come from a file that somebody else may have written.
    shared : Path or None
        Folder of results that several runs share (`ktfast.pipeline.shared_results`), or None.
    team : Team
        The processes that share the work on the run.
    listings : dict of str to ImageIndex
        The files of the image folders by the name of the image set, once they were listed.
    warned : set of str
        Warnings that the checks before the stages have given. The checks run twice.
    redone : set of str
        Stages, and parts of stages, that are computed anew. Shared results do not stand for them.
    own_metrics : Path or None
        File of the metrics of a job (`ktfast.pipeline.jobs`). None: `metrics.jsonl`.
    """

    folder: Path
    config: Config
    trust_source: bool = True
    shared: Path | None = None
    team: Team = dataclasses.field(default=ONE, compare=False, repr=False)
    listings: dict[str, ImageIndex] = dataclasses.field(
        default_factory=dict, compare=False, repr=False
    )
    warned: set[str] = dataclasses.field(default_factory=set, compare=False, repr=False)
    redone: set[str] = dataclasses.field(default_factory=set, compare=False, repr=False)
    own_metrics: Path | None = dataclasses.field(default=None, compare=False, repr=False)

    def stage(self, name: str) -> Path:
        """Return the folder of a stage, such as "cluster" or "prepare/pretext"."""
        return self.folder / name

    @property
    def metrics(self) -> Path:
        """The file of training metrics, one JSON object per line."""
        return self.own_metrics or self.folder / METRICS

    def result(self, name: str) -> dict[str, Any]:
        """Read the result of a finished stage.

        Parameters
        ----------
        name : str
            Name of the stage.

        Returns
        -------
        result : dict
            Content of the stage's `result.json`.

        Raises
        ------
        DataError
            The stage is not finished. The message gives the command that runs the stage.
        """
        path = self.stage(name) / "result.json"
        if not path.is_file():
            raise DataError(
                f"{self.folder} has no finished stage {name!r}; run `{command_of(name)}` on it "
                "first"
            )
        return as_result(read_result(path, remedy_of(name)), path)

    def artifact(self, name: str, file: str) -> Path:
        """Give the path of a file of a finished stage after comparing the file with its hash.

        The hash of a file is computed once per process.

        Parameters
        ----------
        name : str
            Name of the stage.
        file : str
            Path of the file below the stage's folder.

        Returns
        -------
        path : Path
            The file.

        Raises
        ------
        DataError
            The stage is not finished, or the file is missing or damaged. The message gives the
            command that makes the file again.
        """
        return verified(self.stage(name), file, self.result(name).get("files"), remedy_of(name))


def command_of(stage: str) -> str:
    """Give the command that does a stage: the stage evaluate has parts with other names."""
    is_part = stage.startswith("baseline_") or stage == "unlabelled"
    return f"ktfast {'evaluate' if is_part else stage.split('/')[0]}"


def remedy_of(stage: str) -> str:
    """Say how damaged files of a stage are made again, as an order for an error message."""
    return f"run `{command_of(stage)}` again, which makes damaged files again"


def as_result(value: dict[str, Any], path: Path) -> dict[str, Any]:
    """Check that a JSON object is the result of a stage; raise `DataError` if it is not."""
    for name, kind in (("fingerprint", str), ("outputs", dict), ("summary", dict)):
        if not isinstance(value.get(name), kind):
            raise DataError(
                f"{shown(path)} is not the result of a stage: its entry {name!r} is "
                f"{value.get(name)!r}, not a {kind.__name__}; redo the stage"
            )
    return value


@contextmanager
def open_run(
    folder: str | os.PathLike[str],
    config: Config,
    *,
    trust_source: bool = True,
    shared: Path | None = None,
    team: Team = ONE,
) -> Iterator[RunFolder]:
    """Open a run folder for writing, and create it if it does not exist.

    The block holds the lock of the folder. The folder's `log.txt` receives the log of the block.

    Parameters
    ----------
    folder : path
        The run folder.
    config : Config
        Every option.
    trust_source : bool
        Whether the code that `features.source` and `pretext.task` name may be called.
    shared : Path, optional
        Folder of results that several runs share.
    team : Team, optional
        The processes that share the work. This process must be rank 0.

    Yields
    ------
    run : RunFolder
        The open run folder.

    Raises
    ------
    InputError
        Another process works on the folder, `folder` or `shared` is a file, or would mix with a
        folder of photographs or with each other.
    """
    folder = Path(folder)
    check_places(folder, config, shared)
    for place, what in ((shared, "the shared results"), (folder, "the run")):
        if place is not None:
            try:
                place.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError) as error:
                raise InputError(f"{shown(place)} is a file; give a folder for {what}") from error
    with _locked(folder), _logged(folder):
        remove_leftovers(folder, deep=True)
        append_all_rows(folder)
        yield RunFolder(folder, config, trust_source, shared, team)


def read_run(folder: str | os.PathLike[str], *, trust_source: bool = False) -> RunFolder:
    """Open a run folder for reading, with its recorded configuration.

    Parameters
    ----------
    folder : path
        The run folder.
    trust_source : bool
        Whether the code that `features.source` and `pretext.task` of the recorded configuration
        name may be called.

    Returns
    -------
    run : RunFolder
        The run folder.

    Raises
    ------
    DataError
        The folder is no run folder.
    """
    folder = Path(folder)
    if not (folder / "config.toml").is_file():
        raise DataError(f"{folder} is no run folder: it has no config.toml")
    return RunFolder(folder, load_config(folder / "config.toml"), trust_source)


def record_options(run: RunFolder) -> None:
    """Write the configuration into the run folder, unless the file holds it already."""
    path, text = run.folder / "config.toml", to_toml(run.config).encode()
    if not path.is_file() or path.read_bytes() != text:
        write_bytes(path, text)


def record_configuration(run: RunFolder) -> None:
    """Write the configuration and the environment of the present work into the run folder."""
    record_options(run)
    write_sealed(run.folder / "environment.json", describe_environment(run.config))


def to_toml(config: Config) -> str:
    """Convert a configuration to TOML.

    Options that are not set are left out. Paths become absolute, so that a run can be continued
    from any working directory. TOML is UTF-8. A path that is not UTF-8 becomes a `file:` URI, which
    `load_config` reads.
    """
    return tomli_w.dumps(for_toml(config.model_dump()))


def for_toml(value: Any) -> Any:
    """Convert nested options to what `to_toml` writes."""
    if isinstance(value, dict):
        return {key: for_toml(item) for key, item in value.items() if item is not None}
    if not isinstance(value, Path):
        return value
    return url_of(value) or spell_path(Path(os.path.abspath(value)))


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder; refuse at once if another process holds it.

    The operating system releases the lock of a process that dies.
    """
    try:
        with FileLock(folder / "lock", timeout=0):
            yield
    except Timeout as error:
        raise InputError(
            f"another ktfast process is working on {folder}; wait for it or give another folder"
        ) from error


class _LogFile(logging.FileHandler):
    """A log file that tells of a failing disk once; `logging` would print a traceback per line.

    The run goes on, because the log is no result. If the disk is full, the next write of a result
    fails for the same reason, and the run ends with that error.
    """

    failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        """Tell of the first failure of the disk; print any other error as `logging` does."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self.failed:
            self.failed = True
            print(
                f"ktfast: {shown(self.baseFilename)} cannot be written: {error.strerror}. "
                "The run goes on, and lines of its log may be lost",
                file=sys.stderr,
            )

    def close(self) -> None:
        """Close the file, whose last lines a full disk may refuse too."""
        with suppress(OSError):
            super().close()


@contextmanager
def _logged(folder: Path) -> Iterator[None]:
    """Append ktfast's log of the block, and an error that ends the block, to `log.txt`."""
    handler = _LogFile(folder / "log.txt", encoding="utf-8", errors="replace")
    handler.setFormatter(ShownFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    package_logger = logging.getLogger("ktfast")
    package_logger.addHandler(handler)
    try:
        yield
    except BaseException as error:
        _log_error(handler, error)
        raise
    finally:
        package_logger.removeHandler(handler)
        handler.close()


def _log_error(handler: logging.Handler, error: BaseException) -> None:
    """Log the error that ended a run in `log.txt` only: the command line prints it itself."""
    expected = isinstance(error, InputError | OSError | KeyboardInterrupt)
    trace = None if expected else (type(error), error, error.__traceback__)
    text = f"ended by {type(error).__name__}: {error}"
    record = logging.LogRecord(logger.name, logging.ERROR, __file__, 0, text, None, trace)
    handler.handle(record)
