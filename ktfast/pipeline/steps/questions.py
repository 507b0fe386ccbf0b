"""The question of each stage: the options and inputs on which its result depends.

A stage compares its question with the record in its folder (`ktfast.pipeline.stage_result`).
`ktfast.pipeline.chain` compares the questions of all earlier stages before a stage works.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from ktfast.config import Config, TrainingConfig, result_options
from ktfast.durable import sha256_file
from ktfast.errors import ConfigError, shown
from ktfast.features.datasets import is_dataset
from ktfast.features.pretrained import MissingModelError
from ktfast.features.source_code import source_code
from ktfast.features.store import FeatureStore
from ktfast.pipeline.question import Input, Question
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.stage_result import read_begun
from ktfast.pipeline.steps.image_sets import set_name
from ktfast.pipeline.steps.labelled_sets import LabelledSet, labelled_sets
from ktfast.pipeline.steps.model_facts import feature_crop, library_input
from ktfast.pipeline.steps.probed_models import model_input, model_key, own_models, stands_alone
from ktfast.pipeline.steps.trunk_layers import teacher_normalization

_TRUNK_OPTIONS = ("variant", "width", "batch_norm")
# Options of the section `transfer` that only the stage transfer uses: no baseline depends on them.
_OF_OBJECTIVE = ("objective", "balanced", "pca", "temperature")
DEFAULTS = Config()
# Options of the stage evaluate that change every probe of a network.
_OF_PROBES = ("probe_epochs", "neighbors", "headline")
# Options that choose what the stage evaluate computes. The stage keeps what was chosen before.
_CHOICES = (
    *("layers", "label_fractions", "label_counts", "label_draws", "baselines"),
    *("retrain", "retrain_epochs", "protocols", "teacher"),
    *("fine_tune", "fine_tune_epochs", "fine_tune_rate"),
)


def made_by(run: RunFolder, stage: str, text: str) -> Input:
    """Describe an artifact that a stage of the run makes."""
    fingerprint = ""
    if (run.stage(stage) / "result.json").is_file():
        fingerprint = str(run.result(stage).get("fingerprint", ""))
    return Input(fingerprint, text, stage)


def images_of(run: RunFolder, role: str) -> Input:
    """Describe the prepared images of a role."""
    stage = f"prepare/{set_name(run, role)}"
    named = read_begun(run, stage).get("named") or {}
    folder = shown(run.config.folders()[role])
    return made_by(run, stage, str(named.get("images", f"the images in {folder}")))


def task_inputs(config: Config) -> dict[str, Input]:
    """Describe the user's code and files on which the pretext task depends."""
    inputs: dict[str, Input] = {}
    options = config.pretext
    if ":" in options.task:
        code = source_code(options.task)
        inputs["task"] = Input(code.fingerprint, code.text)
    if (path := options.permutation_file) is not None:
        # A training refuses a missing file. Later stages can do without the file.
        content = sha256_file(path) if path.is_file() else ""
        inputs["permutations"] = Input(content, f"the permutations in {shown(path)}")
    return inputs


def pretext_question(run: RunFolder) -> Question:
    """Build the question of the stage pretext."""
    return Question(
        "pretext",
        {"seed": run.config.seed, **result_options(run.config.pretext)},
        {"images": images_of(run, "pretext"), **task_inputs(run.config)},
        {"seed": DEFAULTS.seed, **DEFAULTS.pretext.model_dump(mode="json")},
    )


def features_question(run: RunFolder, role: str) -> Question:
    """Build the question of the stage features for a role's images."""
    config = run.config
    features = config.features
    settings = {**result_options(features), "crop": _recorded_crop(run, role)}
    if any(part.kind == "pretext" for part in features.teachers):
        settings |= {"trunk": config.pretext.trunk, "task": config.pretext.task}
        settings["normalization"] = teacher_normalization(config)
    if len(features.teachers) > 1:
        settings["seed"] = config.seed  # of the PCA of each teacher
    if config.features.normalized:
        stored_as = _select(result_options(config.cluster), ("normalize", "pca"))
        settings |= {f"cluster.{name}": value for name, value in stored_as.items()}
        settings["seed"] = config.seed
    defaults = {
        **DEFAULTS.features.model_dump(mode="json"),
        "normalization": "image",  # the only one of earlier versions
        "trunk": DEFAULTS.pretext.trunk,
        "task": DEFAULTS.pretext.task,
        "cluster.normalize": DEFAULTS.cluster.normalize,
        "cluster.pca": DEFAULTS.cluster.pca,
    }
    inputs = {"images": images_of(run, role), **_teachers(run)}
    return Question("features", settings, inputs, defaults)


