"""Read a run folder for the report.

A missing artifact is None or empty. A damaged artifact becomes a note on the page, not an error.
"""

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ktfast.config import Config, load_config
from ktfast.durable import parse_row, read_json, read_sealed
from ktfast.errors import DataError, InputError
from ktfast.evaluation.json_values import Json, mapping, number
from ktfast.evaluation.results import EvaluationSummary
from ktfast.evaluation.unlabelled_result import UnlabelledMeasures
from ktfast.evaluation.voc_results import VocSummary
from ktfast.images.by_cluster import FOLDER, linked_folders
from ktfast.manifest import read_result, read_sealed_or, verified
from ktfast.readers import read_bytes, read_csv, read_npz
from ktfast.report.staleness import stale_stages
from ktfast.report.summaries import (
    ClusterSummary,
    MetricsRow,
    PreparedImages,
    StageResult,
    TrainingResult,
)

STAGES = (
    *("prepare", "pretext", "features", "cluster", "transfer", "baseline", "unlabelled"),
    *("evaluate", "voc"),
)
# The keys that `environment.json` of an earlier version has, without a hash.
ENVIRONMENT = frozenset(
    {"ktfast", "python", "platform", "processor", "threads", "device", "packages"}
)


class RunReader:
    """The artifacts of one run folder.

    Parameters
    ----------
    folder : Path
        The run folder.

    Attributes
    ----------
    notes : list of str
        One sentence for each artifact that could not be read.

    Raises
    ------
    DataError
        The folder does not exist or is no run folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes: list[str] = []
        self._results: dict[str, StageResult | None] = {}
        if not folder.is_dir():
            raise DataError(f"there is no run folder {folder}; give the folder of a run")
        known = ("config.toml", "environment.json", "metrics.jsonl")
        if not any((folder / name).is_file() for name in known) and not self.stages():
            raise DataError(
                f"{folder} is no run folder: it holds neither {', '.join(known)} nor a stage; give "
                "the folder that was given as --run"
            )

    def stages(self) -> list[str]:
        """Names of the stages that have a folder, in the order of the pipeline."""
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

    def result(self, stage: str) -> StageResult | None:
        """The result of a stage, or None if the stage has no readable `result.json`."""
        if stage not in self._results:
            value = self._recorded(stage)
            self._results[stage] = None if value is None else StageResult.from_json(value)
        return self._results[stage]

    def stale(self) -> dict[str, str]:
        """The stale stages, with the reason; see `ktfast.report.staleness`."""
        stages = self.stages()
        unfinished = {s for s in stages if not (self.folder / s / "result.json").is_file()}
        return stale_stages({stage: self.result(stage) for stage in stages}, unfinished)

    def evaluation(self) -> EvaluationSummary | None:
        """Summary of the stage evaluate, or None."""
        summary = self._summary("evaluate")
        return None if summary is None else EvaluationSummary.from_json(summary)

    def unlabelled(self) -> UnlabelledMeasures | None:
        """Measures that need no labels, or None."""
        return UnlabelledMeasures.from_json(self._summary("unlabelled"))

    def voc(self, protocol: str) -> VocSummary | None:
        """Summary of a protocol of the stage voc, or None."""
        summary = self._summary(f"voc/{protocol}")
        return None if summary is None else VocSummary.from_json(summary)

    def training(self, stage: str) -> TrainingResult | None:
        """Summary of a stage that trains a network (pretext, transfer, a baseline), or None."""
        summary = self._summary(stage)
        return None if summary is None else TrainingResult.from_json(summary)

    def objective(self) -> str:
        """Value of `transfer.objective`; earlier versions of ktfast had clusters only."""
        result, config = self.result("transfer"), self.options()
        if result is None and config is not None:
            return config.transfer.objective
        return str("clusters" if result is None else result.settings.get("objective", "clusters"))

    def clusters(self) -> ClusterSummary | None:
        """Summary of the stage cluster, with the untrained network's scores, or None."""
        summary, evaluation = self._summary("cluster"), self.evaluation()
        comparable = evaluation is not None and not {"cluster", "evaluate"} & self.stale().keys()
        untrained = evaluation.random_clusters if evaluation and comparable else None
        return None if summary is None else ClusterSummary.from_json(summary, untrained)

    def prepared(self) -> dict[str, PreparedImages]:
        """Summaries of the stage prepare by the name of the image set."""
        summaries = {
            stage.removeprefix("prepare/"): self._summary(stage)
            for stage in self.stages()
            if stage.startswith("prepare/")
        }
        return {
            name: PreparedImages.from_json(summary)
            for name, summary in summaries.items()
            if summary is not None
        }

    def environment(self) -> Json | None:
        """Content of `environment.json`, or None."""
        path = self.folder / "environment.json"
        if not path.is_file():
            return None
        try:
            return read_sealed_or(path, "run a stage again", ENVIRONMENT)
        except DataError:
            self.note("environment.json", "is damaged")
            return None

    def config(self) -> str | None:
        """Text of `config.toml`, or None."""
        path = self.folder / "config.toml"
        if not path.is_file():
            return None
        try:
            return read_bytes(path, "TOML", "write the file again").decode()
        except (DataError, UnicodeDecodeError) as error:
            self.note("config.toml", f"cannot be read ({error})")
            return None

    def options(self) -> Config | None:
        """The options of `config.toml`; None if they are missing, damaged or of another version."""
        path = self.folder / "config.toml"
        try:
            return load_config(path) if path.is_file() else None
        except InputError:
            return None

    def inertia(self) -> list[float]:
        """Inertia after each iteration of K-means; empty if the file is missing or damaged."""
        name = "cluster/history.json"
        history = self._json(name) if self._is_whole(name) else None
        if history is not None and not isinstance(history, list):
            self.note(name, "should hold a list")
            return []
        values = [number(mapping(row).get("inertia")) for row in history or []]
        return [value for value in values if value is not None]

    def metrics(self) -> dict[str, list[MetricsRow]]:
        """Rows of `metrics.jsonl` by training, in the order of their first rows."""
        path = self.folder / "metrics.jsonl"
        rows: dict[str, list[MetricsRow]] = {}
        damaged = 0
        if not path.is_file():
            return rows
        try:
            content = read_bytes(path, "the metrics of a run", "run the training again")
        except DataError as error:
            self.note("metrics.jsonl", f"cannot be read ({error})")
            return rows
        for line in content.splitlines():
            row = parse_row(line)
            if row is None or "stage" not in row:
                damaged += 1
            else:
                rows.setdefault(str(row["stage"]), []).append(MetricsRow.from_json(row))
        if damaged:
            self.note("metrics.jsonl", f"has {damaged} damaged lines; the report leaves them out")
        return rows

    def arrays(self, name: str, shapes: dict[str, int]) -> dict[str, NDArray[Any]] | None:
        """Read arrays from an .npz file.

        Parameters
        ----------
        name : str
            Path below the run folder.
        shapes : dict of str to int
            Names of the required arrays and their numbers of dimensions. All arrays must have the
            same first dimension.

        Returns
        -------
        dict of str to array, or None
            The arrays, or None if the file is missing or damaged.
        """
        path = self.folder / name
        if not path.is_file() or not self._is_whole(name):
            return None
        try:
            arrays = read_npz(path, list(shapes), remedy="redo the stage")
        except DataError as error:
            self.note(name, f"is damaged ({error})")
            return None
        ndims = {key: array.ndim for key, array in arrays.items()}
        if ndims != shapes or len({len(array) for array in arrays.values()}) != 1:
            found = ", ".join(f"{key} {array.shape}" for key, array in arrays.items())
            self.note(name, f"holds arrays of unexpected shapes: {found}")
            return None
        return arrays

    def sealed(self, name: str) -> Json | None:
        """Read a JSON object that holds its own hash; None if the file is missing or damaged."""
        path = self.folder / name
        if not path.is_file() or not self._is_whole(name):
            return None
        try:
            return read_sealed(path, "run the stage again")
        except DataError:
            self.note(name, "is damaged")
            return None

    def montage_paths(self) -> dict[int, list[str]]:
        """Paths of the images of `cluster/montage.npz` by cluster; empty if they are unknown."""
        name = "cluster/montage.csv"
        if not (self.folder / name).is_file() or not self._is_whole(name):
            return {}
        paths: dict[int, list[str]] = {}
        try:
            for path, cluster, *_ in read_csv(self.folder / name, 2, "redo the stage cluster"):
                paths.setdefault(int(cluster), []).append(path)
        except (DataError, ValueError) as error:
            self.note(name, f"is damaged ({error})")
            return {}
        return paths

    def linked_clusters(self) -> dict[int, str]:
        """Address of the folder with all images of each cluster, below the run folder.

        Empty if the folders were not made, or belong to other clusters than the present ones.
        """
        result = self.result("cluster")
        if result is None:
            return {}
        folders = linked_folders(self.folder / FOLDER, result.fingerprint)
        return {cluster: f"{FOLDER}/{name}/" for cluster, name in folders.items()}

    def _json(self, name: str) -> Any:
        path = self.folder / name
        if not path.is_file():
            return None
        try:
            return read_json(path)
        except DataError:
            self.note(name, "is damaged and cannot be read as JSON")
            return None

    def _recorded(self, stage: str) -> Json | None:
        """Content of a stage's `result.json`, or None."""
        name = f"{stage}/result.json"
        if not (self.folder / name).is_file():
            return None
        try:
            return read_result(self.folder / name, "run the stage again")
        except DataError:
            self.note(name, "is damaged: it cannot be read as JSON, or has been changed")
            return None

    def _is_whole(self, name: str) -> bool:
        """Compare a file of a stage with the stage's manifest; add a note if the file differs."""
        stage, _, file = name.rpartition("/")
        result = self._recorded(stage)
        try:
            verified(self.folder / stage, file, (result or {}).get("files"), "run the stage again")
        except DataError:
            self.note(name, "is damaged: it differs from what the stage wrote")
            return False
        return True

    def _summary(self, stage: str) -> Json | None:
        result = self.result(stage)
        return None if result is None else result.summary

    def note(self, name: str, problem: str) -> None:
        """Add a note, unless it is there already."""
        note = f"{name} {problem}."
        if note not in self.notes:
            self.notes.append(note)
