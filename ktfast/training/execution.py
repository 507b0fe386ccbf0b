"""How a network's forward and backward pass are run: as they are, compiled, or as CUDA graphs.

A fast way holds for training mode and the one shape of full batches; the last, short batch and
evaluation go the plain way.
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
"""Share of the plain way's time that another way may take at most to be chosen over it."""
WORTH = {GRAPHS: 30.0, COMPILED: 600.0, COMPILED_GRAPHS: 600.0}
"""Seconds of training that must be left for a way to be tried: compiling takes a minute or two."""


def ways(config: TrainingConfig, device: torch.device) -> list[str]:
    """The ways that the options allow, the plain one first if it is among them.

    On a CPU "auto" is off: compiled networks trained at 0.6 to 0.9 times the plain speed there
    (torch 2.15, Zen 4). In deterministic mode it is off too, as a trial's outcome is not.

    Raises
    ------
    ConfigError : CUDA graphs were asked for where they cannot be.
    """
    on_gpu, whole = device.type == "cuda", config.accumulate == 1
    if config.cuda_graphs is True and not on_gpu:
        raise ConfigError("cuda_graphs needs a GPU; leave it at auto, or give false")
    if config.cuda_graphs is True and not whole:
        raise ConfigError("cuda_graphs needs accumulate = 1: a graph's gradients are overwritten")
    tried = on_gpu and not config.deterministic
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
    if option == "auto":
        return (False, True) if tried else (False,)
    return (bool(option),)


def fastest(options: Sequence[str], seconds_of: Callable[[str], float], steps_left: int) -> str:
    """The way whose steps are fastest; one that fails, or would hardly gain, is not taken.

    Parameters
    ----------
    options : ways that may be chosen.
    seconds_of : measures a step; not called if there is no choice.
    steps_left : of the training.
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
        # Compilers and captures fail in many ways, and the plain one always works.
        except Exception as error:
            logger.warning("training cannot run %s here: %s", way, error)
            continue
        logger.info("a step takes %.1f ms %s, %.1f ms %s", 1e3 * seconds, way, 1e3 * least, best)
        if seconds < MARGIN * least:
            best, least = way, seconds
    return best


def step_seconds(gradients: Gradients, batch: Batch, epoch: int, way: str) -> float:
    """Seconds of the gradient of a batch; model and generators are as before."""
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
    """Have a model's forward run a certain way for the length of a block."""
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
    """Stands in for a model's forward: the fast way for the first shape seen, else the plain one.

    Parameters
    ----------
    model : its forward takes one tensor.
    way : COMPILED, GRAPHS or COMPILED_GRAPHS.
    device : where the model is.
    """

    def __init__(self, model: nn.Module, way: str, device: torch.device) -> None:
        self._model = model
        self._plain: Callable[[Tensor], Tensor] = model.forward
        self._way = way
        self._device = device
        self._fast: Callable[[Tensor], Tensor] | None = None
        self._shape = torch.Size()

    def __call__(self, x: Tensor) -> Tensor:
        """What the model makes of x."""
        if not self._model.training:
            return self._plain(x)
        if self._fast is None:
            self._fast, self._shape = self._made(x), x.shape
        return self._fast(x) if x.shape == self._shape else self._plain(x)

    def _made(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        if self._way == GRAPHS:
            return self._captured(x)
        options: dict[str, Any] = {"backend": BACKEND, "dynamic": False}
        if self._way == COMPILED_GRAPHS:
            options = {"mode": "reduce-overhead", "dynamic": False}
        compiled: Callable[[Tensor], Tensor] = torch.compile(self._plain, **options)
        return compiled

    def _captured(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """Forward and backward as CUDA graphs; random numbers and buffers are as before."""
        before = Remembered(self._model, self._device)
        del self._model.forward  # it is the network itself that is captured
        torch.cuda.make_graphed_callables(self._model, (x.clone(),))
        graphed: Callable[[Tensor], Tensor] = self._model.forward
        self._model.forward = self
        before.restore()
        return graphed
