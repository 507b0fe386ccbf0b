"""The gradient of one step, computed on as many images at once as the memory holds."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from ktfast.errors import ConfigError
from ktfast.images.feeds.base import Batch

logger = logging.getLogger(__name__)

_NO_SPREAD = "Expected more than 1 value per channel"  # how torch's batch-norm begins its error


@dataclass(frozen=True)
class StepOutput:
    """Loss of a batch, and further values to report.

    Attributes
    ----------
    loss : Tensor, []
        Loss, from which the gradient is computed.
    metrics : mapping of str to Tensor, []
        Values that are averaged for metrics.jsonl, such as the accuracy.
    """

    loss: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


class Task(Protocol):
    """A model and its loss on a batch: what the training loop can train."""

    @property
    def model(self) -> nn.Module:
        """The model that is trained."""
        ...

    def step(self, batch: Batch, epoch: int) -> StepOutput:
        """Loss of the model on a batch of an epoch.

        If the loss is no mean over the images, the task sets an attribute `whole_batches` to true,
        and no batch is split.
        """
        ...


class Gradients:
    """Sum the gradient of a batch over micro-batches.

    If the device runs out of memory, the micro-batch is halved, and the gradient of the same batch
    is computed again with the same random numbers. Only the order of the sum changes the gradient.
    With batch-norm the gradient also changes because batch-norm's statistics are those of a
    micro-batch.

    Parameters
    ----------
    task : Task
        Model and loss.
    device : torch.device
        Device of the model.
    dtype : torch.dtype
        Type of the matrix products.
    scaler : torch.amp.GradScaler
        Scale of the loss, for float16.
    micro_batch : int
        Images per forward and backward pass.

    Attributes
    ----------
    micro_batch : int
        Images per forward and backward pass, after all halvings so far.
    takes_one : bool or None
        Whether the network can be trained on one image alone. Batch-norm of a map of one pixel
        cannot. None: not known yet.
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
        self.takes_one: bool | None = None

    def learn_takes_one(self, image: Batch, epoch: int) -> bool:
        """Try whether the network can be trained on one image alone.

        The trial leaves the model and torch's generators unchanged. Its outcome is remembered.

        Parameters
        ----------
        image : Batch
            One image.
        epoch : int
            Epoch of the image.

        Returns
        -------
        takes_one : bool
            Whether the network can be trained on one image.
        """
        modules = self.task.model.modules()
        if self.takes_one is None and not any(_normalises_batches(module) for module in modules):
            self.takes_one = True
        if self.takes_one is None:
            before = Remembered(self.task.model, self.device)
            try:
                with torch.no_grad():
                    self._output(image.to(self.device), epoch)
                self.takes_one = True
            except ValueError as error:
                if not str(error).startswith(_NO_SPREAD):
                    raise
                self.takes_one = False
            before.restore()
        return self.takes_one

    def add(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """Compute the gradient of a batch; the model's parameters must hold no gradient before.

        Parameters
        ----------
        batch : Batch
            Images, on any device.
        epoch : int
            Epoch of the task's random choices.

        Returns
        -------
        values : dict of str to Tensor, float64 []
            Loss and metrics, the means over the batch, on the model's device.

        Raises
        ------
        torch.OutOfMemoryError
            The memory does not hold a single image.
        ConfigError
            The memory does not hold the batch, and the task does not allow to split the batch. Or
            the batch is one image, and batch-norm cannot be trained on one image.
        """
        while True:
            before = Remembered(self.task.model, self.device)
            try:
                return self._sum(batch, epoch)
            except torch.OutOfMemoryError as error:
                size = min(self.micro_batch, len(batch))
                if size == 1:
                    raise
                if getattr(self.task, "whole_batches", False):
                    raise ConfigError(
                        f"the memory does not hold a batch of {size} images, and this training "
                        "cannot split a batch, because its loss compares the images of a batch "
                        "with each other; lower batch_size or the width of the network"
                    ) from error
                reason = str(error).partition(". ")[0]
            # Python frees the traceback, which holds activations, only after the except block.
            before.restore()
            self.task.model.zero_grad(set_to_none=True)
            self.micro_batch = -(-size // 2)
            logger.warning(
                "out of memory with %d images at a time (%s): going on with %d at a time",
                size,
                reason,
                self.micro_batch,
            )
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _sum(self, batch: Batch, epoch: int) -> dict[str, Tensor]:
        """The gradient and the mean values of a batch, one micro-batch after the other."""
        sums: dict[str, Tensor] = {}
        ends = self._ends(batch, epoch)
        for start, end in zip([0, *ends], ends, strict=False):
            part = batch.part(start, end).to(self.device)
            share = len(part) / len(batch)
            try:
                output = self._output(part, epoch)
            except ValueError as error:
                if not str(error).startswith(_NO_SPREAD):
                    raise
                raise ConfigError(
                    "a step sees one image at a time, but the network normalises over the images "
                    "of a batch (batch-norm) where the image has become one pixel; give a "
                    "batch_size of at least 3 and fewer parts (accumulate), or larger crops"
                ) from error
            torch.autograd.backward(self.scaler.scale(output.loss * share))
            for name, value in {"loss": output.loss, **output.metrics}.items():
                term = value.detach().double() * share
                sums[name] = sums[name] + term if name in sums else term
        return sums

    def _ends(self, batch: Batch, epoch: int) -> list[int]:
        """Where each micro-batch of a batch ends; no micro-batch is one image if that fails."""
        n, size = len(batch), self.micro_batch
        ends = [*range(size, n, size), n]
        if n > 1 and n % size == 1 and not self.learn_takes_one(batch.part(n - 1, n), epoch):
            # The micro-batch before the last image gives an image away, or takes the last image.
            ends[-2:] = [ends[-2] - 1, n] if size > 2 else [n]
        return ends

    def _output(self, part: Batch, epoch: int) -> StepOutput:
        """Run the task on images of the device, in the type of the training."""
        # A micro-batch uses each weight once, so that a cache of converted weights saves nothing.
        # CUDA graphs do not allow the cache.
        with torch.autocast(
            self.device.type, self.dtype, enabled=self.dtype != torch.float32, cache_enabled=False
        ):
            return self.task.step(part, epoch)


def _normalises_batches(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training


class Remembered:
    """A copy of the random generators and of a model's buffers, such as batch-norm's means.

    Parameters
    ----------
    model : nn.Module
        Model whose buffers are copied.
    device : torch.device
        Device whose random generator is copied, in addition to the CPU's.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._device = device
        self._buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def restore(self) -> None:
        """Set generators and buffers back to the copy."""
        with torch.no_grad():
            for buffer, value in self._buffers:
                buffer.copy_(value)
        torch.set_rng_state(self._cpu)
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda, self._device)
