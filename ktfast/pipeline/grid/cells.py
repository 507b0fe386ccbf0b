"""Read a grid of runs from a TOML file, and make the options of every run.

The grid names teachers, students, numbers of clusters, objectives and seeds. Every combination is
one run. An objective that learns no clusters has one run for all numbers of clusters.
Unless `controls` is false, controls are added: the teachers "hog" and "untrained", and in every run
the baselines with random weights and with true labels, and the probe of the teacher itself.
"""

import difflib
import itertools
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ktfast.config import Config, FeaturesConfig, TransferConfig, load_config, options
from ktfast.config.run import RECIPES, dotted
from ktfast.config.transfer import unused_by_objective
from ktfast.errors import ConfigError, reading, shown
from ktfast.readers import read_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_KEYS = {
    "config": str, "options": dict, "teachers": dict, "students": dict, "n_clusters": list,
    "seeds": list, "objectives": list, "controls": bool,
}  # fmt: skip
GRIDS = RECIPES / "grids"
"""Folder of the grids that ktfast ships: the tables of the paper, at full size and tiny."""
_BASELINES = ("random", "labels")
_FEATURES = "features."
_OBJECTIVE = "transfer.objective"
_Learnt = tuple[dict[str, Any], str, dict[str, Any]]


@dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Attributes
    ----------
    name : str
        Name of the run folder.
    config : Config
        Every option of the run.
    names : dict
        Names of teacher and student, the number of clusters, and the objective if the grid names
        objectives; empty in a sweep.
    control : bool
        Whether the teacher of the run is a control.
    untrained : bool
        Whether the teacher is an untrained network, whose weights `features.weights` names.
    """

    name: str
    config: Config
    names: dict[str, Any] = field(default_factory=dict)
    control: bool = False
    untrained: bool = False


def shipped_grid(path: Path) -> Path:
    """Replace the name of a grid that ktfast ships by the grid's path.

    Parameters
    ----------
    path : Path
        What the user gave. A file or folder of this name goes before the shipped grid.

    Returns
    -------
    path : Path
        The TOML file of the grid; `path` itself if no grid has this name.

    Raises
    ------
    ConfigError
        `path` is no file or folder, and no shipped grid has its name. The message lists the grids.
    """
    if path.exists() or path.suffix == ".toml" or len(path.parts) > 1:
        return path
    grids = {file.stem: file for file in GRIDS.glob("*.toml")}
    if path.name not in grids:
        raise ConfigError(
            f"there is no run folder {shown(path)}; give run folders, a TOML file of a grid, or "
            f"the name of a grid of ktfast: {', '.join(sorted(grids))}"
        )
    return grids[path.name]


def read_grid(path: Path, folder: Path) -> list[Cell]:
    """Read a grid and make the options of every run.

    Parameters
    ----------
    path : Path
        TOML file with the keys `config` (a recipe or a TOML file), `options`, `teachers` and
        `students` (tables of options by name), `n_clusters`, `objectives`, `seeds`, and `controls`
        (false leaves the controls out).
    folder : Path
        Folder of the grid's results. The weights of untrained teachers lie in it.

    Returns
    -------
    cells : list of Cell
        All runs of the first seed, then those of the next seed. Every row of the comparison thus
        gets its first accuracy early.

    Raises
    ------
    ConfigError
        The file cannot be read, or an option of a run is unknown or impossible. The message names
        the run.
    """
    grid = _read(path)
    base, given = grid.get("config"), dict(dotted(grid.get("options", {})))
    first = _objective_options(grid["objectives"][0]) if "objectives" in grid else {}
    start = _config(base, {**given, **first}, f"{shown(path)}: options")
    teachers = {name: (dict(dotted(own)), False) for name, own in _tables(grid, "teachers").items()}
    if grid.get("controls", True):
        sources = {
            own.get("features.source", start.features.source) for own, _ in teachers.values()
        }
        if "hog" not in sources:
            teachers.setdefault("hog", ({"features.source": "hog"}, True))
        teachers.setdefault("untrained", ({"features.source": "pretext"}, True))
        given |= _baselines(given)
    cells = []
    products = itertools.product(
        grid.get("seeds", [start.seed]),
        teachers.items(),
        _tables(grid, "students").items(),
        _learnt(grid, start.cluster.n_clusters),
    )
    for seed, (teacher, (own, control)), (student, target), (learnt, what, names) in products:
        names = {"teacher": teacher, "student": student, **names}
        name = f"{teacher}-{student}-{what}-seed{seed}"
        values = {**given, **own, **dict(dotted(target)), **learnt, "seed": seed}
        untrained = control and teacher == "untrained"
        if untrained:
            values["features.weights"] = folder / "untrained" / _untrained_name(start, seed)
        values |= _reset(values, own, start)
        if grid.get("controls", True) and _has_own_teacher(values, start):
            values.setdefault("evaluate.teacher", True)
        config = _config(base, values, f"{shown(path)}: the run {name}")
        cells.append(Cell(_file_name(name), config, names, control, untrained))
    if len({cell.name for cell in cells}) != len(cells):
        raise ConfigError(f"{shown(path)}: two runs have the same name; give each value once")
    return cells


def _has_own_teacher(values: Mapping[str, Any], start: Config) -> bool:
    """Whether a run extracts features and has test images, so that its teacher can be probed."""
    test = values.get("data.test", start.data.test)
    return test is not None and not values.get("cluster.features", start.cluster.features)


def _learnt(grid: Mapping[str, Any], start: int) -> list[_Learnt]:
    """What the networks of a grid learn: options, part of the run's name, and names for the table.

    The runs of the objective clusters have the same names with and without a list of objectives.
    """
    found: list[_Learnt] = []
    for objective in grid.get("objectives", [None]):
        named = {} if objective is None else {"objective": objective}
        given = _objective_options(objective) if named else {}
        if objective not in (None, "clusters"):
            found.append((given, str(objective), named))
            continue
        for k in grid.get("n_clusters", [start]):
            found.append(({**given, "cluster.n_clusters": k}, f"k{k}", {"n_clusters": k, **named}))
    return found


def _objective_options(objective: str) -> dict[str, Any]:
    """The objective, and the defaults of the options that the objective does not use.

    For example, a grid gives a temperature for similarity, and clusters refuses this option.
    """
    unused = unused_by_objective(objective)
    defaults = {f"transfer.{name}": getattr(TransferConfig(), name) for name in unused}
    return {_OBJECTIVE: objective, **defaults}


def sweep_cells(
    config: Path | None, given: Mapping[str, Any], varied: Mapping[str, Sequence[str]]
) -> list[Cell]:
    """Make the options of runs that differ in some options.

    Parameters
    ----------
    config : Path, optional
        Recipe or TOML file.
    given : mapping
        Options of every run, by dotted name.
    varied : mapping of str to sequence of str
        Values of the options that vary. Every combination is one run.

    Returns
    -------
    cells : list of Cell
        The runs.

    Raises
    ------
    ConfigError
        An option is unknown or has an impossible value.
    """
    for name in varied:
        if name not in options():
            close = difflib.get_close_matches(name, options(), n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise ConfigError(f"--vary {name}: there is no option of this name{hint}")
    cells = []
    for values in itertools.product(*varied.values()):
        own = dict(zip(varied, values, strict=True))
        name = "-".join(f"{key.rpartition('.')[2]}-{value}" for key, value in own.items())
        cells.append(Cell(_file_name(name), _config(config, {**given, **own}, f"the run {name}")))
    if len({cell.name for cell in cells}) != len(cells):
        raise ConfigError("--vary: two runs have the same values; give each value once")
    return cells


def _read(path: Path) -> dict[str, Any]:
    text = read_text(path, "a grid in TOML", "write a TOML file in UTF-8")
    with reading(path, "a grid in TOML", "correct the file"):
        grid: dict[str, Any] = tomllib.loads(text)
    for key, value in grid.items():
        if key not in _KEYS:
            raise ConfigError(
                f"{shown(path)}: {key!r} is no key of a grid; the keys are {', '.join(_KEYS)}"
            )
        if not isinstance(value, _KEYS[key]):
            raise ConfigError(
                f"{shown(path)}: {key} must be a {_KEYS[key].__name__}, got {value!r}"
            )
    for key in ("n_clusters", "seeds"):
        values = grid.get(key, [0])
        if not values or not all(type(value) is int for value in values):
            raise ConfigError(f"{shown(path)}: {key} must be a list of integers, got {values!r}")
    objectives = grid.get("objectives", ["clusters"])
    if not objectives or not all(isinstance(value, str) for value in objectives):
        raise ConfigError(
            f"{shown(path)}: objectives must be a list of values of {_OBJECTIVE}, such as "
            f'["clusters", "regression"], got {objectives!r}'
        )
    for key in ("teachers", "students"):
        for name, own in grid.get(key, {}).items():
            if not isinstance(own, dict):
                raise ConfigError(
                    f"{shown(path)}: {key}.{name} must be a table of options, got {own!r}"
                )
    return grid


def _untrained_name(start: Config, seed: int) -> str:
    puzzle = start.pretext
    kind = f"{puzzle.trunk}-{puzzle.width:g}{'-norm' if puzzle.batch_norm else ''}"
    return f"{kind}-seed{seed}.safetensors"


def _tables(grid: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The tables of options by name; if the grid has none, one table without options."""
    single = {"teachers": "teacher", "students": "student"}[key]
    return grid.get(key) or {single: {}}


