"""The runner: every stage in order on one run folder, then the report.

`ktfast.run` is the function `run` of this file. The command line calls it too.
"""

import importlib
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ktfast.errors import InputError, shown
from ktfast.pipeline.stage_names import PARTS, STAGES

if TYPE_CHECKING:
    from ktfast.config import Config
    from ktfast.pipeline.run_folder import RunFolder
    from ktfast.pipeline.team import Team

_logger = logging.getLogger(__name__)


def run(
    config: "Config | Mapping[str, Any] | str | os.PathLike[str]",
    folder: str | os.PathLike[str],
    *,
    stages: Sequence[str] | None = None,
    redo: Collection[str] = (),
    trust_source: bool | None = None,
    shared: str | os.PathLike[str] | None = None,
    team: "Team | None" = None,
) -> Path | None:
    """Run the pipeline, or some of its stages, on a run folder.

    A finished stage is skipped, and an interrupted stage continues from its last checkpoint. If
    several stages are asked for, stages that the options do not call for are skipped, and the
    report is written at the end. Before anything is computed, the options are checked against each
    other and against the image folders, and the results of earlier stages are compared with what is
    asked. If the images are not prepared yet, prepare runs first.

    Parameters
    ----------
    config : Config, mapping or path
        The options. A mapping gives values by option name, such as
        ``{"data.pretext": "photos/", "cluster.n_clusters": 500}``. A path names a TOML file, for
        example the run folder's own ``config.toml``, or a recipe that ktfast ships, such as
        "tiny_cpu".
    folder : path
        The run folder. It is created if it does not exist.
    stages : sequence of str, optional
        Names of stages (see `STAGES`), in order. None: all stages that the options call for.
    redo : collection of str
        Stages, or names from `PARTS`, whose earlier results are removed first.
    trust_source : bool, optional
        Whether the function that `features.source` names, and the class that `pretext.task` names,
        may be imported and called. None: yes if `config` gives the options themselves, no if
        `config` is the path of a file.
    shared : path, optional
        Folder of results that several runs share, also at a time. Prepared images, puzzle networks,
        features, clusters and baselines that another run has made from the same options and inputs
        are taken from the folder. The folder is created if it does not exist.
    team : Team, optional
        The processes that share the work; rank 0 calls this function, and the other processes call
        `ktfast.pipeline.team.TorchTeam.serve`. None: this process works alone.

    Returns
    -------
    report : Path or None
        The HTML report. None if only one stage was asked for.

    Raises
    ------
    InputError
        An option, a stage name or an image folder is not usable, or the run folder holds results
        of other options.
    TypeError
        `config` is neither a Config, nor a mapping, nor a path.

    Examples
    --------
    >>> ktfast.run({"data.pretext": "photos/", "cluster.n_clusters": 50}, "runs/mine")
    PosixPath('runs/mine/report.html')
    """
    from ktfast.pipeline.environment import torch_threads
    from ktfast.pipeline.run_folder import open_run
    from ktfast.pipeline.team import ONE

    team = ONE if team is None else team
    options, folder = _configuration(config), Path(folder)
    if trust_source is None:
        trust_source = not isinstance(config, str | os.PathLike)
    wanted = list(STAGES) if stages is None else _names("stages", stages)
    again = _names("redo", redo)
    _check_names(wanted, again)
    # The protocols on PASCAL VOC read images of their own.
    on_voc = wanted == ["voc"] and bool(options.voc.protocols())
    if not folder.exists() and not options.folders() and not on_voc:
        raise InputError(
            f"there is no run folder {folder}, and data.pretext is not set: give the folder of an "
            "earlier run, or the folder of the training images as data.pretext"
        )
    with (
        torch_threads(options.threads),
        open_run(
            folder,
            options,
            trust_source=trust_source,
            shared=Path(shared) if shared else None,
            team=team,
        ) as run_folder,
        team.explaining(),
    ):
        if len(wanted) == 1:
            _execute_stages(run_folder, wanted, again)
            return None
        # If a library of the report is missing, this import fails now, not hours later.
        from ktfast.report import write_report

        _execute_stages(run_folder, wanted, again)
        return write_report(folder)


def _configuration(config: "Config | Mapping[str, Any] | str | os.PathLike[str]") -> "Config":
    from ktfast.config import Config, load_config

    if isinstance(config, Config):
        return config
    if isinstance(config, Mapping):
        return load_config(None, config)
    if isinstance(config, str | os.PathLike):
        return load_config(config)
    raise TypeError(
        f"config must be a Config, a mapping or the path of a TOML file, got {config!r}"
    )


