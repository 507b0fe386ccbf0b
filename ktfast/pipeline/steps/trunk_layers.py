"""The trunk that is a run's teacher: its layers, and the normalisation of the pixels it sees."""

import functools
import json
from pathlib import Path

from ktfast.config import Config
from ktfast.durable import sha256_file
from ktfast.errors import ConfigError, reading
from ktfast.images.augment import Normalization
from ktfast.models import Trunk
from ktfast.models.weight_files import read_header, read_state
from ktfast.pipeline.steps.networks import HEADER, pretext_trunk, whole_trunk


def teacher_trunk(config: Config, layer: str = "") -> Trunk:
    """Build the trunk whose features are clustered.

    The pretext network ends at the last layer that the pretext task trains. If `features.weights`
    names a file, the file may hold weights of deeper layers too, and the trunk ends at the layer
    that is asked for.

    Parameters
    ----------
    config : Config
        The options of the run.
    layer : str
        Layer of the features; empty: `features.layer`.

    Returns
    -------
    trunk : Trunk
        The trunk, with random weights.

    Raises
    ------
    ConfigError
        The trunk has no such layer. The message names its layers.
    """
    layer = layer or config.features.layer
    trunk = pretext_trunk(config.pretext)
    if not layer or layer in trunk.layers:
        return trunk
    whole = whole_trunk(config.pretext)
    if layer in whole.layers and config.features.weights is not None:
        whole.truncate(layer)
        return whole
    found = trunk if config.features.weights is None else whole
    hint = (
        f", at which the pretext task ends; to use {layer}, give a file of weights that holds it "
        "with features.weights"
        if layer in whole.layers
        else ""
    )
    raise ConfigError(
        f"features.layer {layer!r} is unknown; the trunk has the layers {', '.join(found.layers)}"
        f"{hint}"
    )


def teacher_normalization(config: Config) -> Normalization:
    """Give the normalisation of the pixels that the trunk of a run's teacher sees.

    A network that the run trains on a pretext task sees images that are normalised by their own
    mean and standard deviation. For a file of weights, `features.normalization` decides.
    """
    path, chosen = config.features.weights, config.features.normalization
    if path is None or not path.is_file():
        return "image"
    return _of_file(path, sha256_file(path)) if chosen == "auto" else chosen


@functools.lru_cache(maxsize=16)
def _of_file(path: Path, content: str) -> Normalization:
    """Find the normalisation for a file of weights with a content of this hash.

    ktfast writes the normalisation into the header of its weight files. Other files with a
    classifier on top of the trunk are taken for networks that learnt ImageNet's classes.
    """
    with reading(path, "a weight file", "give weights of another file"):
        facts = json.loads(read_header(path, HEADER) or "{}")
    names = list(read_state(path))
    written = facts.get("preprocessing", {}) if isinstance(facts, dict) else {}
    if isinstance(written, dict) and written.get("normalization") in ("image", "imagenet"):
        return written["normalization"]  # type: ignore[no-any-return]
    first = "features.0.weight"
    prefixes = [name.removesuffix(first) for name in names if name.endswith(first)]
    complete = any(name.startswith(f"{prefix}classifier.") for prefix in prefixes for name in names)
    return "imagenet" if complete else "image"
