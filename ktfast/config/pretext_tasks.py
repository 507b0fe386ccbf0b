"""Which options each pretext task uses, and the defaults that differ from task to task."""

from collections.abc import Mapping
from typing import Any

_EVERY = {
    "task", "trunk", "width", "batch_norm", "crop", "jitter", "hidden", "dropout",
    "stop_at_chance", "training",
}  # fmt: skip
_TILES = {
    "tile_size", "chroma_shift", "gray_probability", "projection_probability", "statistics",
    "tile_features",
}  # fmt: skip
_PERMUTATIONS = {
    "grid", "permutations", "min_distance", "permutation_file", "cell_loss", "puzzles_per_image",
}  # fmt: skip

USED: dict[str, set[str]] = {
    "jigsaw++": {*_EVERY, *_TILES, *_PERMUTATIONS, "max_occluders", "donor_color"},
    "jigsaw": {*_EVERY, *_TILES, *_PERMUTATIONS},
    "rotation": _EVERY,
    "context": {*_EVERY, *_TILES},
}
"""Options of the section `pretext` that each task of ktfast uses."""

DEFAULTS: dict[str, dict[str, Any]] = {
    # Noroozi and Favaro 2016: 1,000 permutations, 30 % gray images, no colour projection.
    "jigsaw": {"permutations": 1000, "gray_probability": 0.3, "projection_probability": 0.0},
    # Doersch et al. 2015: every image loses its green-magenta axis.
    "context": {"gray_probability": 0.0, "projection_probability": 1.0},
}
"""Defaults of a task that differ from those of Jigsaw++."""


def completed(values: Any) -> Any:
    """Fill in the defaults of a task that differ from those of Jigsaw++.

    Parameters
    ----------
    values : Any
        Options of the section `pretext` that the user gave, by name.

    Returns
    -------
    values : Any
        The options with the defaults of the task. Values that are no mapping are returned as given.
    """
    if not isinstance(values, Mapping):
        return values
    own = dict(DEFAULTS.get(str(values.get("task")), {}))
    if values.get("permutation_file") is not None:
        own.pop("permutations", None)  # the file decides
    return {**own, **values}


def unused_options(task: str, *, has_file: bool) -> set[str]:
    """Name the options that a task does not use.

    Parameters
    ----------
    task : str
        Value of `pretext.task`. A class of the user may use every option.
    has_file : bool
        Whether the permutations come from a file.

    Returns
    -------
    names : set of str
        Options of the section `pretext`.
    """
    every = set().union(*USED.values())
    unused = every - USED.get(task, every)
    return unused | ({"permutations", "min_distance"} if has_file else set())
