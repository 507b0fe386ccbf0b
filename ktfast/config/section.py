"""The base class of every group of options, and the group that all trainings share."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import unquote_to_bytes

from pydantic import BaseModel, ConfigDict, Field, model_validator

# Marks the field of an option that does not change results.
_SIDE: Any = {"changes_results": False}
_URI = "file:///"


class Section(BaseModel):
    """A frozen group of options that refuses unknown names."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        """Fill in the options that a nested section lacks, and read paths that are URIs.

        The values come from this section's default for the nested section, because the defaults of
        `transfer.training` differ from those of `pretext.training`.
        """
        if not isinstance(values, dict):
            return values
        completed = dict(values)
        for name, field in cls.model_fields.items():
            if isinstance(values.get(name), dict) and isinstance(field.default, Section):
                own = field.default.model_dump(exclude_unset=True)
                completed[name] = {**own, **values[name]}
            elif Path in get_args(field.annotation) and str(values.get(name)).startswith(_URI):
                completed[name] = _from_uri(str(values[name]))
        return completed


def spell_path(path: Path) -> str:
    """Spell an absolute path in UTF-8: as it is if it is UTF-8, else as a `file:` URI.

    Bytes that are not UTF-8 are percent-encoded in the URI, as in `file:///data/caf%E9`.
    """
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError:
        return path.as_uri()
    return os.fspath(path)


def _from_uri(uri: str) -> Path:
    """Read the path of a `file:` URI."""
    return Path("/" + os.fsdecode(unquote_to_bytes(uri.removeprefix(_URI))))


def side_option(default: Any, *, description: str, **limits: Any) -> Any:
    """Declare an option that does not change results.

    Such an option says where a file lies, how much memory may be used, or how often something is
    logged or saved. Users may change it after a stage is done, or when a training is resumed.

    Parameters
    ----------
    default : Any
        Value of the option when it is not given.
    description : str
        Help text of the option.
    **limits : Any
        Limits of pydantic's ``Field``, such as ``ge=0``.

    Returns
    -------
    field : Any
        The pydantic field.
    """
    return Field(default, description=description, json_schema_extra=_SIDE, **limits)


def result_options(section: Section) -> dict[str, Any]:
    """Give the options of a section that change results, as JSON values.

    The options that `side_option` declares are left out. A nested section is given whole: run
    folders record the whole nested section, and a record must stay comparable with later versions.

    Parameters
    ----------
    section : Section
        A section of the configuration.

    Returns
    -------
    values : dict
        Value of each option by its name.
    """
    fields = type(section).model_fields.items()
    without_effect = {name for name, field in fields if field.json_schema_extra == _SIDE}
    return section.model_dump(mode="json", exclude=without_effect)


def differences(before: Any, now: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Find every value that differs between two nested mappings of JSON values.

    Parameters
    ----------
    before : Any
        What was recorded, for example the options that a stage was begun with.
    now : Any
        What is asked for now.
    name : str
        Dotted name of the two values in the mappings that hold them.

    Yields
    ------
    difference : tuple
        Dotted name, value before, value now. A value is None where a mapping lacks the name.
    """
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in sorted(before.keys() | now.keys()):
            below = f"{name}.{key}" if name else key
            yield from differences(before.get(key), now.get(key), below)
    elif before != now:
        yield name, before, now


class TrainingConfig(Section):
    """How a network is trained: SGD with momentum, one schedule, one precision."""

    epochs: float = Field(
        70.0, gt=0, description="number of passes over the images; may be a fraction"
    )
    batch_size: int = Field(256, ge=1, description="number of images per step")
    accumulate: int = Field(
        1,
        ge=1,
        description="number of micro-batches into which a batch is split, to save memory; their "
        "gradients are added up",
    )
    learning_rate: float = Field(0.01, gt=0, description="initial learning rate of the weights")
    bias_rate: float = Field(
        2.0, gt=0, description="learning rate of biases, as a multiple of learning_rate"
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of SGD")
    weight_decay: float = Field(
        5e-4, ge=0, description="factor of the L2 penalty on weights; biases have no penalty"
    )
    schedule: Literal["step", "cosine", "constant"] = Field(
        "step",
        description="how the learning rate falls; step: it drops at the times drop_at; cosine: it "
        "falls to 0 along a cosine; constant: it does not fall",
    )
    drop_at: tuple[float, ...] = Field(
        (2 / 7, 4 / 7, 6 / 7),
        description="schedule step: times at which the learning rate drops, as fractions of the "
        "training",
    )
    drop_factor: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="schedule step: factor by which the learning rate is multiplied at each drop",
    )
    warmup: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of the training, at its start, in which the learning rate rises "
        "linearly",
    )
    clip_norm: float = Field(
        0.0,
        ge=0,
        description="largest L2 norm of the gradient of all weights; a longer gradient is "
        "shortened; 0: no limit",
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="type of the matrix products; auto: bfloat16 if the device computes it fast, "
        "else float16 on a GPU of the Volta or Turing generation, else float32",
    )
    channels_last: bool = Field(
        True, description="keep images and activations in channels-last memory order"
    )
    compile: bool | Literal["auto"] = Field(
        "auto",
        description="compile the network with torch.compile; auto: on a GPU, if a trial shows that "
        "the compiled network is faster",
    )
    cuda_graphs: bool | Literal["auto"] = Field(
        "auto",
        description="run the network as CUDA graphs; auto: on a GPU, if a trial shows that the "
        "graphs are faster",
    )
    deterministic: bool = Field(
        False,
        description="use deterministic GPU algorithms only, so that a repeated training gives the "
        "same bits",
    )
    checkpoint_minutes: float = side_option(5.0, gt=0, description="minutes between checkpoints")
    log_every: int = side_option(
        20, ge=1, description="number of steps between two rows of metrics.jsonl"
    )
    tensorboard: bool = side_option(
        False, description="also write TensorBoard events; needs the package tensorboard"
    )
