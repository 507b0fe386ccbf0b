"""Find the options and inputs on which a network of a run depends, and what the network costs.

The `result.json` of every stage names the stages and files that the stage read. Following these
names from a trained network gives every option and every input on which the network depends.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ktfast.config.run import dotted
from ktfast.durable import read_sealed
from ktfast.errors import DataError, reading, shown
from ktfast.evaluation.json_values import mapping
from ktfast.report.reading import RunReader
from ktfast.report.staleness import source_of
from ktfast.report.summaries import StageResult

ROW = "row.json"
"""File that `ktfast compare GRID` writes into a run folder, with what tells the run from others."""
_CLASSIFIERS = ("classifier", "fc", "head", "heads")
"""Names of the module that holds the classifier of a network."""
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
# Options of the stage transfer that every model of a run shares: architecture and image size.
_STUDENT = ("target", "variant", "width", "batch_norm", "image_size", "crop")


@dataclass(frozen=True)
class Network:
    """One network of one run.

    Attributes
    ----------
    settings : dict
        Value of every option on which the network depends, by dotted name, without the seed.
    inputs : dict of str to str
        Fingerprint of the images and files on which the network depends.
    names : dict
        What tells the run from other runs of its grid, such as "teacher"; empty outside a grid.
    control : bool
        Whether the network's teacher is a control of a grid.
    seconds : float or None
        Time of the stages that made the network from prepared images.
    parameters : int or None
        Number of weights of the network without its classifier.
    """

    settings: dict[str, Any]
    inputs: dict[str, str]
    names: dict[str, Any]
    control: bool
    seconds: float | None
    parameters: int | None


def network_of(run: RunReader, model: str, measured: StageResult) -> Network:
    """Describe a network that a stage has measured.

    Parameters
    ----------
    run : RunReader
        The run.
    model : str
        "transfer", "random", "pretext", "labels", "teacher" or a name of `evaluate.models`.
    measured : StageResult
        Result of the stage that has measured the network.

    Returns
    -------
    network : Network
        Options, inputs and costs.
    """
    stage = model if model == "transfer" else f"baseline_{model}"
    if model == "teacher":
        stage = measured.made_from.get("teacher", "")
    chain = _Chain() if model == "random" else _Chain().follow(run, stage)
    transfer = run.result("transfer")
    student = {} if transfer is None else transfer.settings
    seen = {f"transfer.{key}": student[key] for key in _STUDENT if key in student}
    row = _row_of_grid(run)
    names = mapping(row.get("names"))
    if model == "teacher":  # the student of the run has no part in it
        seen, names = {}, {key: value for key, value in names.items() if key == "teacher"}
    inputs, given = chain.inputs, measured.inputs.get(f"model {model}")
    if given is not None:  # a file of evaluate.models
        seen, inputs = {}, {"evaluate.models": given}
    return Network(
        settings={**chain.settings, **seen},
        inputs=inputs,
        names=names,
        control=model == "transfer" and row.get("control") is True,
        seconds=_total(chain.seconds.values()) if given is None else None,
        parameters=_parameters(run) if given is None and model != "teacher" else None,
    )


@dataclass
class _Chain:
    """Options and inputs on which a network depends, collected from the stages that made it."""

    settings: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float | None] = field(default_factory=dict)

    def follow(self, run: RunReader, stage: str) -> "_Chain":
        result = run.result(stage)
        if result is None or stage in self.seconds:
            return self
        self.seconds[stage] = result.seconds
        if stage == "transfer":
            self.settings["transfer.objective"] = "clusters"  # the only one of earlier versions
        for name, value in dotted(result.settings):
            if name != "seed":
                self.settings[_option(stage, name)] = value
        for name, fingerprint in result.inputs.items():
            source = source_of(stage, name, result)
            made = run.result(source) if source else None
            if made is None or source.startswith("prepare/"):
                self.inputs[f"{stage.partition('/')[0]}.{name}"] = fingerprint
            else:
                self.follow(run, source)
        return self


def _total(times: Iterable[float | None]) -> float | None:
    """Sum of times; None if one of them is unknown."""
    known = list(times)
    return None if None in known else float(sum(time for time in known if time is not None))


def _row_of_grid(run: RunReader) -> dict[str, Any]:
    """Read what a grid recorded about this run; empty outside a grid."""
    path = run.folder / ROW
    if not path.is_file():
        return {}
    try:
        return read_sealed(path, "run the grid again")
    except DataError as error:
        run.notes.append(f"{error}.")
        return {}


def _parameters(run: RunReader) -> int | None:
    """Count the weights of the student's layers, without classifier and running statistics.

    The networks of ktfast, torchvision and timm have the classifier in a module of its own.
    """
    path = run.folder / "transfer" / "weights.safetensors"
    if not path.is_file():
        return None
    try:
        shapes = tensor_shapes(path)
    except DataError as error:
        run.notes.append(f"{error}.")
        return None
    return sum(
        int(np.prod(shape))
        for name, shape in shapes.items()
        if name.partition(".")[0] not in _CLASSIFIERS and not name.endswith(_STATISTICS)
    )


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Read the shapes of the tensors of a safetensors file from its header, without torch.

    Raises
    ------
    DataError
        The file is damaged.
    """
    with reading(path, "a safetensors file", "train the network again"), open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if not 0 < size <= path.stat().st_size:
            raise DataError(f"{shown(path)} has no header of safetensors; train the network again")
        header = json.loads(file.read(size))
        return {
            name: tuple(int(side) for side in entry["shape"])
            for name, entry in header.items()
            if name != "__metadata__"
        }


def _option(stage: str, name: str) -> str:
    """Give the dotted name of an option that a stage records."""
    section, (head, _, rest) = stage.partition("/")[0], name.partition(".")
    if head == "target" and rest:
        return f"transfer.{rest}"
    if head in ("pretext", "cluster") and rest:
        return name
    if (section, name) == ("features", "trunk"):
        return "pretext.trunk"
    return f"{section}.{name}"
