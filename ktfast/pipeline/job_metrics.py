"""Metrics of trainings that several processes run at a time: a file for each, joined by rank 0."""

from pathlib import Path
from typing import Any

from ktfast.durable import parse_row, write_bytes
from ktfast.errors import reading

METRICS = "metrics.jsonl"


def job_metrics(folder: Path, number: int) -> Path:
    """Name the file of the rows of job `number` in a run folder."""
    return folder / f"metrics-{number}.jsonl"


def append_all_rows(folder: Path) -> None:
    """Append the rows of every job that an interrupted call has left in a run folder."""
    for path in sorted(folder.glob("metrics-*.jsonl")):
        append_rows(folder, path)


def append_rows(folder: Path, path: Path) -> None:
    """Append the rows of a job to `metrics.jsonl`, and remove the file of the job.

    Rows of an earlier session that the job has written again are replaced.

    Parameters
    ----------
    folder : Path
        The run folder.
    path : Path
        The file of the job; it may be missing.

    Raises
    ------
    DataError
        A file cannot be read.
    """
    own, metrics = _lines(path), folder / METRICS
    first: dict[Any, int] = {}
    for row, _ in own:
        first.setdefault(row.get("stage"), row.get("step", 0))
    if own:
        kept = [
            line
            for row, line in _lines(metrics)
            if row.get("stage") not in first or row.get("step", 0) < first[row["stage"]]
        ]
        write_bytes(metrics, b"".join(line + b"\n" for line in [*kept, *(each for _, each in own)]))
    path.unlink(missing_ok=True)


def _lines(path: Path) -> list[tuple[dict[str, Any], bytes]]:
    """Read the rows of a file, and their lines; lines that a crash left incomplete are dropped."""
    if not path.is_file():
        return []
    with reading(path, "the metrics of a run", "remove the file"):
        lines = path.read_bytes().splitlines()
    return [(row, line) for line in lines if (row := parse_row(line)) is not None]