def _baselines(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options with which every run probes the baselines, and does not cluster random features.

    The teacher "untrained" of the grid replaces the clusters of random features.
    """
    asked = given.get("evaluate.baselines", ())
    names = [n for n in ("random", "pretext", "labels") if n in asked or n in _BASELINES]
    return {"evaluate.random_clusters": False, **given, "evaluate.baselines": names}


def _reset(values: Mapping[str, Any], own: Mapping[str, Any], start: Config) -> dict[str, Any]:
    """Set the options of the section `features` that a teacher does not use to their defaults.

    For example, a recipe names a layer of the puzzle network, and HOG refuses this option.
    """
    source = values.get("features.source", start.features.source)
    weights = values.get(f"{_FEATURES}weights", start.features.weights)
    unused = FeaturesConfig.model_construct(source=source, weights=weights).unused()
    defaults = FeaturesConfig()
    return {
        f"{_FEATURES}{name}": getattr(defaults, name)
        for name in unused
        if f"{_FEATURES}{name}" not in own
    }


def _config(base: Any, values: Mapping[str, Any], place: str) -> Config:
    try:
        return load_config(base, values)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error


def _file_name(name: str) -> str:
    """Replace the characters of a name that a folder name should not have."""
    return re.sub(r"[^\w.+-]+", "_", name).strip(".") or "run"
