"""Read weights that anyone saved: find the state dict in a file, and the network in its names.

A file may be of safetensors or of torch, whatever its suffix is. Reading a file never runs code
from the file.
"""

import argparse
import logging
import pickle
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ktfast.errors import DataError, reading, shown
from ktfast.models.spelling import utf8_path

logger = logging.getLogger(__name__)

# Where training scripts put the state dict of the network, the most wanted first.
_ENTRIES = (
    "state_dict", "model_state_dict", "model", "model_state", "net", "network", "weights",
    "teacher", "student", "encoder", "backbone", "module", "params", "ema", "model_ema",
)  # fmt: skip
# Of two copies of a network, the copy that its authors evaluate: MoCo, BYOL, DINO.
_PREFERRED = ("encoder_q.", "base_encoder.", "online_network.", "online_encoder.", "teacher.")


def read_state(path: Path) -> Mapping[str, Tensor]:
    """Read the state dict of a file.

    Parameters
    ----------
    path : Path
        File of safetensors or torch. A torch file may hold the state dict itself, or a mapping
        with an entry such as `state_dict` or `model`.

    Returns
    -------
    state : mapping of str to Tensor
        The state dict.

    Raises
    ------
    DataError
        The file is missing, damaged, or holds no state dict. The message names the file.
    """
    name = shown(path)
    if not path.is_file():
        raise DataError(f"there is no weight file {name}; give the path of an existing file")
    if _is_torch_file(path):
        return _state_of(_read_torch(path), name)
    try:
        with utf8_path(path) as spelling:
            return dict(safetensors.torch.load_file(spelling))
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{name} is damaged, or is neither a safetensors file nor a torch file ({error}); save "
            "the network's state_dict() again"
        ) from error


def read_header(path: Path, entry: str) -> str | None:
    """Read an entry of the header of a safetensors file.

    Parameters
    ----------
    path : Path
        File of safetensors or torch.
    entry : str
        Name of the entry.

    Returns
    -------
    text : str or None
        The entry. None: the header has no such entry, or the file is a torch file.

    Raises
    ------
    DataError
        The file is missing or damaged. The message names the file.
    """
    with reading(path, "a weight file", "save the network's state_dict() again"):
        if _is_torch_file(path):
            return None
        with utf8_path(path) as spelling, safetensors.safe_open(spelling, "pt") as file:
            text: str | None = (file.metadata() or {}).get(entry)
            return text


def _is_torch_file(path: Path) -> bool:
    """Say whether a file begins as a zip archive or as a pickle, and not as a safetensors file.

    A safetensors file begins with the length of its header, in 8 bytes, and with the brace of the
    header. The first bytes of the length may look like a pickle's: a header of 640 bytes does.
    """
    with open(path, "rb") as file:
        head = file.read(9)
    if head[4:] == b"\0\0\0\0{":  # a header of less than 4 GiB
        return False
    is_pickle = head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    return is_pickle or head[:4] == b"PK\x03\x04"


def _read_torch(path: Path) -> Any:
    """Content of a torch file. Reading the file cannot run code."""
    # These classes only hold values. Training scripts save options and accuracies with them.
    plain: list[Any] = [argparse.Namespace, np.dtype, type(np.dtype("f4")), type(np.dtype("f8"))]
    plain += [type(np.dtype("i4")), type(np.dtype("i8")), type(np.dtype("?"))]
    plain.append(np.float64(0).__reduce__()[0])  # builds a NumPy number
    try:
        with torch.serialization.safe_globals(plain):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own message advises to allow code in the file, and is not repeated here.
        if found := _foreign_classes(path):
            raise DataError(
                f"{shown(path)} holds more than tensors ({', '.join(found)}), and reading these "
                "objects could run code; save only the network's state_dict() to a file"
            ) from error
        raise DataError(
            f"{shown(path)} is damaged or no torch file; save the network's state_dict() again"
        ) from error
    except Exception as error:  # a damaged file fails anywhere in torch
        raise DataError(
            f"{shown(path)} is damaged or no torch file ({error}); save the network's state_dict() "
            "again"
        ) from error


def _foreign_classes(path: Path) -> list[str]:
    """Names of the classes in a torch file that are neither tensors nor plain values."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # the file is damaged, or of torch's old format
        return []
    return sorted(found)[:3]


def _state_of(value: Any, name: str) -> Mapping[str, Tensor]:
    """Find the state dict in the content of a torch file."""
    if not isinstance(value, Mapping):
        raise DataError(
            f"{name} holds a {type(value).__name__}, not a state dict; save the network's "
            "state_dict()"
        )
    if _holds_tensors(value):
        return {str(key): item for key, item in value.items() if isinstance(item, Tensor)}
    entries = {str(key): item for key, item in value.items() if isinstance(item, Mapping)}
    known = [key for key in _ENTRIES if key in entries and _has_state(entries[key])]
    others = [key for key, item in entries.items() if _has_state(item) and key != "optimizer"]
    tensors = {str(key): item for key, item in value.items() if isinstance(item, Tensor)}
    if not known and tensors:
        return tensors
    if not known and len(others) != 1:
        where = f"entries {', '.join(map(repr, others))}" if others else "no entry with tensors"
        raise DataError(
            f"{name} holds no plain state dict, but {where}; save the network's state_dict()"
        )
    entry = (known or others)[0]
    logger.info("%s: the weights are those of the entry %r", name, entry)
    return _state_of(entries[entry], name)


def _holds_tensors(value: Mapping[Any, Any]) -> bool:
    """Whether a mapping is a state dict: named tensors, perhaps with a few plain values."""
    tensors = sum(isinstance(item, Tensor) for item in value.values())
    mappings = sum(isinstance(item, Mapping) for item in value.values())
    return tensors > 0 and not mappings


def _has_state(value: Any) -> bool:
    """Whether a value is a state dict, or holds one."""
    return isinstance(value, Mapping) and (
        _holds_tensors(value) or any(_has_state(value[key]) for key in _ENTRIES if key in value)
    )


def without_prefix(
    state: Mapping[str, Tensor], own: Collection[str], name: str
) -> Mapping[str, Tensor]:
    """Select the entries of a state dict that belong to a network, under the network's own names.

    Wrappers add prefixes: `module.` (DistributedDataParallel), `_orig_mod.` (torch.compile),
    `encoder_q.` (MoCo), `backbone.`, `model.`. The prefix under which most of the network's names
    are found is removed.

    Parameters
    ----------
    state : mapping of str to Tensor
        The state dict of a file.
    own : collection of str
        Names of the network's weights.
    name : str
        Name of the state dict in messages.

    Returns
    -------
    state : mapping of str to Tensor
        The entries below the prefix, without the prefix; all entries if no prefix is needed.

    Raises
    ------
    DataError
        Two prefixes hold equally many of the network's weights.
    """
    names = set(own)
    found: Counter[str] = Counter()
    for key in state:
        at = 0
        while at >= 0:
            if key[at:] in names:
                found[key[:at]] += 1
            at = key.find(".", at) + 1 or -1
    if not found or found[""] == max(found.values()):
        return state
    most = max(found.values())
    best = [prefix for prefix, count in found.items() if count == most]
    if len(best) > 1:
        best = [p for like in _PREFERRED for p in best if p.endswith(like)][:1] or best
    if len(best) > 1:
        raise DataError(
            f"{name} holds {len(best)} copies of the network, under {', '.join(sorted(best))}; "
            "save the state_dict() of one of them"
        )
    prefix = best[0]
    logger.info("%s: the names of the weights begin with %s", name, prefix)
    return {key[len(prefix) :]: item for key, item in state.items() if key.startswith(prefix)}
