"""Checkpoints of a training: whole or absent on disk, verified when read, the last two kept.

A checkpoint is one safetensors file. A rename puts the whole file in place, and the file's header
holds a SHA-256 of all other content. Reading a checkpoint cannot run code.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ktfast.durable import remove_leftovers, write_bytes
from ktfast.errors import DataError, reading
from ktfast.models.spelling import utf8_path

logger = logging.getLogger(__name__)

KEPT = 2
"""Checkpoints that remain in a folder."""


@dataclass(frozen=True)
class Checkpoint:
    """State of a training.

    Attributes
    ----------
    step : int
        Steps done.
    tensors : dict of str to Tensor
        Weights and other tensors, on the CPU.
    facts : dict
        JSON values.
    """

    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


class CheckpointFolder:
    """The checkpoints `checkpoint-<step>.safetensors` of one training.

    Parameters
    ----------
    folder : Path
        Folder of the checkpoints, which must exist.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._trusted: list[Path] = []

    def load(self) -> Checkpoint | None:
        """Read the newest checkpoint that is whole; None if the folder has no checkpoint.

        Raises
        ------
        DataError
            The folder has checkpoints, and all of them are damaged.
        """
        remove_leftovers(self.folder)
        found = self._paths()
        for path in found:
            try:
                checkpoint = _read(path)
            except (DataError, OSError) as error:
                logger.warning("%s; trying the previous checkpoint", error)
                continue
            self._trusted = [path]
            return checkpoint
        if found:
            raise DataError(
                f"none of the {len(found)} checkpoints in {self.folder} can be used; delete them"
                " to start the training from the beginning"
            )
        return None

    def save(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
        """Write a checkpoint, then delete all but the last two that are known to be whole.

        Parameters
        ----------
        step : int
            Steps done.
        tensors : mapping of str to Tensor
            Weights and other tensors, on any device.
        facts : mapping
            JSON values.

        Returns
        -------
        path : Path
            The file.

        Raises
        ------
        OSError
            The checkpoint could not be written. The earlier checkpoints are unchanged.
        """
        path = self.folder / f"checkpoint-{step}.safetensors"
        still = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        text = json.dumps({"step": step, "facts": facts}, allow_nan=False)
        header = {"ktfast": text, "sha256": _digest(text, still)}
        write_bytes(path, safetensors.torch.save(still, header))
        self._trusted = [*(other for other in self._trusted if other != path), path][-KEPT:]
        for other in self._paths():
            if other not in self._trusted:
                other.unlink(missing_ok=True)
        return path

    def _paths(self) -> list[Path]:
        """Checkpoint files, newest first."""
        steps = {
            int(number): path
            for path in self.folder.glob("checkpoint-*.safetensors")
            if (number := path.stem.removeprefix("checkpoint-")).isdecimal()
        }
        return [steps[step] for step in sorted(steps, reverse=True)]


def _read(path: Path) -> Checkpoint:
    """Read and verify one checkpoint; raise `DataError` unless all content is as written."""
    with reading(path, "a checkpoint", "delete the file to use an earlier one"):
        with (
            utf8_path(path) as spelling,
            safetensors.safe_open(spelling, framework="pt") as file,
        ):
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text = header.get("ktfast", "")
        if not text or header.get("sha256") != _digest(text, tensors):
            raise ValueError("it is damaged: its SHA-256 differs")
        values = json.loads(text)
        return Checkpoint(values["step"], tensors, values["facts"])


def _digest(text: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the facts and each tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
