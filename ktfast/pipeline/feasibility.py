"""Check a run before its long stages: options, images, networks and probes must fit each other.

The runner checks the list of image files before it prepares them, and the prepared images again, so
that a mistake is not found hours later. The networks are built on torch's meta device, which checks
shapes and takes no memory.
"""

import logging
from collections.abc import Collection

import numpy as np
import torch

from ktfast.config import Config
from ktfast.errors import ConfigError, DataError
from ktfast.images.index import ImageIndex
from ktfast.images.source import PreparedSet
from ktfast.models import Trunk
from ktfast.models.trunk import HIDDEN
from ktfast.pipeline.environment import resolve_device
from ktfast.pipeline.halves import check_halves, check_voc_halves
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.fine_tune_voc import check_protocol, open_proposals, open_sets
from ktfast.pipeline.steps.foreign_features import check_photographs
from ktfast.pipeline.steps.image_sets import open_set, set_name
from ktfast.pipeline.steps.inspect_voc import inspect_voc
from ktfast.pipeline.steps.labelled_sets import LabelledSet, labelled_sets
from ktfast.pipeline.steps.learn_features import check_learnt_features
from ktfast.pipeline.steps.model_facts import teacher_crops
from ktfast.pipeline.steps.networks import pretext_trunk, target_network, target_trunk
from ktfast.pipeline.steps.prepared_images import listed_images
from ktfast.pipeline.steps.pretext_tasks import learns_task, may_load_task, try_task
from ktfast.pipeline.steps.probe_layers import check_probe_memory
from ktfast.pipeline.steps.probed_models import (
    check_model_files,
    probed_layers,
    probed_network,
    stands_alone,
)
from ktfast.pipeline.steps.questions import feature_folders, needs_clusters
from ktfast.pipeline.steps.svm_voc import check_svm
from ktfast.pipeline.steps.teacher import check_models, check_source, try_teacher
from ktfast.pipeline.steps.trunk_layers import teacher_trunk
from ktfast.pretext.effort import too_few_puzzles
from ktfast.pretext.neighbours import NEIGHBOURS, judged_rows
from ktfast.pretext.registry import build_pretext, pretext_class
from ktfast.training.precision import computing_dtype

logger = logging.getLogger(__name__)

Sets = dict[str, ImageIndex | PreparedSet]


def check_feasible(run: RunFolder, stages: Collection[str], *, prepared: bool) -> None:
    """Check images, networks and probes of a run against each other.

    Parameters
    ----------
    run : RunFolder
        The run.
    stages : collection of str
        Stages that will be run. What only other stages need is not checked. With the stage prepare,
        every option is checked, because the run has just begun. A file of features, of weights or
        of a model is looked for only before a stage that reads the file: a user may prepare images
        first, and make the file from the prepared images.
    prepared : bool
        Whether the images are prepared. If not, the files in the image folders are counted. Files
        that cannot be decoded are found later.

    Raises
    ------
    ConfigError
        An option does not fit the images or another option.
    DataError
        The images cannot be used for the run.
    """
    config = run.config
    sets: Sets = {}
    for role in config.folders():
        sets[role] = open_set(run, role) if prepared else listed_images(run, set_name(run, role))
    all_of_it = "prepare" in stages
    if all_of_it or not prepared or "evaluate" in stages:
        check_halves(run)
    device = torch.device(resolve_device(config.device))
    if all_of_it or {"pretext", "cluster"} & set(stages):
        _check_images(run, sets)
    if all_of_it or {"pretext", "features", "cluster"} & set(stages):
        _check_pca(config, sets)
    if all_of_it or "features" in stages:
        check_source(config)
        check_models(run)
    if "features" in stages:
        _check_weights(config)
    if "cluster" in stages:
        _check_features(run)
    for stage, section in (("pretext", config.pretext), ("transfer", config.transfer)):
        if all_of_it or stage in stages:
            computing_dtype(section.training.precision, device)
    with torch.device("meta"):
        if all_of_it or {"pretext", "features", "cluster"} & set(stages):
            _check_teacher(run)
        if all_of_it or {"transfer", "evaluate"} & set(stages):
            _check_target(run, stages)
    if all_of_it or "pretext" in stages:
        _warn_of_few_puzzles(run, sets)
    if all_of_it or "evaluate" in stages:
        _check_labels(config, sets)
        if "evaluate" in stages:
            check_model_files(run)
        if prepared:
            check_probe_memory(run, stages)
    if all_of_it or "voc" in stages:
        _check_voc(run, device)
    if prepared and "transfer" in sets and {"cluster", "transfer"} & _unfinished(run, stages):
        check_photographs(run)
    if prepared and "transfer" in sets and (all_of_it or "transfer" in stages):
        check_learnt_features(run)
    if prepared and "pretext" in sets and (all_of_it or "pretext" in stages):
        try_task(run)
    if prepared and "cluster" in sets and (all_of_it or "features" in stages):
        try_teacher(run)


