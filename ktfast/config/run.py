"""All options of a run, read from TOML and overridden by name."""

import difflib
import os
import re
import sys
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import Field, ValidationError, field_validator, model_validator

from ktfast.config.pipeline import (
    ClusterConfig,
    DataConfig,
    EvaluateConfig,
    FeaturesConfig,
    PretextConfig,
    TransferConfig,
)
from ktfast.config.section import Section
from ktfast.config.voc import VocConfig
from ktfast.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Config(Section):
    """One run of the whole system."""

    seed: int = Field(
        0, ge=0, lt=1 << 32, description="the one seed that every random choice depends on"
    )
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    threads: int = Field(0, ge=0, description="CPU threads; 0: all that may be used")
    data: DataConfig = DataConfig()
    pretext: PretextConfig = PretextConfig()
    features: FeaturesConfig = FeaturesConfig()
    cluster: ClusterConfig = ClusterConfig()
    transfer: TransferConfig = TransferConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    voc: VocConfig = VocConfig()

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:[0-9]+)?", value):
            raise ValueError(f"{value!r} is no device; expected auto, cpu, cuda or cuda:N")
        return value

    @model_validator(mode="after")
    def _crops_fit_images(self) -> "Config":
        for name, size in (
            ("pretext.crop", self.pretext.crop),
            ("features.crop", self.features.crop),
            ("transfer.image_size", self.transfer.image_size),
        ):
            if size > self.data.short_side:
                raise ValueError(
                    f"{name} {size} is larger than data.short_side {self.data.short_side}"
                )
        return self


def load_config(
    path: str | os.PathLike[str] | None, overrides: dict[str, str] | None = None
) -> Config:
    """Read a TOML file and apply overrides.

    Parameters
    ----------
    path : TOML file, or None for the paper's defaults.
    overrides : dotted option name -> value as typed on a command line.

    Raises
    ------
    ConfigError : the file cannot be read, or an option is unknown or impossible; names it.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ConfigError(f"there is no configuration file {path}") from error
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{path} cannot be read as TOML: {error}") from error
    kinds = options()
    for name, text in (overrides or {}).items():
        *sections, leaf = name.split(".")
        table = values
        for section in sections:
            table = table.setdefault(section, {})
            if not isinstance(table, dict):
                raise ConfigError(f"{path}: {section} must be a table of options, got {table!r}")
        table[leaf] = _parse_value(text, kinds[name][0] if name in kinds else None)
    return parse_config(values)


def parse_config(values: dict[str, Any]) -> Config:
    """Validate nested option values; `ConfigError` names every option that is wrong."""
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(item) for item in error.errors())) from error


def options(section: type[Section] = Config, prefix: str = "") -> dict[str, tuple[Any, Any, str]]:
    """Every option by its dotted name: (annotation, default, description)."""
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

    Text and paths are taken as they are, the rest as in TOML; lists may also be given as a,b,c.
    Empty is 'not set', or the empty list.
    """
    if kind is str or (Path in get_args(kind) and text):
        return text
    is_list = get_origin(kind) is tuple
    if text == "":
        return [] if is_list else None
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return [part.strip() for part in text.split(",")] if is_list else text
    return [value] if is_list and not isinstance(value, list) else value


def _explain(item: Any) -> str:
    name = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        close = difflib.get_close_matches(name, options(), n=1)
        leaf_matches = [key for key in options() if key.endswith("." + name.split(".")[-1])]
        guess = (close or leaf_matches or [None])[0]
        hint = f"; did you mean {guess}?" if guess else ""
        return f"unknown option {name}{hint}"
    message = item["msg"].removeprefix("Value error, ")
    return f"{name}: {message}" if name else message
