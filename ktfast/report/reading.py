"""Read a run folder for the report: what is missing or damaged becomes a note, never a crash."""

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from ktfast.durable import read_json
from ktfast.errors import DataError

STAGES = ("prepare", "pretext", "features", "cluster", "transfer", "baseline", "evaluate", "voc")
_DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


class RunReader:
    """The artifacts of one run folder.

    Parameters
    ----------
    folder : the run folder.

    Attributes
    ----------
    notes : what could not be read, one sentence each.

    Raises
    ------
    DataError : there is no such folder, or it is not a run's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes: list[str] = []
        if not folder.is_dir():
            raise DataError(f"there is no run folder {folder}; give the folder of a run")
        known = ("config.toml", "environment.json", "metrics.jsonl")
        if not any((folder / name).is_file() for name in known) and not self.stages():
            raise DataError(
                f"{folder} is no run folder: it holds neither {', '.join(known)} nor a stage"
            )

    def stages(self) -> list[str]:
        """Names of the stages that were begun, in the order of the pipeline."""
        names = []
        for stage in STAGES:
            if stage in ("prepare", "features", "voc"):
                found = sorted((self.folder / stage).glob("*"))
                names += [f"{stage}/{path.name}" for path in found if path.is_dir()]
            elif stage == "baseline":
                names += sorted(path.name for path in self.folder.glob("baseline_*"))
            elif (self.folder / stage).is_dir():
                names.append(stage)
        return names

    def result(self, stage: str) -> dict[str, Any] | None:
        """Content of a stage's `result.json`, or None where it is not there or not readable."""
        return self._json_object(f"{stage}/result.json")

    def summary(self, stage: str) -> dict[str, Any] | None:
        """The summary in a stage's result, or None."""
        result = self.result(stage)
        summary = (result or {}).get("summary")
        return summary if isinstance(summary, dict) else None

    def environment(self) -> dict[str, Any] | None:
        """Content of `environment.json`, or None."""
        return self._json_object("environment.json")

    def config(self) -> str | None:
        """Text of `config.toml`, or None."""
        path = self.folder / "config.toml"
        try:
            return path.read_text(encoding="utf-8") if path.is_file() else None
        except (OSError, UnicodeDecodeError) as error:
            self._note("config.toml", f"cannot be read ({error})")
            return None

    def json_list(self, name: str) -> list[dict[str, Any]]:
        """Objects of a JSON list; empty where the file is missing or damaged."""
        value = self._json(name)
        if value is not None and not isinstance(value, list):
            self._note(name, "should hold a list")
            return []
        return [row for row in value or [] if isinstance(row, dict)]

    def metrics(self) -> dict[str, list[dict[str, Any]]]:
        """Rows of `metrics.jsonl` by stage, in the order of their first row."""
        path = self.folder / "metrics.jsonl"
        rows: dict[str, list[dict[str, Any]]] = {}
        damaged = 0
        if not path.is_file():
            return rows
        for line in path.read_bytes().splitlines():
            try:
                row = json.loads(line)
                rows.setdefault(str(row["stage"]), []).append(row)
            except (ValueError, KeyError, TypeError):
                damaged += 1
        if damaged:
            self._note("metrics.jsonl", f"has {damaged} damaged lines; they are left out")
        return rows

    def arrays(self, name: str, shapes: dict[str, int]) -> dict[str, NDArray[Any]] | None:
        """Arrays of an .npz file, or None where it is missing or damaged.

        Parameters
        ----------
        name : path below the run folder.
        shapes : required arrays and their number of dimensions; the first dimension of all of
            them must be equal.
        """
        path = self.folder / name
        if not path.is_file():
            return None
        try:
            # NumPy leaves a damaged file open when it gets a path, so it gets an open file.
            with open(path, "rb") as stream, NpzFile(stream, allow_pickle=False) as file:
                arrays = {key: file[key] for key in shapes}
        except _DAMAGE as error:
            self._note(name, f"is damaged ({error})")
            return None
        ndims = {key: array.ndim for key, array in arrays.items()}
        if ndims != shapes or len({len(array) for array in arrays.values()}) != 1:
            found = ", ".join(f"{key} {array.shape}" for key, array in arrays.items())
            self._note(name, f"holds arrays of unexpected shapes: {found}")
            return None
        return arrays

    def _json(self, name: str) -> Any:
        path = self.folder / name
        if not path.is_file():
            return None
        try:
            return read_json(path)
        except (DataError, OSError):
            self._note(name, "is damaged and cannot be read as JSON")
            return None

    def _json_object(self, name: str) -> dict[str, Any] | None:
        value = self._json(name)
        if value is None or isinstance(value, dict):
            return value
        self._note(name, "should hold one JSON object")
        return None

    def _note(self, name: str, problem: str) -> None:
        """Remember a problem, once."""
        note = f"{name} {problem}."
        if note not in self.notes:
            self.notes.append(note)