def _check_weights(config: Config) -> None:
    weights = config.features.weights
    if config.cluster.features is None and weights is not None and not weights.is_file():
        raise ConfigError(f"features.weights {weights} does not exist; give a file of weights")


def _check_features(run: RunFolder) -> None:
    """Refuse a missing file of features, unless the stages that read the file are finished."""
    both = {"cluster", "transfer"}
    if run.config.cluster.features is not None and _unfinished(run, both) == both:
        feature_folders(run)


def _unfinished(run: RunFolder, stages: Collection[str]) -> set[str]:
    return {stage for stage in stages if not (run.stage(stage) / "result.json").is_file()}


def _check_images(run: RunFolder, sets: Sets) -> None:
    config = run.config
    for role, images in sets.items():
        if images.n == 0:
            raise DataError(
                f"none of the {len(images.skipped)} images in {config.folders()[role]} can be "
                f"decoded; the first is {images.skipped[0].path}: {images.skipped[0].reason}"
            )
    if config.cluster.features is not None:
        return
    if "pretext" in sets and learns_task(config) and may_load_task(run):
        fewest, n = pretext_class(config.pretext.task).fewest_images, sets["pretext"].n
        if n < fewest:
            raise DataError(
                f"{config.data.folders()['pretext']} holds {_images(n)}; the "
                f"pretext task {config.pretext.task} needs at least {fewest} images"
            )
    if config.features.checkpoint == "best" and "pretext" in sets:
        _check_measures(config, sets["pretext"])
    too_few = "cluster" in sets and sets["cluster"].n < config.cluster.n_clusters
    if too_few and needs_clusters(config):
        raise ConfigError(
            f"cluster.n_clusters {config.cluster.n_clusters} is more than the "
            f"{sets['cluster'].n} images of {config.data.folders()['cluster']}; give fewer "
            "clusters or more images"
        )


def _check_pca(config: Config, sets: Sets) -> None:
    """Refuse a PCA of more dimensions than images."""
    if config.cluster.features is None and _uses_pca(config) and "cluster" in sets:
        n = sets["cluster"].n
        if n < config.cluster.pca:
            raise ConfigError(
                f"cluster.pca {config.cluster.pca} is more than the {n} images of "
                f"{config.data.folders()['cluster']}; give fewer dimensions or more images"
            )


def _check_measures(config: Config, images: ImageIndex | PreparedSet) -> None:
    """Check that the features of the pretext network can be judged while it is trained."""
    folder = config.data.folders()["pretext"]
    if not config.pretext.feature_measures:
        raise ConfigError(
            "features.checkpoint is best, but pretext.feature_measures is 0; set it to at least 1, "
            "or set features.checkpoint to last"
        )
    if not len(judged_rows(images.labels)):
        raise ConfigError(
            f"features.checkpoint is best, but the features cannot be judged: data.pretext "
            f"({folder}) needs more than {NEIGHBOURS} images in two classes; put each class into "
            "a folder of its own, or set features.checkpoint to last"
        )


def _warn_of_few_puzzles(run: RunFolder, sets: Sets) -> None:
    """Warn once of a training on the puzzle that is too short, unless the training is done."""
    config = run.config
    done = (run.stage("pretext") / "result.json").is_file()
    is_puzzle = config.pretext.task in ("jigsaw++", "jigsaw")
    if done or not is_puzzle or not learns_task(config) or "pretext" not in sets:
        return
    sentence = too_few_puzzles(
        images=sets["pretext"].n,
        epochs=config.pretext.training.epochs,
        permutations=config.pretext.permutations,
        puzzles_per_image=config.pretext.puzzles_per_image,
        cell_loss=config.pretext.cell_loss,
    )
    if sentence is not None and "puzzles" not in run.warned:
        run.warned.add("puzzles")
        logger.warning("pretext: %s", sentence)


