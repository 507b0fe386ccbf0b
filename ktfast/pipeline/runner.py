"""The runner: every stage in order on one run folder, then the report.

`ktfast.run` is this function; the command line calls it too.
"""

import importlib
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ktfast.errors import InputError

if TYPE_CHECKING:
    from ktfast.config import Config

_logger = logging.getLogger(__name__)

STAGES = {
    "prepare": "decode every image once, resize it and store it for fast feeds",
    "pretext": "train the deep network on Jigsaw++",
    "features": "extract the features that are clustered",
    "cluster": "K-means and a pseudo-label for every image",
    "transfer": "train the target network on the pseudo-labels",
    "evaluate": "linear and k-NN probes of every conv layer, beside baselines",
    "voc": "fine-tune on PASCAL VOC: classification, detection, segmentation",
}
"""The stages in the order of their execution, each with its purpose."""
BASELINES = ("baseline_pretext", "baseline_labels")
"""Trainings that the stage `evaluate` does for its baselines; `redo` accepts their names."""


def run(
    config: "Config | Mapping[str, Any] | str | os.PathLike[str]",
    folder: str | os.PathLike[str],
    *,
    stages: Sequence[str] | None = None,
    redo: Collection[str] = (),
) -> Path | None:
    """Run the pipeline, or some of its stages, on a run folder.

    A finished stage is skipped, and an interrupted stage continues from its last checkpoint.
    Several stages are checked against each other before the long ones begin, and the report
    follows the last stage. A single stage has its images prepared if they are not.

    Parameters
    ----------
    config : Config, mapping of option names to values, or path of a TOML file
        The options, such as ``{"data.pretext": "photos/", "cluster.n_clusters": 500}``.
    folder : path
        The run folder. It is created if it does not exist.
    stages : sequence of str, optional
        Names of stages (see `STAGES`), in order. None: all stages that the options call for.
    redo : collection of str
        Stages, or names from `BASELINES`, whose earlier results are thrown away first.

    Returns
    -------
    Path or None
        The HTML report; None if only one stage was asked for.

    Raises
    ------
    InputError
        An option, a stage name or an image folder is not usable, or the run folder holds results
        of other options.
    """
    from ktfast.config import Config, load_config
    from ktfast.pipeline.run_folder import open_run

    if isinstance(config, str | os.PathLike):
        config = load_config(Path(config), {})
    elif not isinstance(config, Config):
        config = load_config(None, dict(config))
    wanted = list(STAGES) if stages is None else list(stages)
    _check_names(wanted, redo)
    if config.threads:
        import torch

        torch.set_num_threads(config.threads)
    with open_run(folder, config) as run_folder:
        if len(wanted) == 1:
            _execute_one(run_folder, wanted[0], redo)
            return None
        return _execute_all(run_folder, wanted, redo)


def _check_names(stages: Sequence[str], redo: Collection[str]) -> None:
    unknown = [name for name in stages if name not in STAGES]
    if unknown or not stages:
        got = repr(unknown[0]) if unknown else "no stage"
        raise InputError(f"stages: expected names from {', '.join(STAGES)}, got {got}")
    done = {*stages, *(BASELINES if "evaluate" in stages else ())}
    if useless := sorted(set(redo) - done):
        raise InputError(f"--redo {useless[0]}: this command does {', '.join(sorted(done))} only")


def _execute_one(run_folder: Any, stage: str, redo: Collection[str]) -> None:
    from ktfast.pipeline.steps.image_sets import is_prepared

    if stage != "prepare" and not is_prepared(run_folder):
        _execute(run_folder, "prepare", ())
    _execute(run_folder, stage, redo)


def _execute_all(run_folder: Any, stages: Sequence[str], redo: Collection[str]) -> Path:
    from ktfast.pipeline.feasibility import check_feasible
    from ktfast.pipeline.steps.image_sets import is_prepared
    from ktfast.report import write_report

    if "prepare" not in stages and not is_prepared(run_folder):
        _execute(run_folder, "prepare", ())
    for stage in stages:
        if reason := _needless(run_folder.config, stage):
            _logger.info("%s: left out, %s", stage, reason)
            continue
        _execute(run_folder, stage, redo)
        if stage == "prepare":
            check_feasible(run_folder)
    return write_report(run_folder.folder)


def _execute(run_folder: Any, stage: str, redo: Collection[str]) -> None:
    from ktfast.pipeline.stage_result import discard

    if stage == "evaluate":
        for baseline in set(redo).intersection(BASELINES):
            discard(run_folder.stage(baseline))
    module = importlib.import_module(f"ktfast.pipeline.stages.{stage}")
    module.execute(run_folder, redo=stage in redo)


def _needless(config: "Config", stage: str) -> str | None:
    """Why a whole run can do without a stage, or None."""
    if stage in ("pretext", "features") and config.cluster.features is not None:
        return f"the features are {config.cluster.features}"
    if stage == "pretext" and (config.features.source != "pretext" or config.features.weights):
        return f"the features come from {config.features.weights or config.features.source}"
    if stage == "evaluate" and config.data.test is None:
        return "data.test is not set"
    if stage == "voc" and not config.voc.protocols():
        return "no PASCAL VOC folder is set"
    return None
