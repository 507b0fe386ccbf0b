"""Every option belongs to the question of a stage, or is known to change no result."""

from typing import Literal, get_args, get_origin

import numpy as np
import pytest

from ktfast.config import Config, load_config, options, result_options
from ktfast.errors import ConfigError
from ktfast.pipeline.question import as_json
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.prepared_images import prepare_question
from ktfast.pipeline.steps.questions import (
    baseline_question,
    cluster_question,
    evaluate_question,
    features_question,
    pretext_question,
    transfer_question,
    unlabelled_question,
)
from support.photographs import squares

# The classes of PASCAL VOC are part of the fingerprint of a set of photographs. The others change
# the last bits of a result at most, and a training that is resumed under others warns
# (ktfast.training.identity.circumstances_of).
NO_QUESTION = {
    *("device", "threads", "data.feed", "data.memory_budget_gb", "data.hw_decoder_load"),
    *("cluster.memory_budget_gb", "cluster.link", "voc.classes"),
}
# The content of these files and folders is an input of a question.
INPUTS = {
    *(f"data.{role}" for role in ("pretext", "cluster", "transfer", "train", "test")),
    *("features.weights", "cluster.features", "pretext.permutation_file"),
    *("evaluate.models", "evaluate.sets"),
}
SIDE = (
    *("log_every", "checkpoint_minutes", "tensorboard", "stop_at_chance"),
    *("feature_measures", "unlabelled"),
)
OTHER = {
    "seed": 1, "device": "cpu", "pretext.task": "jigsaw", "data.hw_decoder_load": 0.5,
    "pretext.max_occluders": 1, "transfer.image_size": 250, "voc.classes": ("cat",),
    "data.decoding": "full", "data.short_side": 300, "data.quality": 90,
    "pretext.crop": 250, "pretext.grid": 2,
    "pretext.tile_size": 60, "pretext.jitter": 1, "pretext.chroma_shift": 1,
    "pretext.min_distance": 4, "features.source": "hog", "features.layer": "conv1_1",
    "transfer.crop": 200, "transfer.target": "torchvision:resnet18",
    "transfer.area": (0.5, 1.0), "evaluate.layers": ("conv1",), "evaluate.baselines": (),
    "evaluate.headline": "knn:conv5",
    "evaluate.retrain": ("conv2",), "evaluate.label_fractions": (0.5,),
    "evaluate.retrain_epochs": 3.0, "evaluate.label_counts": (2,), "voc.svm.shots": (2,),
    "evaluate.fine_tune_epochs": 3.0, "evaluate.fine_tune_rate": 0.5,
    "evaluate.protocols": ("goyal",), "voc.classification.area": (0.2, 0.6),
    "voc.detection.short_sides": (480,), "voc.models": ("random",),
    "voc.detection.tests": ("single",),
    "transfer.array_range": (-1.0, 1.0), "transfer.channels": 3,
}  # fmt: skip
_VOC = ("classification", "detection", "segmentation", "svm")
BASES = [
    {"cluster.normalize": "pca-l2", "features.normalized": True, "evaluate.retrain": ("conv1",)},
    {"features.source": "hog", "evaluate.retrain": ("conv1",), "evaluate.fine_tune": True},
    {"features.source": "torchvision:resnet18@layer3"},
    {"features.source": "pretext + hog"},
    {"pretext.training.schedule": "cosine", "transfer.target": "vgg16"},
    {"transfer.target": "torchvision:resnet18", "transfer.training.optimizer": "adamw"},
    {"pretext.task": "rotation"},
    {"pretext.task": "context"},
    {"pretext.task": "jigsaw", "pretext.cell_loss": 1.0},
    {"transfer.objective": "regression"},
    {"transfer.objective": "similarity"},
    {
        "features.source": "statistics:fmean",
        "transfer.channels": 2,
        "evaluate.baselines": ("random", "labels"),
    },
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    Image.fromarray(squares(1, 32)[0]).save(folder / "a.png")
    np.save(folder / "a.npy", squares(1, 32)[0])
    return folder


def questions(config, folder):
    run = RunFolder(folder / "no run", config)
    asked = [prepare_question(run, "pretext")[0], pretext_question(run), cluster_question(run)]
    asked += [features_question(run, "cluster"), transfer_question(run), evaluate_question(run)]
    asked += [unlabelled_question(run)]
    asked += [baseline_question(run, name) for name in ("pretext", "labels")]
    voc = [result_options(getattr(config.voc, name)) for name in _VOC]
    voc += [config.voc.models, config.voc.data_init]
    return as_json([[question.settings for question in asked], voc])


def another(name, kind, value):
    if name in OTHER:
        return OTHER[name]
    if get_origin(kind) is Literal:
        return next(choice for choice in get_args(kind) if choice != value)
    if value == "auto":
        return False
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2 or 0.5
    if isinstance(value, tuple):
        return (0.5,)
    return f"another {name}"


def changed_config(given, name, value):
    """The configuration with another value of an option; None if the value is refused."""
    try:
        return load_config(None, {**given, name: value})
    except ConfigError as error:
        refusals = ("does not use", "the target is vgg16", "the image folders hold arrays")
        if any(words in str(error) for words in refusals):
            return None
        raise


@pytest.mark.parametrize("base", BASES, ids=lambda base: " ".join(map(str, base.values())))
def test_an_option_is_asked_for_or_refused_or_without_effect(base, photos):
    given = {**base, "data.pretext": str(photos), "data.test": str(photos)}
    before = load_config(None, given)
    asked = questions(before, photos)
    silent = set()
    for name, (kind, _, _) in options(Config).items():
        if name in INPUTS:
            continue
        value = before
        for part in name.split("."):
            value = getattr(value, part)
        changed = another(name, kind, value)
        if name.startswith("voc.") and name.endswith(("compile", "cuda_graphs")):
            changed = False  # the only value
        if changed == value or (after := changed_config(given, name, changed)) is None:
            continue
        if questions(after, photos) == asked:
            silent.add(name)
    silent -= {name for name in silent if name.endswith((*SIDE, ".folder", "_proposals", ".sbd"))}
    allowed = {name for name in NO_QUESTION if name in silent}
    schedule = before.pretext.training.schedule
    if not before.cluster.normalize.startswith("pca"):
        allowed.add("cluster.pca")
    if not before.evaluate.retrain:
        allowed.add("evaluate.retrain_epochs")
    if not before.evaluate.label_fractions and not before.evaluate.fine_tune:
        allowed.add("evaluate.label_draws")
    if not before.evaluate.fine_tune:
        allowed |= {"evaluate.fine_tune_epochs", "evaluate.fine_tune_rate"}
    sections = ["voc.segmentation"] + (["pretext"] if schedule == "cosine" else [])
    of_steps = ("drop_at", "drop_factor", "drop_every")
    allowed |= {f"{part}.training.{key}" for part in sections for key in of_steps}
    assert silent == allowed