def _names(argument: str, names: Collection[str]) -> list[str]:
    if isinstance(names, str):
        raise InputError(f"{argument} must be a list of names such as [{names!r}], got {names!r}")
    return list(names)


def _check_names(stages: Sequence[str], redo: Sequence[str]) -> None:
    unknown = [name for name in stages if name not in STAGES]
    if unknown or not stages:
        got = repr(unknown[0]) if unknown else "no stage"
        raise InputError(f"stages: expected names from {', '.join(STAGES)}, got {got}")
    done = {*stages, *(PARTS if "evaluate" in stages else ())}
    if useless := sorted(set(redo) - done):
        raise InputError(
            f"redo: expected names from {', '.join(sorted(done))}, because no other stage is run "
            f"now, got {useless[0]!r}"
        )


def _execute_stages(run_folder: "RunFolder", stages: Sequence[str], redo: Collection[str]) -> None:
    from ktfast.pipeline.chain import check_chain, check_settings
    from ktfast.pipeline.feasibility import check_feasible
    from ktfast.pipeline.run_folder import record_configuration, record_options
    from ktfast.pipeline.steps.image_sets import is_prepared
    from ktfast.pipeline.steps.lanes import check_lanes
    from ktfast.pipeline.steps.outlook import log_outlook, warn_of_the_papers_size

    _check_trust(run_folder, stages, redo)
    check_lanes(run_folder, stages)
    ready = "prepare" not in stages and is_prepared(run_folder)
    if ready:
        check_chain(run_folder, stages[0])
    check_feasible(run_folder, stages, prepared=ready)
    if "prepare" not in stages and not ready:
        _execute(run_folder, "prepare", ())
        check_chain(run_folder, stages[0])
        check_feasible(run_folder, stages, prepared=True)
    config = run_folder.config
    needed = [stage for stage in stages if len(stages) == 1 or not _needless(config, stage)]
    warn_of_the_papers_size(config, needed)
    if "prepare" not in stages:
        log_outlook(run_folder, needed, redo)
    for stage in stages:
        if stage not in needed:
            _logger.info("%s: left out, because %s", stage, _needless(config, stage))
            continue
        _execute(run_folder, stage, redo)
        if stage == "prepare":
            check_feasible(run_folder, stages, prepared=True)
            check_settings(run_folder, needed, redo)
            log_outlook(run_folder, needed, redo)
    # A stage that works has recorded the configuration. Not earlier: a call that corrects refused
    # options must not read them from this file.
    if not (run_folder.folder / "config.toml").is_file():
        record_configuration(run_folder)
    elif set(STAGES) <= set(stages):
        # All results fit these options, also if every stage was up to date. The file may hold the
        # options of a command that was refused after some work.
        record_options(run_folder)


def _check_trust(run_folder: "RunFolder", stages: Sequence[str], redo: Collection[str]) -> None:
    """Refuse code that only a file names, before hours of work; finished stages need no code."""
    from ktfast.pipeline.steps.pretext_tasks import check_task_trust, runs_task
    from ktfast.pipeline.steps.teacher import check_trust

    def is_done(stage: str) -> bool:
        folder = run_folder.stage(stage)
        made = (folder / "result.json").is_file() or any(folder.glob("*/result.json"))
        return made and stage not in redo

    for stage in stages:
        if _needless(run_folder.config, stage) or is_done(stage):
            continue
        if stage == "features":
            check_trust(run_folder)
        if runs_task(run_folder.config, stage):
            check_task_trust(run_folder)


def _execute(run_folder: "RunFolder", stage: str, redo: Collection[str]) -> None:
    from ktfast.pipeline.stage_result import discard

    if stage == "evaluate":
        for part in set(redo).intersection(PARTS):
            discard(run_folder.stage(part))
            run_folder.redone.add(part)
    module = importlib.import_module(f"ktfast.pipeline.stages.{stage}")
    module.execute(run_folder, redo=stage in redo)


def _needless(config: "Config", stage: str) -> str | None:
    """Say why a run of several stages does not need a stage; None if the stage is needed."""
    from ktfast.pipeline.steps.questions import needs_clusters

    if stage in ("pretext", "features") and config.cluster.features is not None:
        return f"cluster.features is {shown(config.cluster.features)}"
    if stage == "pretext" and not config.features.learns:
        return f"the features come from {shown(config.features.weights or config.features.source)}"
    if stage == "cluster" and not needs_clusters(config):
        return f"transfer.objective is {config.transfer.objective}, which learns no clusters"
    if stage == "voc" and not config.voc.protocols():
        return "no PASCAL VOC folder is set"
    return None
