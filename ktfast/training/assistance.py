"""The part of a helper in a training whose lanes several processes share."""

import contextlib
from pathlib import Path
from typing import Any

import torch

from ktfast.config import TrainingConfig
from ktfast.images.feeds.base import Feed
from ktfast.kmeans.distributed.ranks import Ranks
from ktfast.training.delivery import deliver
from ktfast.training.execution import running
from ktfast.training.gradients import Task
from ktfast.training.memory import kept_heap
from ktfast.training.schedule import (
    check_weights,
    compare_circumstances,
    learning_rate_factor,
    number_of_steps,
    torch_seed,
)
from ktfast.training.signals import Signals
from ktfast.training.state import TrainingState, global_settings


def assist(
    task: Task,
    feed: Feed,
    config: TrainingConfig,
    *,
    name: str,
    seed: int,
    device: str | torch.device,
    ranks: Ranks,
) -> None:
    """Do a part of each step of a training that rank 0 runs with `train`, until the training ends.

    The function returns as well if the training stops because of a signal. Rank 0 sends weights and
    state, and writes everything.

    Parameters
    ----------
    task : Task
        Model and loss, as on rank 0. The weights of the model do not matter.
    feed : Feed
        Delivers the batches of rank 0.
    config : TrainingConfig
        The options of rank 0.
    name : str
        Name of the training.
    seed : int
        Seed of dropout, as on rank 0.
    device : str or torch.device
        Device of this process.
    ranks : Ranks
        The processes of the training.

    Raises
    ------
    CommunicationError
        Another process has failed, or the weights of two processes differ.
    """
    device, total = torch.device(device), number_of_steps(feed, config)
    own_seed = torch_seed(name, seed)
    with (
        global_settings(config, device, own_seed),
        kept_heap() if device.type == "cpu" else contextlib.nullcontext(),
        Signals() as signals,
    ):
        begun: Any = None
        begun = ranks.broadcast(begun)
        if begun is None:  # the training was finished before
            return
        given, last, takes_one = begun
        compare_circumstances(feed, device, ranks)
        state = TrainingState(task, config, device, ranks=ranks, seed=own_seed)
        facts = given.facts
        state.restore(given, facts["question"], facts["circumstances"], Path(name))
        state.gradients.takes_one = takes_one
        # Rank 0 has tried whether the network takes one image. The batches follow from the answer.
        batches = deliver(feed, state.step, total, device, lone=takes_one is not False)
        with running(task.model, state.way, device), state.connected():
            while True:
                epoch, batch = next(batches)
                state.set_rate(learning_rate_factor(config, state.step, total))
                state.advance(batch, epoch)
                check_weights(state, config, total, ranks)
                if state.step == last or signals.agreed(ranks) is not None:
                    return
