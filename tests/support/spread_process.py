"""One process of a fit over torch.distributed: ``python -m support.spread_process ACTION ...``.

``cases FOLDER NAME ...`` fits cases and pickles the models. ``resume CHECKPOINT RESULT SECONDS``
fits the case "float64" with checkpoints and slowed iterations, and pickles the model. ``fail``
lets one process fail but live on, and prints the error and the seconds of the other process.
"""

import pickle
import sys
import time
from pathlib import Path

import torch.distributed

from ktfast.kmeans import lloyd
from ktfast.kmeans.distributed import CommunicationError, torch_communicator
from ktfast.kmeans.progress import Progress
from support.spread_fits import CASES, cuts, fit_part


def main(action, *arguments):
    torch.distributed.init_process_group("gloo")
    {"cases": fit_cases, "resume": resume, "fail": fail}[action](*arguments)
    torch.distributed.destroy_process_group()


def own_place(name):
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    bounds = cuts(len(CASES[name][0]()), size)
    return slice(bounds[rank], bounds[rank + 1])


def fit_cases(folder, *names):
    torch_communicator._PIECE = 10_000  # most messages consist of several pieces
    for name in names:
        save(Path(folder) / name, fit_part(name, "torch", own_place(name)))


def resume(checkpoint, result, seconds):
    """Fit with a checkpoint after every iteration, each of which takes at least `seconds`."""
    observe = Progress.observe

    def slow(self, result):
        observe(self, result)
        time.sleep(float(seconds))

    Progress.observe = slow
    options = {"checkpoint": checkpoint, "checkpoint_seconds": 0, "init": "random", "n_init": 2}
    save(Path(result), fit_part("float64", "torch", own_place("float64"), **options))


def fail():
    """Let rank 1 run out of memory in its first assignment pass."""
    make = lloyd.make_assigner

    def failing(rows, *arguments, **options):
        if rows.ranks.rank == 1:
            raise MemoryError
        return make(rows, *arguments, **options)

    lloyd.make_assigner = failing
    started = time.monotonic()
    try:
        fit_part("float32", "torch", own_place("float32"))
    except (CommunicationError, MemoryError) as error:
        print(type(error).__name__, flush=True)
    print(time.monotonic() - started, flush=True)
    time.sleep(60)


def save(path, model):
    rank = torch.distributed.get_rank()
    path.with_name(f"{path.name}-{rank}").write_bytes(pickle.dumps(model))


if __name__ == "__main__":
    main(*sys.argv[1:])
