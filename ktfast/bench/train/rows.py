"""The rows of the table of `ktfast bench train`, from the results of its processes."""

from collections.abc import Mapping, Sequence
from typing import Any

from ktfast.bench.core.table import spread
from ktfast.bench.train.jobs import Assignment, Job
from ktfast.errors import DataError

WORK_TOLERANCE = 0.01
"""Largest relative difference of the counted operations of both sides."""
CLOCKS = (
    ("images_per_second", "ratio", "seconds"),
    ("images_per_cpu_second", "cpu_ratio", "cpu_seconds"),
)

Turn = Mapping[str, Any]


def rows_of(
    job: Job, assignment: Assignment, turns: Mapping[str, Sequence[Turn]]
) -> list[dict[str, Any]]:
    """One row for each side.

    Parameters
    ----------
    job : Job
        The comparison.
    assignment : Assignment
        The work of each process.
    turns : mapping of sequence
        The results of each side's processes in the order of the rounds, or their problems.

    Returns
    -------
    rows : list of dict
        Each row has "job", "side", "batch" and "steps". If a process failed, "problem" follows.
        Otherwise "images_per_second" and "images_per_cpu_second" follow (median, least and most
        over the rounds), and "image_gflops", "share_of_peak", "peak_tflops", "peak_gigabytes",
        "precision", "way", "feed" and "bounds". If the plain side has figures, "ratio" and
        "cpu_ratio" compare the row's side with the plain side in each round.

    Raises
    ------
    DataError
        The sides did not do the same work.
    """
    measured = [turn for side in turns.values() for turn in side if "problem" not in turn]
    work = [turn["image_flops"] for turn in measured]
    if work and max(work) > (1 + WORK_TOLERANCE) * min(work):
        raise DataError(
            f"both sides of {job.title} must do the same work, but count {min(work) / 1e9:.3f} and"
            f" {max(work) / 1e9:.3f} GFLOP an image"
        )
    # Other work on the machine can only lower a measured peak.
    peaks: dict[str, float] = {}
    for turn in measured:
        key = turn["precision"]
        peaks[key] = max(peaks.get(key, 0.0), turn["peak_flops"])
    return [_row(job, assignment, side, turns, peaks) for side in turns]


def _row(
    job: Job,
    assignment: Assignment,
    side: str,
    turns: Mapping[str, Sequence[Turn]],
    peaks: Mapping[str, float],
) -> dict[str, Any]:
    found = turns[side]
    row: dict[str, Any] = {
        "job": job.title,
        "side": side,
        "batch": assignment.batch,
        "steps": assignment.steps,
    }
    problem = next((turn["problem"] for turn in found if "problem" in turn), None)
    if problem is not None:
        return {**row, "problem": problem}
    comparable = all("problem" not in turn for turn in turns["plain"])
    for name, ratio, clock in CLOCKS:
        row[name] = spread([turn["images"] / turn[clock] for turn in found])
        if comparable:
            row[ratio] = spread(
                [
                    (a["images"] * b[clock]) / (b["images"] * a[clock])
                    for a, b in zip(found, turns["plain"], strict=True)
                ]
            )
    last = found[-1]
    peak = peaks[last["precision"]]
    speed = row["images_per_second" if assignment.device == "cuda" else "images_per_cpu_second"]
    return row | {
        "image_gflops": last["image_flops"] / 1e9,
        "share_of_peak": speed.median * last["image_flops"] / peak,
        "peak_tflops": peak / 1e12,
        "peak_gigabytes": max(turn["peak_bytes"] for turn in found) / 1e9,
        **{key: last[key] for key in ("precision", "way", "feed")},
        "bounds": last.get("bounds", ""),
    }
