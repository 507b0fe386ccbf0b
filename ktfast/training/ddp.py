"""The gradient of a step by torch's DistributedDataParallel: fast, but no two world sizes agree.

Each process computes one part of the batch, with dropout and batch-norm statistics of its own, and
torch adds up the gradients while the backward pass runs. The result depends on the number of
processes, so the result of a training names the number. `ktfast.training.lanes` is the way whose
bits do not depend on the number.
"""

import contextlib
import datetime
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ktfast.errors import ConfigError
from ktfast.images.feeds.base import Batch
from ktfast.kmeans.distributed.ranks import Ranks
from ktfast.training.gradients import Gradients
from ktfast.training.lane_tree import lane_bounds
from ktfast.training.lanes import dropout_seed

# torch waits as long as the slowest process works: the signs of life find a process that is dead.
_NO_LIMIT = datetime.timedelta(days=30)


class Parallel:
    """Compute the gradient of a batch on all processes at once.

    Parameters
    ----------
    gradients : Gradients
        Model, loss, precision and loss scale.
    ranks : Ranks
        The processes.
    seed : int
        Seed of dropout.

    Raises
    ------
    ConfigError
        The loss compares the images of a batch with each other.
    """

    def __init__(self, gradients: Gradients, ranks: Ranks, seed: int) -> None:
        if getattr(gradients.task, "whole_batches", False):
            raise ConfigError(
                "training.ddp is set, but the loss of this training compares the images of a batch "
                "with each other, so processes cannot share a batch; leave training.ddp out"
            )
        self._gradients, self._ranks, self._seed = gradients, ranks, seed
        self._group: Any = None
        self._was_called = False

    @contextlib.contextmanager
    def connected(self, device: torch.device) -> Iterator[None]:
        """Let the training passes of the model exchange gradients; all processes enter the block.

        Parameters
        ----------
        device : torch.device
            Device of this process.
        """
        model = self._gradients.task.model
        if self._ranks.size == 1:
            yield
            return
        import torch.distributed as distributed

        backend = backend_of(self._ranks.gather_to_all((socket.gethostname(), str(device))))
        self._group = distributed.new_group(backend=backend, timeout=_NO_LIMIT)
        forward, own = model.forward, vars(model).get("forward")
        wrapped = nn.parallel.DistributedDataParallel(
            _Inner(model, forward),
            device_ids=[device] if device.type == "cuda" else None,
            process_group=self._group,
            static_graph=True,  # parameters that the loss does not use are no error
        )

        def run(*inputs: Any, **options: Any) -> Any:
            # Measures and trials of single processes run the model without gradients.
            if not (model.training and torch.is_grad_enabled()):
                return forward(*inputs, **options)
            self._was_called = True
            return wrapped(*inputs, **options)

        model.forward = run
        try:
            yield
        finally:
            del model.forward
            if own is not None:
                model.forward = own
            with contextlib.suppress(RuntimeError):  # another process has died
                distributed.destroy_process_group(self._group)
            self._group = None

    def add(self, batch: Batch, epoch: int, step: int) -> dict[str, Tensor]:
        """Compute the gradient of a batch; the model's parameters must hold no gradient before.

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
            The memory does not hold the part of this process, or the task does not call its model.
        """
        ranks, lone = self._ranks, self._gradients.takes_one is not False
        bounds = lane_bounds(len(batch), ranks.size, lone=lone)
        start, stop = bounds[ranks.rank], bounds[ranks.rank + 1]
        share = (stop - start) / len(batch)
        if start == stop:  # every process takes part in the exchange, this one with weight 0
            start, stop = 0, min(2, len(batch))
        torch.manual_seed(dropout_seed(self._seed, step, ranks.rank))
        part = batch.part(start, stop).to(self._gradients.device)
        try:
            # torch divides the sum of the gradients by the number of processes.
            values = self._gradients.part(part, epoch, share * ranks.size)
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"the memory does not hold {len(part)} images, the part of process {ranks.rank}; "
                "lower training.batch_size, or start more processes"
            ) from error
        return values if ranks.size == 1 else self._means(values)

    def _means(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add up the values of all processes."""
        if not self._was_called:
            raise ConfigError(
                "training.ddp is set, but the task does not call its model as a whole, so torch "
                "cannot exchange the gradients; call `self.model(...)` in the task's step, or use "
                "training.lanes"
            )
        import torch.distributed as distributed

        names = sorted(values)
        sums = torch.stack([values[name] for name in names]) / self._ranks.size
        distributed.all_reduce(sums, group=self._group)
        return dict(zip(names, sums, strict=True))


class _Inner(nn.Module):
    """The model as DistributedDataParallel sees it: with the forward pass that the model had."""

    def __init__(self, model: nn.Module, forward: Any) -> None:
        super().__init__()
        self.model = model
        self._plain = forward

    def forward(self, *inputs: Any, **options: Any) -> Any:
        return self._plain(*inputs, **options)


def backend_of(places: Sequence[tuple[str, str]]) -> str:
    """Choose the library that exchanges gradients.

    Parameters
    ----------
    places : sequence of (str, str)
        Name of the machine, and device, of each process.

    Returns
    -------
    backend : str
        "nccl" if every process has a GPU of its own, else "gloo". NCCL refuses two processes on one
        GPU.
    """
    on_gpus = all(device.startswith("cuda:") for _, device in places)
    return "nccl" if on_gpus and len(set(places)) == len(places) else "gloo"
