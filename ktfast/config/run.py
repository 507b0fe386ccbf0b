"""All options of a run, read from a TOML file and overridden by name."""

import difflib
import logging
import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import Field, ValidationError, field_validator, model_validator

from ktfast.config.arrays import array_problem
from ktfast.config.cluster import ClusterConfig
from ktfast.config.data import DataConfig
from ktfast.config.evaluate import EvaluateConfig
from ktfast.config.features import FeaturesConfig
from ktfast.config.pretext import PretextConfig
from ktfast.config.section import Section
from ktfast.config.transfer import TransferConfig
from ktfast.config.voc import VocConfig
from ktfast.errors import ConfigError, DataError, reading, shown
from ktfast.readers import read_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


_logger = logging.getLogger(__name__)

RECIPES = Path(__file__).parents[1] / "recipes"


class Config(Section):
    """Every option of a run: general options and one section per stage."""

    seed: int = Field(0, ge=0, lt=1 << 32, description="seed of every random choice")
    device: str = Field(
        "auto", description="auto, cpu, cuda or cuda:N; auto: a GPU if torch finds one, else cpu"
    )
    threads: int = Field(
        0, ge=0, description="number of CPU threads; 0: one per core that the process may use"
    )
    data: DataConfig = DataConfig()
    pretext: PretextConfig = PretextConfig()
    features: FeaturesConfig = FeaturesConfig()
    cluster: ClusterConfig = ClusterConfig()
    transfer: TransferConfig = TransferConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    voc: VocConfig = VocConfig()

    def folders(self) -> dict[str, Path]:
        """Return the folder of each role of `data` and of each set of `evaluate.sets`.

        The roles of a set are NAME.train and NAME.test.
        """
        roles = self.data.folders()
        for name, images in self.evaluate.sets.items():
            roles |= {f"{name}.train": images.train, f"{name}.test": images.test}
        return roles

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", value):
            raise ValueError(f"expected auto, cpu, cuda or cuda:N, got {value!r}")
        return value

    @model_validator(mode="after")
    def _teacher_is_the_runs_own(self) -> "Config":
        if self.evaluate.teacher and self.cluster.features is not None:
            raise ValueError(
                "evaluate.teacher probes features that the run extracts, but cluster.features "
                "gives features of other images than the test images; leave evaluate.teacher out"
            )
        return self

    @model_validator(mode="after")
    def _arrays_are_possible(self) -> "Config":
        problem = array_problem(
            self.data, self.features, self.cluster, self.transfer, self.evaluate, self.voc
        )
        if problem:
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _crops_fit_images(self) -> "Config":
        crops = {
            "pretext.crop": self.pretext.crop,
            "features.crop": self.features.crop,
            "transfer.image_size": self.transfer.image_size,
        }
        if self.transfer.channels is not None and self.cluster.features is not None:
            # No other network than the target sees arrays whose features a file gives.
            crops = {"transfer.image_size": self.transfer.image_size}
        for name, size in crops.items():
            if size > self.data.short_side:
                raise ValueError(
                    f"{name} {size} px is larger than data.short_side {self.data.short_side} px; "
                    f"lower {name} or raise data.short_side"
                )
        return self


def load_config(
    path: str | os.PathLike[str] | None, overrides: Mapping[str, Any] | None = None
) -> Config:
    """Read a TOML file and override options.

    Parameters
    ----------
    path : path or None
        A TOML file, or the name of a recipe that ktfast ships, such as "tiny_cpu". None: the
        paper's defaults.
    overrides : mapping, optional
        Value by dotted option name, such as ``{"cluster.n_clusters": 500}``. A string is read as it
        is on a command line: "500" is a number, and "a,b" a list of two names if the option takes a
        list. Other values are used unchanged. A section may be given as a nested mapping. If an
        option of the file is refused because an override leaves it without effect, the option of
        the file is left out, and a line of the log says so.

    Returns
    -------
    config : Config
        Every option.

    Raises
    ------
    ConfigError
        The file cannot be read, or an option is unknown or has an impossible value. The message
        names the option.
    """
    values = {} if path is None else _read_toml(path)
    kinds = options()
    for name, value in dotted(overrides or {}):
        *sections, leaf = name.split(".")
        table = values
        for section in sections:
            table = table.setdefault(section, {})
            if not isinstance(table, dict):
                place = f"{path}: " if path is not None else ""
                raise ConfigError(f"{place}{section} must be a table of options, got {table!r}")
        kind = kinds[name][0] if name in kinds else None
        table[leaf] = _parse_value(value, kind) if isinstance(value, str) else value
    try:
        return parse_config(values)
    except ConfigError:
        left_out = _leave_out(values, {name for name, _ in dotted(overrides or {})})
        if not left_out:
            raise
    config = parse_config(values)
    _logger.info(
        "%s: without effect beside the given options, and left out: %s", path, ", ".join(left_out)
    )
    return config


