"""Probe the teacher's own features of the labelled images: the ceiling of the transfer."""

import logging

import numpy as np
import numpy.typing as npt

from ktfast.evaluation.results import ProbeRow
from ktfast.features.matching import align
from ktfast.features.store import FeatureStore
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.image_sets import open_set, set_name
from ktfast.pipeline.steps.labelled_sets import labels_of
from ktfast.pipeline.steps.probe_layers import (
    ProbedModel,
    device_of_probe,
    probe_budget,
    with_probes,
)

logger = logging.getLogger(__name__)

TEACHER, LAYER = "teacher", "features"
"""Name of the teacher among the probed networks, and of its only layer."""


def probe_teacher(run: RunFolder) -> ProbedModel | None:
    """Probe the teacher's features, as the layers of networks are probed.

    Parameters
    ----------
    run : RunFolder
        The run. Its stage features has extracted the features of the roles "train" and "test".

    Returns
    -------
    probed : ProbedModel or None
        Accuracies of the layer `LAYER`; None if the features do not fit into memory.
    """
    stores = {role: _store(run, role) for role in ("train", "test")}
    needed = sum(store.n * store.dim * store.dtype.itemsize for store in stores.values())
    if needed > probe_budget(run):
        logger.warning(
            "evaluate: the teacher is not probed, because its features take %.1f GB, more than "
            "data.memory_budget_gb %g; raise it to probe the teacher",
            needed / 1e9,
            run.config.data.memory_budget_gb,
        )
        return None
    x, test_x = (_rows(run, role, store) for role, store in stores.items())
    data = (x, labels_of(run, "train"), test_x, labels_of(run, "test"))
    common = {
        "n_classes": len(open_set(run, "train").classes),
        "epochs": run.config.evaluate.probe_epochs,
        "device": device_of_probe(run, needed),
    }
    found = with_probes(run, ProbedModel(ProbeRow({}, {}, {}, [], {}), {}), LAYER, data, common)
    logger.info(
        "evaluate: teacher %s linear %.1f %%, k-NN %.1f %%",
        LAYER,
        100 * found.row.linear[LAYER],
        100 * found.row.knn[LAYER],
    )
    return found


def _store(run: RunFolder, role: str) -> FeatureStore:
    stage = f"features/{set_name(run, role)}"
    run.result(stage)  # refuses a stage that is not finished
    return FeatureStore.open(run.stage(stage), verify=True)


def _rows(run: RunFolder, role: str, store: FeatureStore) -> npt.NDArray[np.generic]:
    """The features of a role's images, in the order of the images."""
    order = align(np.arange(store.n), store, open_set(run, role))
    return np.asarray(store.read(order))
