"""Teachers that somebody else wrote: import a user's function, and check what a teacher returns."""

import functools
import importlib
import logging
import os
import sys
import sysconfig
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ktfast.config.sources import read_source
from ktfast.errors import ConfigError, InputError, shown
from ktfast.features.source_code import module_file, source_code

logger = logging.getLogger(__name__)

_imported: dict[str, tuple[Any, str]] = {}
"""What MODULE:NAME named when this process first imported it, and the fingerprint of its code."""

_NOT_THE_USERS = (
    "<",
    *{sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")},
    str(Path(__file__).parents[1]),
)
"""Where the files lie that are not the user's: Python, installed packages, and ktfast."""

Teacher = Callable[[Tensor], Tensor]
"""Features, float32 [B, d], of images, uint8 [B, S, S, 3]."""


def functions_of(source: str) -> list[str]:
    """Each MODULE:FUNCTION of a user's module that a `features.source` names."""
    return [part.name for part in read_source(source) if part.kind == "function"]


def is_function(source: str) -> bool:
    """Whether a `features.source` names a function of a user's module, as MODULE:FUNCTION."""
    return bool(functions_of(source))


def import_function(source: str) -> Callable[[Tensor], Any]:
    """Import a user's function. The log names the module's file before the module runs.

    Parameters
    ----------
    source : str
        `package.module:function`. The module may lie in the working directory.

    Returns
    -------
    function : callable
        The function.

    Raises
    ------
    ConfigError
        The function cannot be imported. The message gives the place and the reason.
    """
    function = import_object(source, "features.source", "package.module:function")
    if not callable(function):
        raise ConfigError(f"features.source {source!r} is not callable; name a function")
    return function  # type: ignore[no-any-return]


def import_object(name: str, option: str, form: str) -> Any:
    """Import what MODULE:NAME names. The log names the module's file before the module runs.

    Parameters
    ----------
    name : str
        Value of the option. The module may lie in the working directory.
    option : str
        The option, for messages.
    form : str
        What the option's value should look like, for messages.

    Returns
    -------
    found : Any
        The object.

    Raises
    ------
    ConfigError
        The object cannot be imported, or its module's file has changed since it was imported. The
        message gives the place and the reason.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # an installed command does not search the working directory
    module, _, attribute = name.partition(":")
    try:
        _announce(option, name, file_of(name))
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{option} {name!r} cannot be imported ({error}); give {form}") from error
    except Exception as error:  # the user's module raises anything
        raise ConfigError(
            f"{option} {name!r} cannot be imported ({described(error)}); correct the module"
        ) from error
    content = source_code(name).fingerprint
    known, before = _imported.setdefault(name, (found, content))
    if known is not found:  # the user has reloaded the module
        _imported[name] = found, content
    elif before != content:
        raise ConfigError(
            f"{option} {name!r}: {shown(file_of(name))} has changed since Python imported it, so "
            "the old code would run; start Python anew, or call importlib.reload on the module"
        )
    return found


def file_of(source: str) -> str:
    """Path of the file of the module that MODULE:FUNCTION names; "" if Python finds none."""
    return str(module_file(source.partition(":")[0]) or "")


@functools.lru_cache
def _announce(option: str, name: str, file: str) -> None:
    """Log once per process which file an option runs."""
    logger.info("%s %s runs code of the file %s", option, name, shown(file or "(unknown)"))


def checked(teacher: Callable[[Tensor], Any], name: str) -> Teacher:
    """Wrap a teacher so that its result is float32 [B, d], and its failure is one sentence.

    Parameters
    ----------
    teacher : callable
        Function from images uint8 [B, S, S, 3] to features [B, d] or [B, d, 1, 1]: a torch tensor
        on any device, with or without gradients, or an array. Any real number type will do.
    name : str
        Name of the teacher in messages.

    Returns
    -------
    teacher : callable
        Function from images to features, float32 [B, d], on the images' device.
    """

    def teach(images: Tensor) -> Tensor:
        try:
            found = teacher(images)
        except (InputError, MemoryError, torch.cuda.OutOfMemoryError):
            raise
        except Exception as error:  # foreign code raises anything
            raise ConfigError(
                f"features.source {name!r} fails on images uint8 {list(images.shape)} "
                f"({described(error)}); set features.crop to a size that the teacher accepts, or "
                "correct the teacher"
            ) from error
        return _features(found, images, name)

    return teach


def _features(found: Any, images: Tensor, name: str) -> Tensor:
    """Convert the result of a teacher to float32 [B, d]."""
    n = len(images)
    if isinstance(found, np.ndarray) and found.dtype.kind in "biuf":
        found = torch.as_tensor(np.ascontiguousarray(found, found.dtype.newbyteorder("=")))
    if not isinstance(found, Tensor):
        kind = f"{found.dtype} array" if isinstance(found, np.ndarray) else type(found).__name__
        raise ConfigError(
            f"features.source {name!r} returned a {kind}; expected a torch tensor or a NumPy array "
            f"of numbers [{n}, d]"
        )
    shape = tuple(found.shape)
    if len(shape) > 2 and all(side == 1 for side in shape[2:]):
        found = found.flatten(1)  # a network's output after pooling to one cell
    if found.ndim != 2 or len(found) != n or found.shape[1] < 1 or found.is_complex():
        raise ConfigError(
            f"features.source {name!r} returned shape {shape}, {found.dtype}, for {n} images; "
            f"expected real numbers [{n}, d]: one row of features per image"
        )
    features: Tensor = found.detach().to(images.device).float().contiguous()
    return features


def described(error: Exception) -> str:
    """Give an exception in one line, with the last place in the user's code, if there is one."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(_NOT_THE_USERS)]
    last = (own or [*frames])[-1:]
    place = f", {shown(last[0].filename)} line {last[0].lineno}" if last else ""
    reason = " ".join(str(error).split())
    return f"{type(error).__name__}: {reason[:300]}{place}"
