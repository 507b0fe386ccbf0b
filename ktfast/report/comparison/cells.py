"""Read the networks of a run folder for a comparison, with the options and inputs of each network.

The `result.json` of every stage names the stages and files that the stage read. Following these
names from a trained network gives every option and every input on which the network depends. Two
networks whose options and inputs are equal, except for the seed, belong to one row of the table.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ktfast.durable import read_sealed, sha256_json
from ktfast.errors import DataError, reading, shown
from ktfast.evaluation.json_values import mapping
from ktfast.evaluation.results import EvaluationSummary, Layers, by_model
from ktfast.report.reading import RunReader
from ktfast.report.staleness import source_of

ROW = "row.json"
"""File that `ktfast compare GRID` writes into a run folder, with what tells the run from others."""
MEASURES = {
    "linear": "linear probe, mean per-class accuracy",
    "linear_top1": "linear probe, top-1 accuracy",
    "knn": "nearest neighbours, mean per-class accuracy",
}
"""The measures of a comparison, each with its printed name."""
_CLASSIFIERS = ("classifier", "fc", "head", "heads")
"""Names of the module that holds the classifier of a network."""
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
# Options of the stage transfer that every model of a run shares: architecture and image size.
_STUDENT = ("target", "variant", "width", "batch_norm", "image_size", "crop")
# Options of the stage evaluate that choose what is probed. They do not change any accuracy.
_CHOICES = {"seed", "layers", "baselines", "random_clusters", "label_fractions", "retrain"}
_CHOICES |= {"label_counts", "label_draws", "protocols", "teacher"}
_CHOICES |= {"fine_tune", "fine_tune_epochs", "fine_tune_rate"}
_CHOICES |= {"retrain_epochs", "headline", "unlabelled", "pretext", "features", "cluster"}


@dataclass(frozen=True)
class Cell:
    """One network of one run: the student of the stage transfer, or a baseline.

    Attributes
    ----------
    run : RunReader
        The run.
    model : str
        "transfer", "random", "pretext", "labels" or "teacher".
    seed : int or None
        Seed of the run; None if the run does not record its seed.
    settings : dict
        Value of every option on which the network depends, by dotted name, without the seed.
    inputs : dict of str to str
        Fingerprint of the images and files on which the network depends.
    names : dict
        What tells the run from other runs of its grid, such as "teacher"; empty outside a grid.
    control : bool
        Whether the teacher is a control of a grid.
    protocol : dict
        Values that must be equal in two networks whose accuracies are compared.
    scores : dict of str to dict of str to float
        Accuracy by measure and layer, on the test images.
    held_out : dict of str to dict of str to float
        Accuracy on held-out training images by measure and layer; empty if the run has none.
    seconds : float or None
        Time of the stages that made the network from prepared images.
    parameters : int or None
        Number of weights of the network without its classifier.
    stale : str
        Why the accuracies are stale; empty if they are not.
    """

    run: RunReader
    model: str
    seed: int | None
    settings: dict[str, Any]
    inputs: dict[str, str]
    names: dict[str, Any]
    control: bool
    protocol: dict[str, Any]
    scores: dict[str, Layers]
    held_out: dict[str, Layers]
    seconds: float | None
    parameters: int | None
    stale: str = ""

    @property
    def key(self) -> str:
        """Hash of everything that two networks of one row have in common."""
        # The untrained teacher of a grid has other weights for every seed.
        weights = [name for name in self.inputs if self.names and name.endswith(".weights")]
        inputs = {name: mark for name, mark in self.inputs.items() if name not in weights}
        names = self.names if self.model in ("transfer", "teacher") else {}
        return sha256_json([self.model, self.settings, inputs, names, self.stale])

    def predictions(self, measure: str, layer: str) -> dict[str, NDArray[Any]] | None:
        """True and predicted classes of the test images under "labels" and "guess", or None."""
        name = f"{'knn' if measure == 'knn' else 'linear'}_{layer}"
        place = f"evaluate/predictions-{self.model}.npz"
        arrays = self.run.arrays(place, {"labels": 1, name: 1})
        if arrays is None or not all(np.issubdtype(a.dtype, np.integer) for a in arrays.values()):
            return None
        return {"labels": arrays["labels"], "guess": arrays[name]}


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
        for name, value in flat(result.settings):
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


def read_cells(run: RunReader) -> list[Cell]:
    """Read every network of a run that the stage evaluate has probed.

    Parameters
    ----------
    run : RunReader
        The run.

    Returns
    -------
    cells : list of Cell
        The student of the stage transfer first.

    Raises
    ------
    DataError
        The stage evaluate is not finished, or does not record which images it read.
    """
    evaluation, result = run.evaluation(), run.result("evaluate")
    if evaluation is None or result is None or not evaluation.linear:
        if run.unlabelled() is not None:
            raise DataError(
                f"{run.folder} was measured without labels, and runs are compared by probes on "
                "labelled images; run `ktfast evaluate` on it with labelled images as data.train "
                "and data.test"
            )
        raise DataError(
            f"{run.folder} has no finished stage evaluate, so there is nothing to compare; run "
            "`ktfast evaluate` on it first"
        )
    if not result.inputs.get("test"):
        raise DataError(
            f"{run.folder} does not record which test images its stage evaluate read; run "
            "`ktfast evaluate --redo evaluate` on it"
        )
    fixed = {k: v for k, v in result.settings.items() if k not in _CHOICES}
    protocol = {
        "test images": result.inputs["test"],
        "labelled training images": result.inputs.get("train", ""),
        "measure": evaluation.metric,
        **{f"evaluate.{name}": value for name, value in flat(fixed)},
        **{f"probe {name}": value for name, value in flat(evaluation.protocol)},
    }
    return [
        _cell(run, model, evaluation, protocol, result.settings.get("seed"))
        for model in evaluation.linear
    ]


def _cell(
    run: RunReader, model: str, evaluation: EvaluationSummary, protocol: dict[str, Any], seed: Any
) -> Cell:
    result = run.result("evaluate")
    stage = "transfer" if model in ("transfer", "random") else f"baseline_{model}"
    if model == "teacher":
        stage = "" if result is None else result.made_from.get("teacher", "")
    chain = _Chain() if model == "random" else _Chain().follow(run, stage)
    transfer = run.result("transfer")
    student = {} if transfer is None else transfer.settings
    seen = {f"transfer.{key}": student[key] for key in _STUDENT if key in student}
    cell = _grid_cell(run)
    names = mapping(cell.get("names"))
    if model == "teacher":  # the student of the run has no part in it
        seen, names = {}, {key: value for key, value in names.items() if key == "teacher"}
    scores = {measure: getattr(evaluation, measure).get(model, {}) for measure in MEASURES}
    summary = mapping(None if result is None else result.summary)
    held_out = {
        measure: by_model(summary.get(f"{measure.partition('_')[0]}_held_out")).get(model, {})
        for measure in MEASURES
    }
    inputs, given = chain.inputs, None if result is None else result.inputs.get(f"model {model}")
    if given is not None:  # a file of evaluate.models
        seen, inputs = {}, {"evaluate.models": given}
    return Cell(
        run=run,
        model=model,
        seed=seed if isinstance(seed, int) else None,
        settings={**chain.settings, **seen},
        inputs=inputs,
        names=names,
        control=model == "transfer" and cell.get("control") is True,
        protocol=protocol,
        scores={measure: layers for measure, layers in scores.items() if layers},
        held_out={measure: layers for measure, layers in held_out.items() if layers},
        seconds=_total(chain.seconds.values()) if given is None else None,
        parameters=_parameters(run) if given is None and model != "teacher" else None,
        stale=run.stale().get("evaluate", ""),
    )


def _total(times: Iterable[float | None]) -> float | None:
    """Sum of times; None if one of them is unknown."""
    known = list(times)
    return None if None in known else float(sum(time for time in known if time is not None))


def _grid_cell(run: RunReader) -> dict[str, Any]:
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


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the value of every entry of nested mappings."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


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
