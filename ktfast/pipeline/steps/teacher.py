"""Build the teachers that `features.source` names, and check them before the long stages."""

from pathlib import Path

import numpy as np
import torch

from ktfast.config import Config
from ktfast.config.sources import FORMS, TeacherName
from ktfast.errors import ConfigError, shown
from ktfast.features.ensemble import join
from ktfast.features.foreign import Teacher, file_of, functions_of
from ktfast.features.hf_teacher import check_hf, hf_teacher
from ktfast.features.teachers import callable_teacher, hog_teacher, trunk_teacher
from ktfast.features.timm_teacher import check_timm, timm_teacher
from ktfast.features.torchvision_teacher import check_torchvision, torchvision_teacher
from ktfast.features.transform import FeatureTransform
from ktfast.images.augment import center_crop
from ktfast.pipeline.environment import resolve_device
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.best_weights import best_weights
from ktfast.pipeline.steps.image_sets import open_set, set_name
from ktfast.pipeline.steps.model_facts import feature_crop, teacher_crops
from ktfast.pipeline.steps.networks import WEIGHTS, load_all
from ktfast.pipeline.steps.pretext_tasks import check_task_trust
from ktfast.pipeline.steps.trunk_layers import teacher_normalization, teacher_trunk
from ktfast.training.precision import computing_dtype

PART = "teacher-{}.npz"
"""Name of the file with the PCA of each of several teachers."""


def check_trust(run: RunFolder) -> None:
    """Refuse to run the code that a configuration file names, unless the user trusts the file.

    Raises
    ------
    ConfigError
        `features.source` names a function, or the features are those of a pretext task that is a
        class of the user, and the run does not trust the name.
    """
    features = run.config.features
    if any(part.kind == "pretext" for part in features.teachers):
        check_task_trust(run)
    for function in functions_of(features.source):
        if not run.trust_source:
            file = shown(file_of(function)) or "no file that Python finds"
            raise ConfigError(
                f"the configuration file names features.source {features.source!r}, which would "
                f"run code of {file}; add --trust-source (trust_source=True in Python) if you "
                "trust this code"
            )


def try_teacher(run: RunFolder) -> None:
    """Call each teacher from a library or from the user once, on a whole batch of images.

    The pretext network and HOG are not called. Nothing is done if the features exist already.

    Raises
    ------
    ConfigError
        A teacher fails, or returns anything but one row of features per image.
    """
    config = run.config
    foreign = [part for part in config.features.teachers if part.kind not in ("pretext", "hog")]
    name = set_name(run, "cluster")
    if config.cluster.features is not None or not foreign:
        return
    if (run.stage(f"features/{name}") / "result.json").is_file():
        return
    check_trust(run)
    images, side = open_set(run, "cluster"), feature_crop(config)
    n = min(images.n, config.features.batch_size)
    rows = [images.square(row, short_side=config.data.short_side, size=side) for row in range(n)]
    device = torch.device(resolve_device(config.device))
    batch = torch.from_numpy(np.stack(rows)).to(device)
    with torch.random.fork_rng(devices=[]):  # building a network draws from torch's generator
        for part, crop in zip(config.features.teachers, teacher_crops(config), strict=True):
            if part in foreign:
                _build(run, part, crop)(batch)
    if device.type == "cuda":
        torch.cuda.empty_cache()  # feeds choose by the free memory of the GPU


def check_source(config: Config) -> None:
    """Refuse a `features.source` that names an unknown teacher.

    Raises
    ------
    ConfigError
        A name is unknown.
    """
    source = config.features.source
    for part in config.features.teachers:
        if not part.kind:
            of = f" of features.source {source!r}" if part.text != source else ""
            raise ConfigError(
                f"features.source {part.text!r}{of} is unknown; expected {FORMS}; @LAYER may "
                "follow a MODEL or pretext"
            )


