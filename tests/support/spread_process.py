"""One process of a fit over torch.distributed: ``python -m support.spread_process ACTION ...``.

``cases FOLDER NAME ...`` fits cases and pickles the models. ``resume CHECKPOINT RESULT SECONDS``
fits the case "float64" with checkpoints and slowed iterations, and pickles the model.
"""

import pickle
import sys
import time
from pathlib import Path

import torch.distributed

from ktfast.kmeans.progress import Progress
from support.spread_fits import CASES, cuts, fit_part


def main(action, *arguments):
    torch.distributed.init_process_group("gloo")
    {"cases": fit_cases, "resume": resume}[action](*arguments)
    torch.distributed.destroy_process_group()


def own_place(name):
    rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    bounds = cuts(len(CASES[name][0]()), size)
    return slice(bounds[rank], bounds[rank + 1])


def fit_cases(folder, *names):
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


def save(path, model):
    rank = torch.distributed.get_rank()
    path.with_name(f"{path.name}-{rank}").write_bytes(pickle.dumps(model))


if __name__ == "__main__":
    main(*sys.argv[1:])
