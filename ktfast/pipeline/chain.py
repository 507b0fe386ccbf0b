"""Check, before a stage works, that earlier results belong to the present options and images.

A stage reads what earlier stages left in the run folder. If options or image folders have changed
since, the stage would mix old and new results. `check_chain` compares the question of every earlier
stage (`ktfast.pipeline.question`) with the record in the folder, as `ktfast run` does stage by
stage, and changes nothing.
"""

from collections.abc import Iterator

from ktfast.config import Config
from ktfast.errors import ConfigError
from ktfast.pipeline.question import Question, refusal
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.stage_result import read_begun
from ktfast.pipeline.steps.image_sets import set_name, set_names
from ktfast.pipeline.steps.prepared_images import refuse_other_images
from ktfast.pipeline.steps.probed_models import stands_alone
from ktfast.pipeline.steps.questions import (
    cluster_question,
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
            folder = run.stage(name)
            begun = read_begun(run, name)
            if begun and (changes := question.changes(begun)):
                raise ConfigError(refusal(folder, earlier, changes))


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
    else:
        yield stage, transfer_question(run)