def check_networks(run: RunFolder) -> None:
    """Check the source of the features and the networks of a run, without looking at images.

    Raises
    ------
    ConfigError
        An option of a network is impossible.
    """
    check_source(run.config)
    weights = run.config.features.weights
    with torch.device("meta"):
        # A grid makes the file of an untrained network's weights when its run begins.
        if weights is None or weights.is_file():
            _check_teacher(run)
        else:
            _check_task(run)
        _check_target(run, ("transfer",))


def _check_task(run: RunFolder) -> None:
    """Check the network that learns the pretext task, if the run trains one."""
    config = run.config
    if learns_task(config) and may_load_task(run):
        build_pretext(pretext_trunk(config.pretext), config.pretext, seed=config.seed)


def _check_teacher(run: RunFolder) -> None:
    """Check the network of the pretext task, and its layers whose features are clustered."""
    config = run.config
    parts = [part for part in config.features.teachers if part.kind == "pretext"]
    if config.cluster.features is not None or not parts:
        return
    if not may_load_task(run):
        return
    _check_task(run)
    for part, crop in zip(config.features.teachers, teacher_crops(config), strict=True):
        if part in parts:
            _check_trunk(config, teacher_trunk(config, part.layer), part.layer, crop)


def _check_trunk(config: Config, trunk: Trunk, layer: str, crop: int) -> None:
    """Check that a layer of a trunk has a map for the crop, and as many numbers as PCA keeps."""
    layer = layer or config.features.layer or trunk.layers[-1]
    if trunk.features.side(crop, layer) < 1:
        raise ConfigError(
            f"features.crop {crop} is too small for layer {layer}, which needs at least "
            f"{trunk.features.smallest(layer)} px"
        )
    if len(config.features.teachers) > 1:
        return
    dim = trunk.channels[layer] * config.features.pool**2
    if _uses_pca(config) and config.cluster.pca > dim:
        raise ConfigError(
            f"cluster.pca {config.cluster.pca} is more than the {dim} features of layer {layer}; "
            f"give at most {dim}"
        )


def _uses_pca(config: Config) -> bool:
    """Say whether the run fits a PCA."""
    asked = needs_clusters(config) or config.features.normalized
    return asked and config.cluster.normalize.startswith("pca")


def _check_target(run: RunFolder, stages: Collection[str]) -> None:
    """Check the target, its layers that are probed or frozen, and its pretext task."""
    config = run.config
    if stands_alone(run, stages):
        if config.evaluate.retrain:
            of_files = _layers_of_files(run)
            for layer in config.evaluate.retrain:
                if layer not in of_files:
                    raise ConfigError(
                        f"evaluate.retrain: {layer!r} is unknown; the networks of evaluate.models "
                        f"have {', '.join(of_files)}"
                    )
        return
    target = target_network(config.transfer, config.cluster.n_clusters)
    evaluate, layers = config.evaluate, target.layers
    of_files = _layers_of_files(run)
    for option, asked, known in (
        ("layers", evaluate.layers, layers),
        ("retrain", evaluate.retrain, (*layers, *target.hidden_layers)),
    ):
        elsewhere = of_files if option == "retrain" else ()
        unknown = sorted(set(asked) - {*known, *elsewhere})
        if unknown:
            raise ConfigError(
                f"evaluate.{option}: {unknown[0]!r} is unknown; the target has {', '.join(known)}"
            )
    if config.evaluate.headline:
        layer = config.evaluate.headline.partition(":")[2]
        probed = probed_layers(config, target)
        if layer not in probed:
            raise ConfigError(
                f"evaluate.headline {config.evaluate.headline!r} names the layer {layer}, which is "
                f"not probed; give one of {', '.join(probed)}"
            )
    baseline = config.data.test is not None and "pretext" in config.evaluate.baselines
    if baseline and may_load_task(run):
        trunk = target_trunk(config.transfer, config.pretext.task)
        build_pretext(trunk, config.pretext, seed=config.seed)