def _recorded_crop(run: RunFolder, role: str) -> int:
    """Give the side of the crop; that of finished features if a model is no longer here."""
    try:
        return feature_crop(run.config)
    except MissingModelError:
        begun = read_begun(run, f"features/{set_name(run, role)}").get("settings", {})
        if "crop" not in begun:
            raise
        return int(begun["crop"])


def _teachers(run: RunFolder) -> dict[str, Input]:
    """Describe the weights or the code of the teachers."""
    config, inputs = run.config.features, dict[str, Input]()
    if config.weights is not None:
        # The stage features refuses a missing file. Later stages can do without the file.
        content = sha256_file(config.weights) if config.weights.is_file() else ""
        inputs["weights"] = Input(content, f"the weights in {shown(config.weights)}")
    elif config.learns:
        inputs["weights"] = made_by(run, "pretext", "the weights of the stage pretext")
    for number, part in enumerate(config.teachers, 1):
        if part.kind in ("pretext", "hog"):
            continue
        if part.kind == "torchvision" and config.weights is not None:
            continue
        key = "source" if len(config.teachers) == 1 else f"teacher {number}"
        inputs[key] = library_input(part, config.weights if part.takes_weights else None)
    return inputs


def needs_clusters(config: Config) -> bool:
    """Say whether a run needs the stage cluster: for its objective, or for measures without labels.

    The objectives regression and similarity learn the teacher's features themselves.
    """
    without_labels = config.evaluate.unlabelled or config.data.test is None
    return config.transfer.objective == "clusters" or without_labels


def feature_roles(run: RunFolder) -> tuple[str, ...]:
    """List the roles whose images the stage features gives to the teacher.

    An objective on the teacher's features is measured on the test images, unless these are the
    images that the target learns from. The probe of the teacher reads the features of the labelled
    images.
    """
    config = run.config
    held_out = (
        config.transfer.objective != "clusters"
        and config.cluster.features is None
        and config.data.test is not None
        and set_name(run, "test") != set_name(run, "transfer")
    )
    roles = ("cluster", "transfer", "test") if held_out else ("cluster", "transfer")
    return (*roles, "train", "test") if probes_teacher(config) else roles


def probes_teacher(config: Config) -> bool:
    """Say whether the stage evaluate probes the teacher's own features."""
    return config.evaluate.teacher and config.data.test is not None


def feature_folders(run: RunFolder) -> tuple[Path, Path]:
    """Locate the features that are clustered, and the features of the images that are labelled."""
    external = run.config.cluster.features
    if external is not None:
        if not external.exists() and not is_dataset(external):
            raise ConfigError(
                f"cluster.features {external} does not exist; give a .npy, .npz or "
                "Parquet file, a folder or pattern of Parquet files, or a feature folder"
            )
        return external, external
    fit, label = (run.stage(f"features/{set_name(run, role)}") for role in ("cluster", "transfer"))
    return fit, label


def cluster_question(run: RunFolder) -> Question:
    """Build the question of the stage cluster."""
    config = run.config
    inputs = {
        "label_images": images_of(run, "transfer"),
        "features": _features_of(run, "cluster"),
        "label_features": _features_of(run, "transfer"),
    }
    return Question(
        "cluster",
        {"seed": config.seed, **result_options(config.cluster)},
        inputs,
        {"seed": DEFAULTS.seed, **DEFAULTS.cluster.model_dump(mode="json")},
    )


def _features_of(run: RunFolder, role: str) -> Input:
    """Describe the teacher's features of a role's images, or the features of the user."""
    if (path := run.config.cluster.features) is not None:
        # A stage that reads a missing file refuses it. Later stages can do without the file.
        is_there = path.exists() or is_dataset(path)
        content = FeatureStore.open(path).fingerprint if is_there else ""
        return Input(content, f"the features in {shown(path)}")
    stage = f"features/{set_name(run, role)}"
    return made_by(run, stage, f"the result of the stage {stage}")


def transfer_question(run: RunFolder) -> Question:
    """Build the question of the stage transfer."""
    learnt = {"features": _features_of(run, "transfer")}
    if run.config.transfer.objective == "clusters":
        learnt = {"labels": made_by(run, "cluster", "the pseudo-labels of the stage cluster")}
    return Question(
        "transfer",
        {"seed": run.config.seed, **result_options(run.config.transfer)},
        {"images": images_of(run, "transfer"), **learnt},
        {"seed": DEFAULTS.seed, **DEFAULTS.transfer.model_dump(mode="json")},
    )