def _leave_out(values: dict[str, Any], given: Collection[str]) -> list[str]:
    """Remove the options of the file that an override of their section leaves without effect.

    For example, a recipe gives the width of AlexNet, and an override names another target.
    """
    names = []
    for section, field in Config.model_fields.items():
        table, kind = values.get(section), field.annotation
        if not (isinstance(table, dict) and isinstance(kind, type) and issubclass(kind, Section)):
            continue
        if not any(name.startswith(f"{section}.") for name in given):
            continue
        try:
            unused = kind.model_construct(**table).unused()
        except (AttributeError, TypeError, ValueError):
            continue  # an impossible value, which the validation explains
        for leaf in sorted(unused):
            if leaf in table and f"{section}.{leaf}" not in given:
                del table[leaf]
                names.append(f"{section}.{leaf}")
    return names


def dotted(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the value of every entry of nested mappings."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from dotted(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    path = _shipped(Path(path))
    if not path.exists():
        raise ConfigError(
            f"there is no configuration file {shown(path)}; give the path of a TOML file, or one "
            f"of {', '.join(sorted(_recipes()))}"
        )
    try:
        text = read_text(path, "TOML", "write a TOML file in UTF-8", pipes=True)
        with reading(path, "TOML", "correct the file"):
            return tomllib.loads(text)
    except DataError as error:
        raise ConfigError(str(error)) from error


def _shipped(path: Path) -> Path:
    """Replace the name of a shipped recipe by the recipe's path, unless a file has that name."""
    return path if path.is_file() else _recipes().get(str(path), path)


def _recipes() -> dict[str, Path]:
    return {path.stem: path for path in RECIPES.glob("*.toml")}


def parse_config(values: Mapping[str, Any]) -> Config:
    """Validate option values.

    Parameters
    ----------
    values : mapping
        Value by option name. A section is a nested mapping.

    Returns
    -------
    config : Config
        Every option.

    Raises
    ------
    ConfigError
        An option is unknown or has an impossible value. The message names every such option.
    """
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(item) for item in error.errors())) from error


def options(section: type[Section] = Config, prefix: str = "") -> dict[str, tuple[Any, Any, str]]:
    """List every option.

    Parameters
    ----------
    section : type
        The section whose options are listed.
    prefix : str
        Dotted name of the section, with a dot at the end.

    Returns
    -------
    options : dict
        Type, default and description of each option by its dotted name.
    """
    found: dict[str, tuple[Any, Any, str]] = {}
    for name, field in section.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            nested = options(annotation, f"{prefix}{name}.")
            for key, (kind, _, text) in nested.items():
                default: Any = field.default
                for part in key.removeprefix(f"{prefix}{name}.").split("."):
                    default = getattr(default, part)
                found[key] = (kind, default, text)
        else:
            found[f"{prefix}{name}"] = (annotation, field.default, field.description or "")
    return found


def _parse_value(text: str, kind: Any) -> Any:
    """Read a command-line value of an option's type.

    Text and paths are used unchanged. Other values are read as TOML. A list may also be given as
    a,b,c. An empty value means "not set", or the empty list.
    """
    if kind is str or (Path in get_args(kind) and text):
        return text
    is_list = any(get_origin(part) is tuple for part in (kind, *get_args(kind)))
    if text == "":
        return [] if get_origin(kind) is tuple else None
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return [part.strip() for part in text.split(",")] if is_list else text
    return [value] if is_list and not isinstance(value, list) else value


def _explain(item: Any) -> str:
    """Describe one of pydantic's errors, and guess which option an unknown name means."""
    name = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, options(), n=1)
        leaf_matches = [key for key in options() if key.endswith("." + name.split(".")[-1])]
        guess = (close or leaf_matches or [None])[0]
        hint = f"; did you mean {guess}?" if guess else ""
        return f"unknown option {name}{hint}"
    message = item["msg"].removeprefix("Value error, ")
    return f"{name}: {message}" if name else message
