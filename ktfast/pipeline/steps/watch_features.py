"""Watch the features of a network while it learns a pretext task."""

from pathlib import Path
from typing import Any

from ktfast.images.source import PreparedSet
from ktfast.models import Trunk
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.best_weights import BestWeights
from ktfast.pipeline.steps.networks import pretext_preprocessing, save_network
from ktfast.pretext.neighbours import Judge, clustered_rows, judged_rows
from ktfast.training.progress import logged
from ktfast.training.watch import Watch


def watch_features(run: RunFolder, trunk: Trunk, images: PreparedSet, folder: Path) -> Watch | None:
    """Watch the features of a pretext network, and keep its best weights.

    Parameters
    ----------
    run : RunFolder
        The run.
    trunk : Trunk
        The network.
    images : PreparedSet
        Images that the network is trained on.
    folder : Path
        Receives the best weights. A training on images without classes has none.

    Returns
    -------
    watch : Watch or None
        None if there are too few images, or if the user asks for no measures.
    """
    config = run.config.pretext
    rows = judged_rows(images.labels)
    has_classes = len(rows) > 0
    if not has_classes:
        rows = clustered_rows(images.n)
    if not config.feature_measures or not len(rows):
        return None
    judge = Judge(
        trunk,
        images,
        rows,
        short_side=images.short_side,
        size=config.crop,
        n_threads=run.config.threads or None,
    )
    if not has_classes:
        return Watch(config.feature_measures, lambda step: _known(agreement=judge.agreement()))
    best = BestWeights(
        folder, lambda path: save_network(trunk, path, pretext_preprocessing(run.config))
    )

    def measure(step: int) -> dict[str, float]:
        found = judge.accuracy()
        if step > 0 and found is not None:
            best.offer(step, found)
        return _known(neighbours=found)

    return Watch(config.feature_measures, measure)


def _known(**figures: float | None) -> dict[str, float]:
    """Leave out the figures that could not be measured."""
    return {name: figure for name, figure in figures.items() if figure is not None}


def judged_features(run: RunFolder, name: str) -> dict[str, Any]:
    """Look up the measures before and after a training, for its result.

    Parameters
    ----------
    run : RunFolder
        The run.
    name : str
        Name of the training in metrics.jsonl.

    Returns
    -------
    measures : dict
        For each measure that was taken, its values "untrained" and "trained".
    """
    measures = {}
    for figure in ("neighbours", "agreement"):
        found = logged(run.metrics, name, figure)
        if len(found) >= 2 and found[0][0] == 0:
            measures[figure] = {"untrained": found[0][1], "trained": found[-1][1]}
    return measures
