"""What a run's teachers depend on: the crop that each sees, its weights, and its preprocessing."""

from pathlib import Path
from typing import Any

from ktfast.config import Config
from ktfast.config.sources import TeacherName
from ktfast.durable import sha256_file, sha256_json
from ktfast.errors import ConfigError, shown
from ktfast.features.hf_teacher import hf_pretrained
from ktfast.features.pretrained import MissingModelError, Pretrained
from ktfast.features.source_code import source_code
from ktfast.features.timm_teacher import timm_pretrained
from ktfast.features.torchvision_teacher import (
    default_weights,
    torchvision_crop,
    torchvision_normalization,
)
from ktfast.pipeline.question import Input


def feature_crop(config: Config) -> int:
    """Give the side of the centre crop that is cut for the teachers: the largest of their crops.

    Each teacher of several sees the centre of this crop; see `teacher_crops`.
    """
    return max(teacher_crops(config))


def teacher_crops(config: Config) -> list[int]:
    """Give the side of the centre crop that each teacher sees, in pixels.

    The side is `features.crop`. By default it is the size for which a model of timm or transformers
    was made, and `pretext.crop` for every other teacher. A torchvision model that takes images of
    one size only, such as a vision transformer, sees that size by default.
    """
    if config.features.crop:
        return [config.features.crop] * len(config.features.teachers)
    return [_own_crop(config, part) for part in config.features.teachers]


def _own_crop(config: Config, part: TeacherName) -> int:
    remedy = ""
    if part.kind in ("timm", "hf"):
        side = pretrained(part).size
        takes = f"is made for images of {side} px"
        remedy = ", or features.crop to a smaller size that the model takes"
    elif part.kind == "torchvision":
        side = torchvision_crop(part.name, config.pretext.crop)
        takes = f"takes images of {side} px only"
    else:
        return config.pretext.crop
    if side > config.data.short_side:
        raise ConfigError(
            f"features.source {part.text!r} {takes}, but data.short_side is "
            f"{config.data.short_side} px; set data.short_side to at least {side}{remedy}"
        )
    return side


def pretrained(part: TeacherName) -> Pretrained:
    """Describe the model of timm or transformers that a teacher names."""
    return timm_pretrained(part.name) if part.kind == "timm" else hf_pretrained(part.name)


def library_input(part: TeacherName, weights: Path | None) -> Input:
    """Describe the weights or the code on which a teacher that is no trunk depends.

    Parameters
    ----------
    part : TeacherName
        A teacher of the kind "torchvision", "timm", "hf" or "function".
    weights : Path or None
        The file `features.weights`, whose content is an input of its own.

    Returns
    -------
    found : Input
        The input.
    """
    if part.kind == "torchvision":
        name = default_weights(part.name)
        return Input(name, f"torchvision's weights {name}", optional=True)
    if part.kind not in ("timm", "hf"):
        code = source_code(part.name)
        return Input(code.fingerprint, code.text, optional=True)
    try:
        found = pretrained(part)
    except MissingModelError:
        # The stage features refuses a missing model. Later stages can do without the model.
        return Input("", f"the model {part.text}")
    if weights is not None:
        facts = [found.model, found.mean, found.std]
        return Input(sha256_json(facts), f"the preprocessing of {found.model}")
    if not found.files:
        return Input("", f"the model {part.text}")
    version = f", commit {found.revision[:12]}" if found.revision else ""
    text = f"the model {found.model} in {shown(found.files[0].parent)}{version}"
    return Input(found.fingerprint, text)


def teacher_records(config: Config) -> list[dict[str, Any]]:
    """Describe the run's teachers for the manifest, if they are models of libraries.

    Parameters
    ----------
    config : Config
        The options of the run.

    Returns
    -------
    records : list of dict
        One JSON value per teacher; empty if the only teacher is the pretext network, HOG or a
        function of the user.
    """
    features = config.features
    if len(features.teachers) == 1 and features.teachers[0].kind not in (
        "torchvision",
        "timm",
        "hf",
    ):
        return []
    return [
        {"teacher": part.text, "crop": crop, **_record(part, features.weights)}
        for part, crop in zip(features.teachers, teacher_crops(config), strict=True)
    ]


def _record(part: TeacherName, weights: Path | None) -> dict[str, Any]:
    given = (
        {"files": {weights.name: sha256_file(weights)}} if weights and part.takes_weights else {}
    )
    if part.kind == "torchvision":
        mean, std = torchvision_normalization(part.name)
        own = {"weights": default_weights(part.name)} if not given else {}
        return {"model": part.name, "mean": list(mean), "std": list(std), **own, **given}
    if part.kind in ("timm", "hf"):
        found = pretrained(part).record()
        return {**found, "revision": "" if given else found["revision"], **given}
    return given