def _layers_of_files(run: RunFolder) -> list[str]:
    """List the layers above which the networks of `evaluate.models` can be trained anew."""
    shapes = [probed_network(run, name).shape for name in run.config.evaluate.models]
    found = [layer for shape in shapes for layer in shape.layers]
    if any(isinstance(shape, Trunk) for shape in shapes):
        found += HIDDEN
    return list(dict.fromkeys(found))


def _check_voc(run: RunFolder, device: torch.device) -> None:
    """Check lists, photographs, annotations and proposals of the protocols that are asked for."""
    config = run.config
    opened = {}
    if config.voc.protocols() and set(config.voc.models) & set(config.evaluate.models):
        check_model_files(run)
    for protocol in config.voc.protocols():
        check_protocol(run, protocol)
    for protocol in config.voc.protocols():
        sets, section = open_sets(config, protocol), getattr(config.voc, protocol)
        check_voc_halves(protocol, section, sets)
        if protocol == "svm":
            check_svm(run)
        else:
            computing_dtype(section.training.precision, device)
        if protocol == "detection":
            open_proposals(section, sets)
        opened[protocol] = sets
    inspect_voc(run, opened)
    trained = sorted({"pretext", "labels"}.intersection(config.voc.models))
    if config.voc.protocols() and trained and config.data.test is None:
        raise ConfigError(
            f"voc.models: {trained[0]!r} is a baseline of the evaluation, and the evaluation "
            f"needs data.test; set data.test to labelled images, or leave {trained[0]!r} out"
        )


def _check_labels(config: Config, sets: Sets) -> None:
    """Check that the probes can learn from and be tested on every labelled set."""
    if config.evaluate.models and not labelled_sets(config):
        raise ConfigError(
            "evaluate.models are probed on labelled images, and the run has none; give data.train "
            "and data.test, or evaluate.sets"
        )
    for images in labelled_sets(config):
        _check_labelled(config, sets, images)


def _check_labelled(config: Config, sets: Sets, given: LabelledSet) -> None:
    """Check that probes can learn from the training images, and be tested on the test images."""
    for role in (given.train, given.test):
        option = given.option_of(role, config)
        if role not in sets:
            raise ConfigError(f"{option} is not set: give labelled images for the probes")
        images, folder = sets[role], config.folders()[role]
        loose = np.flatnonzero(images.labels < 0)
        is_default = not given.name and option != f"data.{role}"
        other = f"give labelled images as data.{role}" if is_default else "give another folder"
        if len(loose) == images.n:
            raise DataError(
                f"{option} ({folder}) has no labels for the probes; move its images into one "
                f"folder per class, or {other}"
            )
        if len(loose):
            raise DataError(
                f"{option} ({folder}) holds {_images(len(loose))} outside the folders of classes, "
                f"the first is {images.paths[loose[0]]}; move every image into a class's folder, "
                f"or {other}"
            )
    train, test = sets[given.train], sets[given.test]
    options = [given.option_of(role, config) for role in (given.train, given.test)]
    folder = config.folders()[given.train]
    unknown = sorted(set(test.classes) - set(train.classes))
    if unknown:
        raise DataError(
            f"{options[1]} ({config.folders()[given.test]}) has {_classes(len(unknown))} that the "
            f"probes do not learn, because {options[0]} ({folder}) lacks "
            f"{'it' if len(unknown) == 1 else 'them'}; the first is {unknown[0]!r}; give the same "
            "classes in both folders"
        )
    sizes = np.bincount(train.labels)
    learnt = int(np.count_nonzero(sizes))
    if learnt < 2 or sizes.max() < 3:
        raise DataError(
            f"{options[0]} ({folder}) has {_classes(learnt)}, and the largest "
            f"has {_images(sizes.max())}; a probe needs 2 classes, and 3 images in one class"
        )
    if config.evaluate.neighbors > train.n:
        raise ConfigError(
            f"evaluate.neighbors {config.evaluate.neighbors} is more than the {train.n} images of "
            f"{folder}; give fewer neighbours or more images"
        )
    most = max(config.evaluate.label_counts, default=0)
    if most >= sizes.max():
        raise ConfigError(
            f"evaluate.label_counts {most} takes all images of every class of {options[0]} "
            f"({folder}), whose largest class has {sizes.max()} images; give smaller numbers"
        )


def _classes(n: int) -> str:
    return f"{n} class{'' if n == 1 else 'es'}"


def _images(n: int) -> str:
    return f"{n} image{'' if n == 1 else 's'}"
