"""Check, before a stage works, that earlier results belong to the present options and images.

A stage reads what earlier stages left in the run folder. If options or image folders have changed
since, the stage would mix old and new results. `check_chain` compares the question of every earlier
stage (`ktfast.pipeline.question`) with the record in the folder, as `ktfast run` does stage by
stage, and changes nothing.
"""

import contextlib
import dataclasses
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ktfast.config import Config
from ktfast.errors import ConfigError, DataError
from ktfast.pipeline.question import Question, refusal
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.stage_result import read_begun
from ktfast.pipeline.steps.image_sets import set_name, set_names
from ktfast.pipeline.steps.labelled_sets import labelled_sets
from ktfast.pipeline.steps.prepared_images import refuse_other_images
from ktfast.pipeline.steps.probed_models import stands_alone
from ktfast.pipeline.steps.questions import (
    cluster_question,
    evaluate_question,
    feature_roles,
    features_question,
    needs_clusters,
    pretext_question,
    transfer_question,
)

_ORDER = ("prepare", "pretext", "features", "cluster", "transfer", "evaluate", "voc")


def check_chain(run: RunFolder, stage: str) -> None:
    """Refuse to start a stage that would read something else than what is asked for.

    Parameters
    ----------
    run : RunFolder
        The run.
    stage : str
        The stage that is about to start.

    Raises
    ------
    ConfigError
        An earlier stage was begun with other options, images or artifacts. The message shows the
        differences, and names both image folders if the images differ.
    """
    if stage == "prepare":
        return
    for name in dict.fromkeys(set_names(run.config).values()):
        refuse_other_images(run, name)
    if stage == "evaluate" and stands_alone(run):
        return
    for earlier in needed_before(run.config, stage):
        for name, question in _questions(run, earlier):
            _refuse_change(run, name, earlier, question)


def check_settings(run: RunFolder, stages: Collection[str], redo: Collection[str]) -> None:
    """Refuse changed options of a stage before an earlier stage works for hours.

    Only options are compared: an earlier stage that is done again may give the same result.

    Parameters
    ----------
    run : RunFolder
        The run, whose images are prepared.
    stages : collection of str
        The stages that will be run.
    redo : collection of str
        Stages whose results are removed first.

    Raises
    ------
    ConfigError
        A stage that is not redone was begun with other options.
    """
    for stage in _ORDER[1:-1]:
        if stage not in stages or stage in redo:
            continue
        if stage == "evaluate" and stands_alone(run) != stands_alone(run, stages):
            continue  # the stage transfer comes first, and the question of evaluate depends on it
        if stage == "evaluate" and not labelled_sets(run.config) and not stands_alone(run):
            continue  # the stage measures without labels only, and probes nothing
        # If a file is damaged, the stage that made it makes it again in its turn.
        with contextlib.suppress(DataError):
            _compare_options(run, stage)


def _compare_options(run: RunFolder, stage: str) -> None:
    """Refuse changed options of one stage."""
    for name, question in _questions(run, stage):
        begun = read_begun(run, name)
        options = dataclasses.replace(question, inputs={})
        recorded = {**begun, "inputs": {}}
        if begun and not options.only_varies(recorded):
            raise ConfigError(refusal(run.stage(name), stage, options.changes(recorded)))


def check_centers(run: RunFolder) -> None:
    """Refuse centres that do not belong to the features that the teacher gives now.

    Parameters
    ----------
    run : RunFolder
        A run with a finished stage cluster.

    Raises
    ------
    ConfigError
        The teacher has changed since the stage features, or the features since the stage cluster.
        The message shows the differences.
    """
    name = f"features/{set_name(run, 'cluster')}"
    _refuse_change(run, name, "features", features_question(run, "cluster"))
    question, begun = cluster_question(run), read_begun(run, "cluster")
    # The centres do not depend on the images that the stage labelled.
    own = dataclasses.replace(question, inputs=_of_centers(question.inputs))
    if begun and (changes := own.changes({**begun, "inputs": _of_centers(begun["inputs"])})):
        raise ConfigError(refusal(run.stage("cluster"), "cluster", changes))


def _of_centers(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of the stage cluster on which the centres depend."""
    return {name: value for name, value in inputs.items() if name == "features"}


def _refuse_change(run: RunFolder, name: str, stage: str, question: Question) -> None:
    """Refuse if a part of a stage was begun with another question."""
    begun = read_begun(run, name)
    if begun and (changes := question.changes(begun)):
        raise ConfigError(refusal(run.stage(name), stage, changes))


def needed_before(config: Config, stage: str) -> list[str]:
    """List the stages after prepare whose results a stage depends on, in order."""
    before = set(_ORDER[: _ORDER.index(stage)]) - {"prepare", "evaluate"}
    if stage == "voc" and "transfer" not in config.voc.models:
        return []
    if config.cluster.features is not None:
        before -= {"pretext", "features"}
    elif not config.features.learns:
        before -= {"pretext"}
    if config.transfer.objective != "clusters":
        # The target learns features. Only the measures without labels read clusters.
        before -= set() if stage == "evaluate" and needs_clusters(config) else {"cluster"}
    return [name for name in _ORDER if name in before]


def _questions(run: RunFolder, stage: str) -> Iterator[tuple[str, Question]]:
    """Yield the name and the question of each part of a stage."""
    if stage == "pretext":
        yield stage, pretext_question(run)
    elif stage == "features":
        for role in feature_roles(run):
            yield f"features/{set_name(run, role)}", features_question(run, role)
    elif stage == "cluster":
        yield stage, cluster_question(run)
    elif stage == "transfer":
        yield stage, transfer_question(run)
    elif (run.stage(stage) / "begun.json").is_file():
        yield stage, evaluate_question(run)
