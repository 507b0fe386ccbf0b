"""What every process of a training derives from the options: steps, rates, seeds and checks."""

import logging
import math

import torch

from ktfast.config import TrainingConfig
from ktfast.durable import sha256_json
from ktfast.images.feeds.base import Feed
from ktfast.kmeans.distributed.ranks import Ranks
from ktfast.training.identity import circumstances_of
from ktfast.training.lanes import check_equal_weights
from ktfast.training.state import TrainingState

logger = logging.getLogger(__name__)


def number_of_steps(feed: Feed, config: TrainingConfig) -> int:
    """Number of steps of a training."""
    return max(1, math.ceil(config.epochs * feed.batches_per_epoch - 1e-9))


def torch_seed(name: str, seed: int) -> int:
    """Seed of torch's generators, and of dropout, in a training."""
    return int(sha256_json([name, seed])[:15], 16)


def learning_rate_factor(config: TrainingConfig, step: int, total: int) -> float:
    """Factor of the initial learning rate in a step (0 .. total - 1)."""
    warm = round(config.warmup * total)
    if step < warm:
        return (step + 1) / warm
    done = step / total
    if config.schedule == "step" and config.drop_every:
        return config.drop_factor ** (step // config.drop_every)
    if config.schedule == "step":
        return config.drop_factor ** sum(done >= at for at in config.drop_at)
    if config.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
    return 1.0


def compare_circumstances(feed: Feed, device: torch.device, ranks: Ranks) -> None:
    """Warn if the processes of a training differ in what can change the last bits of a lane.

    Every process calls this function.

    Parameters
    ----------
    feed : Feed
        Feed of this process.
    device : torch.device
        Device of this process.
    ranks : Ranks
        The processes.
    """
    own = circumstances_of(feed, device)
    own["instructions"] = torch.backends.cpu.get_cpu_capability()
    for rank, other in enumerate(ranks.gather(own)):
        for key in own:
            if own[key] != other[key]:
                logger.warning(
                    "process 0 has %s %r, and process %d has %r: all processes get the same "
                    "weights, but another number of processes can change their last bits",
                    *(key, own[key], rank, other[key]),
                )


def check_weights(state: TrainingState, config: TrainingConfig, total: int, ranks: Ranks) -> None:
    """Compare the weights of all processes at every row of metrics."""
    if (total - state.step) % config.log_every == 0:
        # With ddp, the others get the statistics of process 0 at the begin of the next step.
        check_equal_weights(ranks, state.model, state.step, with_buffers=not config.ddp)
