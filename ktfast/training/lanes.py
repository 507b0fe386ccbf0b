"""The gradient of a step as a sum over lanes, with the same bits for any number of processes.

A lane is a fixed part of every batch: lane i of V lanes holds the images n * i // V to
n * (i + 1) // V - 1 of a batch of n images, see `ktfast.training.lane_tree.lane_bounds`. Each lane
is computed alone, from the same weights and batch-norm statistics, with dropout that is seeded by
(seed, step, lane). A fixed binary tree adds up the lanes. A process computes consecutive lanes and
sends sums of whole subtrees, so that the additions, and therefore the bits, do not depend on the
number of processes.
"""

import hashlib
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ktfast.errors import ConfigError
from ktfast.images.feeds.base import Batch
from ktfast.kmeans.distributed.communicator import CommunicationError
from ktfast.kmeans.distributed.ranks import Ranks
from ktfast.training.gradients import Gradients
from ktfast.training.lane_tree import (
    Floats,
    Span,
    halves,
    lane_bounds,
    own_lanes,
    subtrees,
    tree_sum,
    uneven,
)

_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Lanes:
    """Compute the gradient of a batch lane by lane, on one process or on several.

    Parameters
    ----------
    gradients : Gradients
        Model, loss, precision and loss scale.
    count : int
        Number of lanes, a multiple of the number of processes.
    ranks : Ranks
        The processes. Each process computes the same number of consecutive lanes.
    seed : int
        Seed of dropout.

    Raises
    ------
    ConfigError
        The loss compares the images of a batch with each other, or the processes cannot share the
        lanes evenly.
    """

    def __init__(self, gradients: Gradients, count: int, ranks: Ranks, seed: int) -> None:
        if getattr(gradients.task, "whole_batches", False):
            raise ConfigError(
                f"training.lanes is {count}, but the loss of this training compares the images of "
                "a batch with each other, so a batch cannot be cut into lanes; leave "
                "training.lanes at 1"
            )
        if problem := uneven(count, ranks.size):
            raise ConfigError(f"training.lanes is {count}, {problem}")
        self._gradients = gradients
        self._count = count
        self._ranks = ranks
        self._seed = seed
        model = gradients.task.model
        self._parameters = [each for each in model.parameters() if each.requires_grad]
        # The means, variances and counters of batch-norm.
        self._buffers = [each for each in model.buffers() if each.dtype != torch.bool]

    def add(self, batch: Batch, epoch: int, step: int) -> dict[str, Tensor]:
        """Compute the gradient of a batch; the model's parameters must hold no gradient before.

        The new batch-norm statistics are the mean of those of all lanes, weighted by the images.

        Parameters
        ----------
        batch : Batch
            Images, on any device. Every process passes the same batch.
        epoch : int
            Epoch of the task's random choices.
        step : int
            Number of steps done.

        Returns
        -------
        values : dict of str to Tensor, float64 []
            Loss and metrics, the means over the batch, on the model's device.

        Raises
        ------
        ConfigError
            The memory does not hold a lane.
        CommunicationError
            Another process has failed.
        """
        lone = self._gradients.takes_one is not False
        bounds = lane_bounds(len(batch), self._count, lone=lone)
        before = [each.clone() for each in self._buffers]
        values: list[Mapping[str, Tensor]] = []

        def compute(lane: int) -> list[Tensor]:
            _copy(before, self._buffers)
            start, stop = bounds[lane], bounds[lane + 1]
            torch.manual_seed(dropout_seed(self._seed, step, lane))
            part, share = batch.part(start, stop), (stop - start) / len(batch)
            values.append(self._one(part, epoch, share) if len(part) else {})
            return self._taken(before, share)

        with torch.no_grad():
            self._give(self._total(compute), before)
        return self._means(values)

    def _one(self, part: Batch, epoch: int, share: float) -> Mapping[str, Tensor]:
        """Forward and backward pass of a lane; return its share of the loss and the metrics."""
        try:
            with torch.enable_grad():
                return self._gradients.part(part.to(self._gradients.device), epoch, share)
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"the memory does not hold a lane of {len(part)} images, and a lane is never "
                "split, because that would change the result; raise training.lanes"
            ) from error

    def _taken(self, before: list[Tensor], share: float) -> list[Tensor]:
        """Take the gradients of a lane from the model, and its changes of the statistics."""
        found = []
        for parameter in self._parameters:
            gradient = parameter.grad
            found.append(torch.zeros_like(parameter) if gradient is None else gradient)
        used = [float(parameter.grad is not None) for parameter in self._parameters]
        for parameter in self._parameters:
            parameter.grad = None
        for now, earlier in zip(self._buffers, before, strict=True):
            found.append((now - earlier) * share)
        return [*found, torch.tensor(used, device=self._gradients.device)]

    def _give(self, total: list[Tensor], before: list[Tensor]) -> None:
        """Give the model the summed gradients and the new statistics."""
        gradients, rest = total[: len(self._parameters)], total[len(self._parameters) : -1]
        for parameter, gradient, used in zip(
            self._parameters, gradients, total[-1].tolist(), strict=True
        ):
            if used:
                # One memory order for every number of processes: norms depend on the order.
                parameter.grad = torch.empty_like(parameter).copy_(gradient)
        for buffer, earlier, change in zip(self._buffers, before, rest, strict=True):
            # A counter changes by the same number on every lane, so the mean is a whole number.
            buffer.copy_(earlier + (change if buffer.is_floating_point() else change.round()))

    def _total(self, compute: Callable[[int], list[Tensor]]) -> list[Tensor]:
        """Sum over all lanes of all processes."""
        own = own_lanes(self._count, self._ranks)
        sums = {span: _subtree(span, compute) for span in subtrees(self._count, own)}
        if self._ranks.size == 1:
            return sums[0, self._count]
        like = next(iter(sums.values()))
        flat = {span: _flat(tensors) for span, tensors in sums.items()}
        return _unflat(tree_sum(self._ranks, self._count, flat), like)

    def _means(self, values: list[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Add up the values of all lanes, in their order."""
        if self._ranks.size > 1:
            own = [{name: float(value) for name, value in lane.items()} for lane in values]
            values = [
                {name: torch.tensor(value, dtype=torch.float64) for name, value in lane.items()}
                for lanes in self._ranks.gather_to_all(own)
                for lane in lanes
            ]
        sums: dict[str, Tensor] = {}
        for lane in values:
            for name, value in lane.items():
                value = value.to(self._gradients.device)
                sums[name] = sums[name] + value if name in sums else value
        return sums


def weights_digest(model: nn.Module, *, with_buffers: bool = True) -> int:
    """Sum the bits of all weights and buffers; the sum changes if one bit changes."""
    total = 0
    buffers = model.buffers() if with_buffers else ()
    for number, value in enumerate([*model.parameters(), *buffers], 1):
        bits = value.detach().contiguous().flatten().view(_INTEGERS[value.element_size()])
        total += number * int(bits.sum(dtype=torch.int64))
    return total


def check_equal_weights(
    ranks: Ranks, model: nn.Module, step: int, *, with_buffers: bool = True
) -> None:
    """Refuse to go on if the weights of two processes differ.

    Parameters
    ----------
    ranks : Ranks
        The processes.
    model : nn.Module
        The model of this process.
    step : int
        Number of steps done.
    with_buffers : bool
        Whether the statistics of batch-norm must be equal, too.

    Raises
    ------
    CommunicationError
        The weights differ. Every process raises the error.
    """
    if ranks.size == 1:
        return
    found = ranks.gather_to_all(weights_digest(model, with_buffers=with_buffers))
    for rank, digest in enumerate(found):
        if digest != found[0]:
            raise CommunicationError(
                f"after step {step} the weights of process {rank} differ from those of process 0, "
                "so a bit has changed in memory or in the network; check the machines, and start "
                "the same command again, which goes on from the last checkpoint"
            )


def _subtree(span: Span, compute: Callable[[int], list[Tensor]]) -> list[Tensor]:
    """Compute the lanes of a subtree in their order, and add them up by the tree."""
    if span[1] - span[0] == 1:
        return compute(span[0])
    left, right = (_subtree(half, compute) for half in halves(span))
    for total, term in zip(left, right, strict=True):
        total += term
    return left


def _flat(tensors: list[Tensor]) -> Floats:
    """Copy tensors into one vector on the host, in the widest type of the tensors."""
    return np.asarray(torch.cat([each.flatten() for each in tensors]).cpu().numpy())


def _copy(source: list[Tensor], target: list[Tensor]) -> None:
    for to, value in zip(target, source, strict=True):
        to.copy_(value)


def _unflat(vector: Floats, like: list[Tensor]) -> list[Tensor]:
    """Cut a vector into tensors of the shapes, types and devices of others."""
    parts = torch.split(torch.from_numpy(vector), [each.numel() for each in like])
    return [
        part.view(each.shape).to(each.device, each.dtype)
        for part, each in zip(parts, like, strict=True)
    ]


def dropout_seed(seed: int, step: int, lane: int) -> int:
    """Seed of dropout in a lane of a step."""
    return int.from_bytes(hashlib.sha256(f"{seed} {step} {lane}".encode()).digest()[:7], "little")