def baseline_question(run: RunFolder, name: str) -> Question:
    """Build the question of the baseline "pretext" or "labels"."""
    config = run.config
    target = _without(result_options(config.transfer), _OF_OBJECTIVE)
    settings: dict[str, Any] = {"seed": config.seed, "target": target}
    role, inputs = "train", {}
    if name == "pretext":
        # The pretext task has crops, dropout and a training of its own.
        settings["target"] = _select(target, ("target", *_TRUNK_OPTIONS))
        trunk = ("trunk", *_TRUNK_OPTIONS)
        task = result_options(config.pretext)
        settings["pretext"] = {name: task[name] for name in task if name not in trunk}
        role = "pretext"
        inputs = task_inputs(config)
    defaults = {
        "seed": DEFAULTS.seed,
        "target": DEFAULTS.transfer.model_dump(mode="json"),
        "pretext": DEFAULTS.pretext.model_dump(mode="json"),
    }
    return Question("", settings, {"images": images_of(run, role), **inputs}, defaults)


def evaluate_question(run: RunFolder) -> Question:
    """Build the question of the stage evaluate."""
    config = run.config
    settings = {"seed": config.seed, **result_options(config.evaluate)}
    code: dict[str, Input] = {}
    if rates_untrained_clusters(run):
        code = {name: found for name, found in task_inputs(config).items() if name == "task"}
        settings |= _of_untrained_clusters(config)
    sets = labelled_sets(config)
    inputs = {role: images_of(run, role) for each in sets for role in (each.train, each.test)}
    inputs |= code
    for name in own_models(run):
        if name != "random":
            stage = _stage_of(name)
            inputs[name] = made_by(run, stage, f"the weights of {_named(stage)}")
    inputs |= teacher_inputs(run)
    inputs |= {f"model {name}": model_input(config, name) for name in config.evaluate.models}
    # Stored probes hold the content of the images and files that they belong to.
    varying = {*_CHOICES, "transfer", "pretext", "labels", "train", "test"}
    varying |= {"teacher", "teacher on train", "*.train", "*.test", "model *"}
    defaults = {
        "seed": DEFAULTS.seed,
        **DEFAULTS.evaluate.model_dump(mode="json"),
        "pretext": {"task": DEFAULTS.pretext.task},
    }
    return Question("evaluate", settings, inputs, defaults, frozenset(varying))


def teacher_inputs(run: RunFolder) -> dict[str, Input]:
    """Describe the teacher's features that the stage evaluate probes; empty if it probes none."""
    if not probes_teacher(run.config):
        return {}
    names = {"teacher": "test", "teacher on train": "train"}
    return {name: _features_of(run, role) for name, role in names.items()}


def teacher_probe_question(run: RunFolder) -> dict[str, Any]:
    """Give everything on which the probe of the teacher's features depends, as JSON values."""
    features = {name: found.fingerprint for name, found in teacher_inputs(run).items()}
    return {
        "seed": run.config.seed,
        "evaluate": _select(result_options(run.config.evaluate), _OF_PROBES),
        "train": images_of(run, "train").fingerprint,
        "test": images_of(run, "test").fingerprint,
        **features,
    }


def _stage_of(model: str) -> str:
    """Name the stage that trains one of the run's own networks."""
    return model if model == "transfer" else f"baseline_{model}"


def _named(stage: str) -> str:
    return "the stage transfer" if stage == "transfer" else stage


def _of_untrained_clusters(config: Config) -> dict[str, Any]:
    """Give the options on which the clusters of an untrained network depend."""
    return {
        "pretext": _select(result_options(config.pretext), ("task", "trunk", *_TRUNK_OPTIONS)),
        "features": _untrained_features(config),
        "cluster": result_options(config.cluster),
    }


def untrained_question(run: RunFolder) -> dict[str, Any]:
    """Give everything on which the clusters of an untrained network depend, as JSON values."""
    inputs = {"images": images_of(run, "transfer"), **task_inputs(run.config)}
    return {
        "seed": run.config.seed,
        **_of_untrained_clusters(run.config),
        "cluster images": images_of(run, "cluster").fingerprint,
        **{name: found.fingerprint for name, found in inputs.items()},
    }