def check_models(run: RunFolder) -> None:
    """Refuse models and layers that do not exist, and models that are not on this machine.

    Nothing is checked if the features exist already.

    Raises
    ------
    ConfigError
        A model or a layer is unknown, or the weights or the package of a model are missing.
    """
    config, name = run.config, set_name(run, "cluster")
    done = (run.stage(f"features/{name}") / "result.json").is_file()
    if done or config.cluster.features is not None:
        return
    for part in config.features.teachers:
        if part.kind == "torchvision":
            check_torchvision(part.name, part.layer)
        elif part.kind == "timm":
            check_timm(part.name, part.layer, config.features.weights)
        elif part.kind == "hf":
            check_hf(part.name, part.layer)


def build_teacher(run: RunFolder, fitted: Path) -> Teacher:
    """Build the teacher of a run whose features are extracted, on the run's device.

    Parameters
    ----------
    run : RunFolder
        The run.
    fitted : Path
        Folder of the features that are clustered. It holds the PCA of each of several teachers.

    Returns
    -------
    teacher : Teacher
        The teacher, in the configured precision.
    """
    teachers = build_teachers(run)
    if len(teachers) == 1:
        return teachers[0]
    files = [fitted / PART.format(number) for number in range(len(teachers))]
    return join(list(zip(teachers, map(FeatureTransform.load, files), strict=True)))


def build_teachers(run: RunFolder) -> list[Teacher]:
    """Build every teacher that `features.source` names, on the run's device."""
    check_source(run.config)
    check_trust(run)
    parts, crops = run.config.features.teachers, teacher_crops(run.config)
    return [_build(run, part, crop) for part, crop in zip(parts, crops, strict=True)]


def _build(run: RunFolder, part: TeacherName, crop: int) -> Teacher:
    """Build one teacher, which sees the centre of the images that it is given."""
    teacher = _whole_image_teacher(run, part, crop)
    if part.is_network:
        teacher = in_precision(run, teacher)
    if crop == feature_crop(run.config):
        return teacher
    return lambda images: teacher(center_crop(images, crop).contiguous())


def _whole_image_teacher(run: RunFolder, part: TeacherName, crop: int) -> Teacher:
    config, device = run.config.features, resolve_device(run.config.device)
    layer, pool, pooling = part.layer, config.pool, config.pooling
    weights = config.weights if part.takes_weights else None
    if part.kind == "pretext":
        return _trunk_teacher(run, part, device)
    if part.kind == "hog":
        return hog_teacher(n_threads=run.config.threads or None)
    if part.kind == "torchvision":
        return torchvision_teacher(
            part.name, weights, device, layer=layer, pool=pool, pooling=pooling
        )
    if part.kind == "timm":
        return timm_teacher(
            part.name, weights, device, layer=layer, pool=pool, pooling=pooling, size=crop
        )
    if part.kind == "hf":
        return hf_teacher(part.name, device, layer=layer, pool=pool, pooling=pooling)
    return callable_teacher(part.name)


def _trunk_teacher(run: RunFolder, part: TeacherName, device: str) -> Teacher:
    config = run.config.features
    trunk = teacher_trunk(run.config, part.layer)
    load_all(trunk, config.weights or _puzzle_weights(run))
    return trunk_teacher(
        trunk.to(device).to(memory_format=torch.channels_last),
        part.layer or config.layer or trunk.layers[-1],
        pool=config.pool,
        pooling=config.pooling,
        normalization=teacher_normalization(run.config),
    )


def _puzzle_weights(run: RunFolder) -> Path:
    """Locate the weights of the run's puzzle network that `features.checkpoint` asks for."""
    if run.config.features.checkpoint == "best":
        return best_weights(run)
    return run.artifact("pretext", WEIGHTS)


def in_precision(run: RunFolder, teacher: Teacher) -> Teacher:
    """Run a network in the configured precision."""
    config, device = run.config.features, torch.device(resolve_device(run.config.device))
    dtype = computing_dtype(config.precision, device)
    if dtype == torch.float32:
        return teacher

    def teach(images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, dtype):
            return teacher(images).float()

    return teach
