"""Independent parts of a stage on several processes: whole trainings, and probes of some layers.

A process takes the next part when it is free, and computes the part alone, with the code and the
bits of a run on one process. Each part stores its own result, as it does on one process.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ktfast.pipeline.job_metrics import append_rows, job_metrics
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.shared_work import call_helpers
from ktfast.pipeline.team import ONE

T = TypeVar("T")


def spread(run: RunFolder, function: Callable[..., T], jobs: Sequence[tuple[Any, ...]]) -> list[T]:
    """Call ``function(run, *job)`` for every job, each on one of the processes of the run.

    Trainings within a job write their metrics into a file of their own. At the end, rank 0 appends
    the rows to `metrics.jsonl`, in the order of the jobs.

    Parameters
    ----------
    run : RunFolder
        The run.
    function : callable
        A function of a module. It gets a run without helpers.
    jobs : sequence of tuple
        Further arguments, which can be pickled. No job depends on another job.

    Returns
    -------
    results : list
        What the function returned, in the order of the jobs.
    """
    team = run.team
    if team.size == 1 or len(jobs) < 2:
        return [function(run, *job) for job in jobs]
    board = team.board()
    call_helpers(run, _help, board, function, list(jobs))
    found: dict[int, T] = {}
    while (number := team.take(board)) < len(jobs):
        found[number] = function(_alone(run, number), *jobs[number])
    for number in range(len(jobs)):
        if number not in found:
            found[number] = team.wait_for(board, number)
        append_rows(run.folder, job_metrics(run.folder, number))
    return [found[number] for number in range(len(jobs))]


def spread_trainings(
    run: RunFolder, function: Callable[..., T], jobs: Sequence[tuple[Any, ...]]
) -> list[T]:
    """Do what `spread` does for trainings with the options of the stage transfer.

    All processes share each training that has lanes or ddp. Other trainings run at the same time.
    """
    if run.config.transfer.training.is_shared:
        return [function(run, *job) for job in jobs]
    return spread(run, function, jobs)


def _help(
    run: RunFolder, board: str, function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]
) -> None:
    """Do jobs on a helper until none is left."""
    while (number := run.team.take(board)) < len(jobs):
        run.team.put(board, number, function(_alone(run, number), *jobs[number]))


def _alone(run: RunFolder, number: int) -> RunFolder:
    """Give the run to a job: without helpers, and with metrics of its own."""
    return dataclasses.replace(run, team=ONE, own_metrics=job_metrics(run.folder, number))
