"""Fine-tune whole networks on shares of the labels (`evaluate.fine_tune`).

The images of a share and of a draw are those that the linear probes see, so that both can be
compared. Without shares, the networks learn from all labels.
"""

import logging
from dataclasses import replace
from pathlib import Path

import torch

from ktfast.durable import write_sealed
from ktfast.evaluation.json_values import Json
from ktfast.evaluation.low_label import Share, draw_seed, labelled_share
from ktfast.evaluation.results import LowLabelRow
from ktfast.images.balance import Subset
from ktfast.models import TargetNetwork, load_weights
from ktfast.pipeline.question import as_json
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.stage_result import stored_row
from ktfast.pipeline.steps.begun_trainings import begun_training
from ktfast.pipeline.steps.image_sets import open_set
from ktfast.pipeline.steps.labelled_sets import LabelledSet, labels_of
from ktfast.pipeline.steps.learn_labels import learn_labels
from ktfast.pipeline.steps.probe_layers import shares_of
from ktfast.pipeline.steps.probed_models import ProbedNetwork, probed_network
from ktfast.pipeline.steps.questions import fine_tune_question, fine_tuning

logger = logging.getLogger(__name__)

WHOLE = "whole network"
"""Stands in the results in place of a layer."""


def stored_fine_tuning(
    run: RunFolder, folder: Path, name: str, images: LabelledSet
) -> list[LowLabelRow]:
    """Give the accuracies of a network that is fine-tuned on each share; train what is missing.

    Parameters
    ----------
    run : RunFolder
        The run.
    folder : Path
        Folder of the stage evaluate.
    name : str
        Name of the network.
    images : LabelledSet
        Training and test images.

    Returns
    -------
    rows : list of LowLabelRow
        One row per share, with the draws that the options ask for.
    """
    network, file = probed_network(run, name), images.file_of(name)
    path, asked = folder / f"finetuned-{file}.json", as_json(fine_tune_question(run, name, images))
    stored = stored_row(path)
    if stored is None or stored.get("asked") != asked:
        stored = {"rows": [], "asked": asked}
    rows = {_key(row): row for row in map(LowLabelRow.from_json, stored["rows"])}
    shares, draws = shares_of(run.config) or [Share(fraction=1.0)], run.config.evaluate.label_draws
    for share in shares:
        key = (share.fraction, share.count)
        row = rows.get(key) or LowLabelRow(share.fraction, {}, 0, {}, share.count)
        for draw in range(len(row.of_draws(WHOLE)), draws):
            title = f"{file}-{share.count or format(share.fraction, 'g')}-{draw}"
            with begun_training(folder / f"finetuning-{title}", asked) as checkpoints:
                row = rows[key] = _with_draw(
                    run, checkpoints, network, images, row, share, draw, name=title
                )
                write_sealed(path, _json(rows, asked))
    return [rows[share.fraction, share.count].of([WHOLE], draws) for share in shares]


def _key(row: LowLabelRow) -> tuple[float | None, int | None]:
    return row.fraction, row.count


def _json(rows: dict[tuple[float | None, int | None], LowLabelRow], asked: Json) -> Json:
    return {"rows": [row.to_json() for row in rows.values()], "asked": asked}


def _with_draw(
    run: RunFolder,
    folder: Path,
    network: ProbedNetwork,
    images: LabelledSet,
    row: LowLabelRow,
    share: Share,
    draw: int,
    *,
    name: str,
) -> LowLabelRow:
    """Fine-tune the network on one draw of a share, and add the accuracy to the row."""
    seed, labels = draw_seed(run.config.seed, draw), labels_of(run, images.train, images)
    chosen = labelled_share(labels, share, seed=seed)
    logger.info("evaluate: fine-tuning %s on %d images", images.file_of(network.name), len(chosen))
    scores = learn_labels(
        run,
        network,
        _network(network, len(open_set(run, images.train).classes), seed),
        images,
        folder,
        training=fine_tuning(run.config),
        name=f"finetune_{name}",
        seed=seed,
        subset=Subset(chosen, len(labels)),
    )
    accuracy = scores.mean_per_class
    logger.info("evaluate: %s fine-tuned %.1f %%", name, 100 * accuracy)
    protocol = {**scores.protocol, "learning_rate": fine_tuning(run.config).learning_rate}
    new = row.with_draw(WHOLE, accuracy, {**protocol, "steps": scores.steps})
    return replace(new, images=len(chosen))


def _network(network: ProbedNetwork, n_classes: int, seed: int) -> TargetNetwork:
    """Build the network with its weights and a new classifier, on the CPU."""
    state = network.build().state_dict()
    torch.manual_seed(seed)
    model = network.fresh(n_classes)
    load_weights(model, state)
    return model
