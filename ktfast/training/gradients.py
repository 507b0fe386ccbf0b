"""The gradient of one step, over as many images at a time as the memory holds."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from ktfast.images.feeds.base import Batch

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepOutput:
    """Loss of a batch, and further values to report; all tensors without dimensions."""

    loss: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


class Task(Protocol):
    """What is learnt: a model, and its loss on a batch."""

    @property
    def model(self) -> nn.Module:
        """The model that is trained."""
        ...

    def step(self, batch: Batch, epoch: int) -> StepOutput:
        """Loss of the model on a batch of an epoch."""
        ...


class Gradients:
    """Sums up the gradient of a batch over micro-batches.

    When the device runs out of memory, micro-batches are halved and the same batch begins again
    with the same random numbers: its gradient is the same up to the order of the sum (with
    batch-norm, whose statistics are those of a micro-batch, up to these too).

    Parameters
    ----------
    task : model and loss.
    device : where the model is.
    dtype : type of the matrix products.
    scaler : of the loss, for float16.
    micro_batch : images at a time.

    Attributes
    ----------
    micro_batch : images at a time, by now.
    """

    def __init__(
        self,
        task: Task,
        device: torch.device,
        dtype: torch.dtype,
        scaler: torch.amp.GradScaler,
        micro_batch: int,
    ) -> None:
        self.task = task
        self.device = device
        self.dtype = dtype
        self.scaler = scaler
        self.micro_batch = micro_batch

    def add(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Add the gradient of a batch to that of the model's parameters, which hold none yet.

        Returns
        -------
        loss and metrics, the means over the batch, float64 on the device.

        Raises
        ------
        torch.OutOfMemoryError : a single image is too much.
        """
        while True:
            before = Remembered(self.task.model, self.device)
            try:
                return self._sum(batch, epoch)
            except torch.OutOfMemoryError as error:
                size = min(self.micro_batch, len(batch))
                if size == 1:
                    raise
                reason = str(error).partition(". ")[0]
            # Here the traceback, which holds the activations, is gone.
            before.restore()
            self.task.model.zero_grad(set_to_none=True)
            self.micro_batch = -(-size // 2)
            logger.warning(
                "out of memory with %d images at a time (%s): going on with %d",
                size,
                reason,
                self.micro_batch,
            )
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _sum(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        for start in range(0, len(batch), self.micro_batch):
            part = batch.part(start, start + self.micro_batch).to(self.device)
            share = len(part) / len(batch)
            # Each weight is converted once a micro-batch: a cache would only get in the way of
            # CUDA graphs.
            with torch.autocast(
                self.device.type,
                self.dtype,
                enabled=self.dtype != torch.float32,
                cache_enabled=False,
            ):
                output = self.task.step(part, epoch)
            torch.autograd.backward(self.scaler.scale(output.loss * share))
            for name, value in {"loss": output.loss, **output.metrics}.items():
                term = value.detach().double() * share
                sums[name] = sums[name] + term if name in sums else term
        return sums


class Remembered:
    """Random generators and buffers (such as batch-norm's means), as they are now.

    Parameters
    ----------
    model : whose buffers are copied.
    device : whose generator is remembered beside the CPU's.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._device = device
        self._buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def restore(self) -> None:
        """Set them back."""
        with torch.no_grad():
            for buffer, value in self._buffers:
                buffer.copy_(value)
        torch.set_rng_state(self._cpu)
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda, self._device)
