"""Pretext tasks of users: import the class of a task, and check what its methods return."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ktfast.errors import ConfigError, InputError
from ktfast.features.foreign import described, import_object
from ktfast.images.feeds.base import Batch
from ktfast.models import Trunk
from ktfast.pretext.pictures import Example, packed
from ktfast.pretext.protocol import Pretext
from ktfast.training.loop import StepOutput


def import_pretext(name: str) -> type[Pretext]:
    """Import a user's pretext task. The log names the module's file before the module runs.

    Parameters
    ----------
    name : str
        `package.module:Class`. The module may lie in the working directory.

    Returns
    -------
    task : type
        A subclass of the user's class. A method that fails, or returns something else than the
        protocol asks for, raises a `ConfigError` of one sentence.

    Raises
    ------
    ConfigError
        The class cannot be imported, or is no subclass of `ktfast.pretext.protocol.Pretext`.
    """
    found = import_object(name, "pretext.task", "package.module:Class")
    if not (isinstance(found, type) and issubclass(found, Pretext)):
        raise ConfigError(
            f"pretext.task {name!r} is no subclass of ktfast.pretext.protocol.Pretext; name such a "
            "class"
        )
    if missing := sorted(found.__abstractmethods__):
        raise ConfigError(
            f"pretext.task {name!r} does not define {', '.join(missing)}; define them in the class"
        )
    return _checked(found, name)


def _checked(task: type[Pretext], name: str) -> type[Pretext]:
    """Derive a class whose methods check their results and explain their failures."""

    class Checked(task):  # type: ignore[valid-type, misc]
        def __init__(self, *arguments: Any, **options: Any) -> None:
            with explained(name, "__init__"):
                super().__init__(*arguments, **options)

        def build(self, trunk: Trunk) -> nn.Module:
            with explained(name, "build"):
                return _network(super().build(trunk), trunk)

        def step(self, batch: Batch, epoch: int) -> StepOutput:
            with explained(name, "step"):
                return _output(super().step(batch, epoch))

        def measure(self, batch: Batch, epoch: int) -> Tensor:
            with explained(name, "measure"):
                return _values(super().measure(batch, epoch), len(batch))

        def pictures(self, batch: Batch, epoch: int) -> Sequence[Example]:
            with explained(name, "pictures"):
                examples = list(super().pictures(batch, epoch))
                packed(examples)
                return examples

    Checked.__name__, Checked.__doc__ = task.__name__, task.__doc__
    return Checked


@contextmanager
def explained(name: str, method: str) -> Iterator[None]:
    """Turn any failure of a user's method into one sentence, except out-of-memory errors."""
    try:
        yield
    except (ConfigError, MemoryError, torch.OutOfMemoryError):
        raise
    except InputError as error:
        raise ConfigError(f"pretext.task {name!r}, {method}: {error}") from error
    except Exception as error:  # foreign code raises anything
        raise ConfigError(
            f"pretext.task {name!r} fails in {method} ({described(error)}); correct the class"
        ) from error


def _network(found: Any, trunk: Trunk) -> nn.Module:
    if not isinstance(found, nn.Module):
        raise InputError(f"expected a torch.nn.Module, got {type(found).__name__}")
    if trunk not in list(found.modules()):
        raise InputError("the network must contain the trunk that it was given")
    return found


def _output(found: Any) -> StepOutput:
    if not isinstance(found, StepOutput):
        raise InputError(f"expected a ktfast.training.loop.StepOutput, got {type(found).__name__}")
    values: Mapping[str, Any] = {"loss": found.loss, **found.metrics}
    for key, value in values.items():
        if not isinstance(value, Tensor) or value.numel() != 1:
            shape = f"shape {list(value.shape)}" if isinstance(value, Tensor) else repr(value)
            raise InputError(f"{key} must be a tensor of one number, got {shape}")
    return found


def _values(found: Any, n: int) -> Tensor:
    if not isinstance(found, Tensor) or found.shape != (n,) or found.is_complex():
        got = f"shape {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise InputError(f"expected a tensor of {n} numbers, one per image, got {got}")
    return found
