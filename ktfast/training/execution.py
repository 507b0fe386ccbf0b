"""Choose how a network runs its forward and backward pass: plainly, compiled, or as CUDA graphs.

This module calls each of them a way of running the network. Compiled code and CUDA graphs run only
full batches in training mode. Evaluation and the last, smaller batch of an epoch run plainly.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ktfast.config import TrainingConfig
from ktfast.errors import ConfigError
from ktfast.images.feeds.base import Batch
from ktfast.training.gradients import Gradients, Remembered
from ktfast.training.speed import wait_for

logger = logging.getLogger(__name__)

PLAIN, GRAPHS, COMPILED, COMPILED_GRAPHS = "plain", "graphs", "compiled", "compiled graphs"

BACKEND = "inductor"
WARM_UP, TIMED = 3, 5  # steps of a trial
MARGIN = 0.95
"""A way replaces the best way so far if its step takes less than this share of that way's time."""
WORTH = {GRAPHS: 30.0, COMPILED: 600.0, COMPILED_GRAPHS: 600.0}
"""A way is tried if the rest of the training takes at least this time, seconds. Compiling takes a
minute or two."""


def ways(config: TrainingConfig, device: torch.device) -> list[str]:
    """Ways of running a network that the options allow.

    On a CPU "auto" means off, because compiled networks trained more slowly than plain ones in
    every trial on CPUs. In deterministic mode "auto" means off, because the outcome of a trial is
    not deterministic. With lanes or ddp "auto" means off, too.

    Parameters
    ----------
    config : TrainingConfig
        Options `compile`, `cuda_graphs`, `deterministic`, `accumulate`, `lanes` and `ddp`.
    device : torch.device
        Device on which the model is trained.

    Returns
    -------
    names : list of str
        The ways; PLAIN stands first if it is allowed.

    Raises
    ------
    ConfigError
        The options ask for CUDA graphs on a CPU, or together with accumulated gradients or lanes.
    """
    on_gpu = device.type == "cuda"
    whole = config.accumulate == 1 and not config.is_shared
    if config.cuda_graphs is True and not on_gpu:
        raise ConfigError("cuda_graphs needs a GPU; leave cuda_graphs at auto, or give false")
    if config.cuda_graphs is True and not whole:
        raise ConfigError(
            "cuda_graphs needs accumulate = 1, lanes = 1 and no ddp, because a graph overwrites"
            " its gradients; leave cuda_graphs at auto, or give accumulate = 1 and lanes = 1"
        )
    # Processes that share a batch must run the network in the same way.
    tried = on_gpu and not config.deterministic and not config.is_shared
    choices = {
        "compile": _choices(config.compile, tried),
        "graphs": _choices(config.cuda_graphs, tried and whole),
    }
    names = {
        (False, False): PLAIN,
        (False, True): GRAPHS,
        (True, False): COMPILED,
        (True, True): COMPILED_GRAPHS,
    }
    return [names[a, b] for a in choices["compile"] for b in choices["graphs"]]


def _choices(option: Any, tried: bool) -> tuple[bool, ...]:
    """The values that an option allows. "auto" allows both if they may be `tried`."""
    if option == "auto":
        return (False, True) if tried else (False,)
    return (bool(option),)


def fastest(options: Sequence[str], seconds_of: Callable[[str], float], steps_left: int) -> str:
    """Choose the way with the fastest steps.

    A way that raises an error, or that is hardly faster than the best one, is not chosen.

    Parameters
    ----------
    options : sequence of str
        Ways that may be chosen.
    seconds_of : callable
        Measures the seconds of a step; not called if there is only one way.
    steps_left : int
        Steps until the training ends.

    Returns
    -------
    way : str
        The chosen way.
    """
    if len(options) == 1:
        return options[0]
    best, least = options[0], seconds_of(options[0])
    left = least * steps_left
    for way in options[1:]:
        if left < WORTH[way]:
            continue
        try:
            seconds = seconds_of(way)
        # Compiling and capturing raise errors of many types, and the plain way always works.
        except Exception as error:
            logger.warning("training cannot run %s here: %s", way, error)
            continue
        logger.info("a step takes %.1f ms %s, %.1f ms %s", 1e3 * seconds, way, 1e3 * least, best)
        if seconds < MARGIN * least:
            best, least = way, seconds
    return best


def step_seconds(gradients: Gradients, batch: Batch, epoch: int, way: str) -> float:
    """Seconds to compute a batch's gradient in one way; restores model and random generators."""
    model, device = gradients.task.model, gradients.device
    before = Remembered(model, device)
    with running(model, way, device):
        for step in range(WARM_UP + TIMED):
            if step == WARM_UP:
                wait_for(device)
                began = time.perf_counter()
            gradients.add(batch, epoch)
            model.zero_grad(set_to_none=True)
        wait_for(device)
    before.restore()
    return (time.perf_counter() - began) / TIMED


@contextmanager
def running(model: nn.Module, way: str, device: torch.device) -> Iterator[None]:
    """Run a model's forward pass in one way for the length of a block."""
    if way == PLAIN:
        yield
        return
    model.forward = FastForward(model, way, device)
    try:
        yield
    finally:
        if "forward" in vars(model):
            del model.forward


class FastForward:
    """Replaces a model's forward: runs inputs of one shape the fast way, other shapes plainly.

    The one shape is that of the first input in training mode.

    Parameters
    ----------
    model : nn.Module
        Model whose forward takes tensors.
    way : str
        COMPILED, GRAPHS or COMPILED_GRAPHS.
    device : torch.device
        Device of the model.
    """

    def __init__(self, model: nn.Module, way: str, device: torch.device) -> None:
        self._model = model
        self._plain: Callable[..., Tensor] = model.forward
        self._way = way
        self._device = device
        self._fast: Callable[..., Tensor] | None = None
        self._shapes: list[torch.Size] = []

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Output of the model for its inputs."""
        if not self._model.training:
            return self._plain(*inputs)
        shapes = [x.shape for x in inputs]
        if self._fast is None:
            self._fast, self._shapes = self._build(*inputs), shapes
        return self._fast(*inputs) if shapes == self._shapes else self._plain(*inputs)

    def _build(self, *inputs: Tensor) -> Callable[..., Tensor]:
        """The fast forward for inputs of these shapes."""
        if self._way == GRAPHS:
            return self._capture(*inputs)
        options: dict[str, Any] = {"backend": BACKEND, "dynamic": False}
        if self._way == COMPILED_GRAPHS:
            options = {"mode": "reduce-overhead", "dynamic": False}
        compiled: Callable[..., Tensor] = torch.compile(self._plain, **options)
        return compiled

    def _capture(self, *inputs: Tensor) -> Callable[..., Tensor]:
        """Forward and backward as CUDA graphs; leaves random generators and buffers unchanged."""
        before = Remembered(self._model, self._device)
        del self._model.forward  # the capture must run the network, not this object
        torch.cuda.make_graphed_callables(self._model, tuple(x.clone() for x in inputs))
        graphed: Callable[..., Tensor] = self._model.forward
        self._model.forward = self
        before.restore()
        return graphed