def unlabelled_question(run: RunFolder) -> Question:
    """Build the question of the measures without labels."""
    config = run.config
    settings: dict[str, Any] = {"seed": config.seed, "neighbors": config.evaluate.neighbors}
    settings["cluster"] = result_options(config.cluster)
    settings["transfer"] = _student(config)
    if untrained := clusters_untrained_features(config):
        settings |= {
            "pretext": _select(result_options(config.pretext), ("trunk", *_TRUNK_OPTIONS)),
            "features": _untrained_features(config),
        }
    settings["random_clusters"] = untrained
    clustered = cluster_question(run).inputs
    inputs = {
        "images": images_of(run, "transfer"),
        "transfer": made_by(run, "transfer", "the weights of the stage transfer"),
        "clusters": made_by(run, "cluster", "the pseudo-labels of the stage cluster"),
        **{name: clustered[name] for name in ("features", "label_features")},
    }
    defaults = {"seed": DEFAULTS.seed, **DEFAULTS.evaluate.model_dump(mode="json")}
    return Question("evaluate", settings, inputs, defaults)


def probe_question(run: RunFolder, name: str, images: LabelledSet) -> dict[str, Any]:
    """Give everything on which the probes of a network on a labelled set depend, as JSON values.

    Layers, shares of the labels and draws are left out: each of them has probes of its own.
    """
    config = run.config
    asked = {
        "seed": config.seed,
        "evaluate": _select(result_options(config.evaluate), _OF_PROBES),
        "train": images_of(run, images.train).fingerprint,
        "test": images_of(run, images.test).fingerprint,
    }
    if name in config.evaluate.models:
        return {**asked, "network": model_key(config, name)}
    student = _student(config)
    return {**asked, "model": name, "weights": _weights_of(run, name), "transfer": student}


def retrain_question(
    run: RunFolder, name: str, images: LabelledSet | None = None
) -> dict[str, Any]:
    """Give everything on which the trainings above a layer of a network depend, as JSON values."""
    config = run.config
    return {
        **_of_training(run, name, images or LabelledSet()),
        "epochs": config.evaluate.retrain_epochs or config.transfer.training.epochs,
    }


def fine_tuning(config: Config) -> TrainingConfig:
    """Give the options of the trainings for `evaluate.fine_tune`."""
    own, training = config.evaluate, config.transfer.training
    changed = {
        "epochs": own.fine_tune_epochs or training.epochs,
        "learning_rate": own.fine_tune_rate or training.learning_rate,
    }
    return training.model_copy(update=changed)


def fine_tune_question(run: RunFolder, name: str, images: LabelledSet) -> dict[str, Any]:
    """Give everything on which fine-tuning a network depends, as JSON values.

    Shares of the labels and draws are left out: each of them has a training of its own.
    """
    asked = _of_training(run, name, images)
    training = result_options(fine_tuning(run.config))
    return {**asked, "transfer": {**asked["transfer"], "training": training}}


def _of_training(run: RunFolder, name: str, images: LabelledSet) -> dict[str, Any]:
    """Give everything on which a training of a network on labels depends, as JSON values."""
    config = run.config
    target = _without(result_options(config.transfer), _OF_OBJECTIVE)
    asked: dict[str, Any] = {
        "model": name,
        "seed": config.seed,
        "transfer": target,
        "train": images_of(run, images.train).fingerprint,
        "test": images_of(run, images.test).fingerprint,
    }
    if name in config.evaluate.models:
        views = _select(target, ("training", "area", "color_jitter"))
        return {**asked, "network": model_key(config, name), "transfer": views}
    return {**asked, "weights": _weights_of(run, name)}


def _weights_of(run: RunFolder, name: str) -> str:
    """Give the fingerprint of the weights of one of the run's own networks."""
    return "" if name == "random" else made_by(run, _stage_of(name), "").fingerprint


def rates_untrained_clusters(run: RunFolder) -> bool:
    """Say whether the report shows untrained clusters beside those that the target learns."""
    config = run.config
    if stands_alone(run) or config.data.test is None:
        return False
    return config.transfer.objective == "clusters" and clusters_untrained_features(config)


def clusters_untrained_features(config: Config) -> bool:
    """Say whether the features of an untrained network are clustered beside the run's features."""
    kinds = [part.kind for part in config.features.teachers]
    of_pretext = kinds == ["pretext"] and config.cluster.features is None
    return config.evaluate.random_clusters and of_pretext


def _untrained_features(config: Config) -> dict[str, Any]:
    """Give the options of the features of an untrained network."""
    options = {**result_options(config.features), "crop": feature_crop(config)}
    options.pop("normalization", None)  # an untrained network has that of the pretext task
    return options


def _student(config: Config) -> dict[str, Any]:
    """Options of the target that its probes depend on. Earlier versions had no arrays."""
    names = ("target", "image_size", "crop", *_TRUNK_OPTIONS)
    arrays = () if config.transfer.channels is None else ("channels",)
    return _select(result_options(config.transfer), (*names, *arrays))


def _select(options: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name in names}


def _without(options: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in names}
