"""Read what the stages evaluate and voc measured on the networks of a run folder.

Two networks whose options and inputs are equal, except for the seed, belong to one row of the
table.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ktfast.config.run import dotted
from ktfast.durable import sha256_json
from ktfast.errors import DataError
from ktfast.evaluation.json_values import mapping
from ktfast.evaluation.results import Layers, by_model
from ktfast.evaluation.voc_results import VocRow, VocSummary
from ktfast.report.comparison.networks import Network, network_of
from ktfast.report.reading import RunReader
from ktfast.report.summaries import StageResult
from ktfast.report.voc import PROTOCOLS, TESTS

PROBES = {
    "linear": "linear probe, mean per-class accuracy",
    "linear_top1": "linear probe, top-1 accuracy",
    "knn": "nearest neighbours, mean per-class accuracy",
}
"""The measures of the stage evaluate, each with its printed name."""
MEASURES = {
    **PROBES,
    "classification": "PASCAL VOC classification, mean average precision",
    "detection": "PASCAL VOC detection, mean average precision",
    "segmentation": "PASCAL VOC segmentation, mean intersection over union",
    "svm": "support vector machines on PASCAL VOC, mean average precision",
}
"""The measures of a comparison, each with its printed name."""
UNITS = {"classification": "mAP", "detection": "mAP", "segmentation": "mIoU", "svm": "mAP"}
"""Short names of the measures that are no accuracies."""
ALL_LAYERS = "all"
"""Stands for the layer of a network that was fine-tuned as a whole."""
# Options of the stage evaluate that choose what is probed. They do not change any accuracy.
_CHOICES = {"seed", "layers", "baselines", "random_clusters", "label_fractions", "retrain"}
_CHOICES |= {"label_counts", "label_draws", "protocols", "teacher"}
_CHOICES |= {"fine_tune", "fine_tune_epochs", "fine_tune_rate"}
_CHOICES |= {"retrain_epochs", "headline", "unlabelled", "pretext", "features", "cluster"}
# Options of the stage voc that do not change how a network is trained and tested. The photographs
# of an image set are compared, and not the name of the set.
_VOC_CHOICES = {"seed", "models", "target", "tests", "train", "test", "shots", "samples"}


@dataclass(frozen=True)
class Cell:
    """What one stage measured on one network of one run.

    Attributes
    ----------
    run : RunReader
        The run.
    stage : str
        The stage: "evaluate", or the stage of a protocol such as "voc/detection".
    model : str
        "transfer", "random", "pretext", "labels", "teacher" or a name of `evaluate.models`.
    seed : int or None
        Seed of the run; None if the run does not record its seed.
    network : Network
        Options and inputs on which the network depends, and its costs.
    protocol : dict
        Values that must be equal in two networks whose scores are compared.
    images : int or None
        Number of test images.
    scores : dict of str to dict of str to float
        Score by measure and layer, on the test images.
    held_out : dict of str to dict of str to float
        Accuracy on held-out training images by measure and layer; empty if the run has none.
    stale : str
        Why the scores are stale; empty if they are not.
    """

    run: RunReader
    stage: str
    model: str
    seed: int | None
    network: Network
    protocol: dict[str, Any]
    images: int | None
    scores: dict[str, Layers]
    held_out: dict[str, Layers]
    stale: str

    @property
    def settings(self) -> dict[str, Any]:
        """Options on which the network depends; see `Network`."""
        return self.network.settings

    @property
    def names(self) -> dict[str, Any]:
        """What tells the run from other runs of its grid; see `Network`."""
        return self.network.names

    @property
    def key(self) -> str:
        """Hash of everything that two networks of one row have in common."""
        network = self.network
        # The untrained teacher of a grid has other weights for every seed.
        weights = [name for name in network.inputs if network.names and name.endswith(".weights")]
        inputs = {name: mark for name, mark in network.inputs.items() if name not in weights}
        names = network.names if self.model in ("transfer", "teacher") else {}
        return sha256_json([self.model, network.settings, inputs, names, self.stale])

    def predictions(self, measure: str, layer: str) -> dict[str, NDArray[Any]] | None:
        """True and predicted classes of the test images under "labels" and "guess", or None."""
        if measure not in PROBES:
            return None
        name = f"{'knn' if measure == 'knn' else 'linear'}_{layer}"
        place = f"evaluate/predictions-{self.model}.npz"
        arrays = self.run.arrays(place, {"labels": 1, name: 1})
        if arrays is None or not all(np.issubdtype(a.dtype, np.integer) for a in arrays.values()):
            return None
        return {"labels": arrays["labels"], "guess": arrays[name]}


def read_cells(run: RunReader) -> list[Cell]:
    """Read every measured network of a run.

    Parameters
    ----------
    run : RunReader
        The run.

    Returns
    -------
    cells : list of Cell
        What the stage evaluate measured, then what the protocols of the stage voc measured.

    Raises
    ------
    DataError
        Neither the stage evaluate nor the stage voc is finished, or the stage evaluate does not
        record which images it read.
    """
    tested = list(_voc_cells(run))
    evaluation, result = run.evaluation(), run.result("evaluate")
    if evaluation is None or result is None or not evaluation.linear:
        if tested:
            return tested
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
    return [*_probe_cells(run, result), *tested]


def _probe_cells(run: RunReader, result: StageResult) -> Iterator[Cell]:
    """Read the probes of every network."""
    evaluation = run.evaluation()
    assert evaluation is not None
    fixed = {k: v for k, v in result.settings.items() if k not in _CHOICES}
    protocol = {
        "task": "",
        "test images": result.inputs["test"],
        "labelled training images": result.inputs.get("train", ""),
        "measure": evaluation.metric,
        **{f"evaluate.{name}": value for name, value in dotted(fixed)},
        **{f"probe {name}": value for name, value in dotted(evaluation.protocol)},
    }
    place = result.made_from.get("test", "").removeprefix("prepare/") or "test"
    prepared = run.prepared().get(place)
    images = None if prepared is None or prepared.images is None else int(prepared.images)
    summary = mapping(result.summary)
    for model in evaluation.linear:
        scores = {measure: getattr(evaluation, measure).get(model, {}) for measure in PROBES}
        held_out = {
            measure: by_model(summary.get(f"{measure.partition('_')[0]}_held_out")).get(model, {})
            for measure in PROBES
        }
        yield _cell(
            run,
            "evaluate",
            model,
            protocol=protocol,
            images=images,
            scores={measure: layers for measure, layers in scores.items() if layers},
            held_out={measure: layers for measure, layers in held_out.items() if layers},
        )


def _voc_cells(run: RunReader) -> Iterator[Cell]:
    """Read the scores of every network on PASCAL VOC; further tests of a detector too."""
    for protocol in PROTOCOLS:
        stage = f"voc/{protocol}"
        summary, result = run.voc(protocol), run.result(stage)
        if summary is None or result is None:
            continue
        for model, row in summary.models.items():
            for test in (row, *row.tests.values()):
                if test.score is None:
                    continue
                layer = str(test.protocol.get("layer", ALL_LAYERS))
                yield _cell(
                    run,
                    stage,
                    model,
                    protocol=_voc_protocol(protocol, summary, test, result),
                    images=summary.images.get("test"),
                    scores={protocol: {layer: test.score}},
                    held_out={},
                )


def _voc_protocol(
    protocol: str, summary: VocSummary, row: VocRow, result: StageResult
) -> dict[str, Any]:
    """Collect what must be equal in two runs whose scores on PASCAL VOC are compared."""
    test = str(row.protocol.get("test", "training"))
    scales = "" if test == "training" else f", {TESTS.get(test, test)}"
    fixed = {k: v for k, v in result.settings.items() if k not in _VOC_CHOICES}
    names = {"train": "training photographs", "test": "test photographs"}
    names |= {f"{role}_proposals": f"{role} proposals" for role in names}
    return {
        "task": f"{protocol}{scales}",
        **{text: result.inputs[role] for role, text in names.items() if role in result.inputs},
        "measure": summary.measure,
        **{f"voc.{protocol}.{name}": value for name, value in dotted(fixed)},
    }


def _cell(
    run: RunReader,
    stage: str,
    model: str,
    *,
    protocol: dict[str, Any],
    images: int | None,
    scores: dict[str, Layers],
    held_out: dict[str, Layers],
) -> Cell:
    """Describe what a finished stage has measured on a network."""
    result = run.result(stage)
    assert result is not None
    seed = result.settings.get("seed")
    return Cell(
        run=run,
        stage=stage,
        model=model,
        seed=seed if isinstance(seed, int) else None,
        network=network_of(run, model, result),
        protocol=protocol,
        images=images,
        scores=scores,
        held_out=held_out,
        stale=run.stale().get(stage, ""),
    )
