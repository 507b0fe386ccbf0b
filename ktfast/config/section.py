"""The base class of every group of options, and the group that all trainings share."""

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import unquote_to_bytes

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

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
        """Complete the given values of nested sections, and read paths that are URIs.

        A nested section gets the defaults that this section has for it. For example, the defaults
        of `transfer.training` differ from those of `pretext.training`.
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

    @field_validator("*", mode="before")
    @classmethod
    def _expand_home(cls, value: Any, info: ValidationInfo) -> Any:
        """Replace a leading ~ of a path by the home folder, as a shell does.

        An empty text means "not set", as on the command line. Python would read the text as the
        current folder.
        """
        kind = cls.model_fields[info.field_name or ""].annotation
        if Path not in (kind, *get_args(kind)) or not isinstance(value, str | Path | None):
            return value
        if value not in ("", None):
            return os.path.expanduser(value)
        if type(None) not in get_args(kind):
            raise ValueError("the path is empty, but this option needs one; give a path")
        return None

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_no_flags(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse `true` where a number is meant. Python would read it as 1."""
        kinds = set(_parts_of(cls.model_fields[info.field_name or ""].annotation))
        flags = [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, bool)]
        if flags and bool not in kinds and kinds & {int, float}:
            raise ValueError(f"expected a number, got {str(flags[0]).lower()}")
        return value

    def unused(self) -> Collection[str]:
        """Name the options of this section that other options of the section leave without effect.

        A section whose options depend on each other overrides this function.
        """
        return ()


def _parts_of(annotation: Any) -> Iterator[Any]:
    """Yield the types of which an annotation consists, such as int of `tuple[int, ...]`."""
    parts = get_args(annotation)
    if not parts:
        yield annotation
    for part in parts:
        yield from _parts_of(part)


def spell_path(path: Path) -> str:
    """Spell an absolute path in UTF-8: unchanged if its bytes are UTF-8, else as a `file:` URI.

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

    Two runs whose values are equal give the same result. The options that `side_option` declares
    are left out, and so are the options that have no effect because of other options
    (`Section.unused`). The same holds for nested sections.

    Parameters
    ----------
    section : Section
        A section of the configuration.

    Returns
    -------
    values : dict
        Value of each option by its name.
    """
    without_effect = set(section.unused())
    for name, field in type(section).model_fields.items():
        if field.json_schema_extra == _SIDE:
            without_effect.add(name)
    values = section.model_dump(mode="json", exclude=without_effect)
    for name in values:
        if isinstance(nested := getattr(section, name), Section):
            values[name] = result_options(nested)
    return values


def differences(
    before: Any, now: Any, name: str = "", defaults: Mapping[str, Any] | None = None
) -> Iterator[tuple[str, Any, Any]]:
    """Find every value that differs between two nested mappings of JSON values.

    Parameters
    ----------
    before : Any
        What was recorded, for example the options that a stage was begun with.
    now : Any
        What is asked for now.
    name : str
        Dotted name of the two values in the mappings that hold them.
    defaults : mapping, optional
        Default of every option that this version of ktfast knows, in nested mappings. An option
        that `before` lacks counts as having had its default. An option that `now` lacks has no
        effect now, and is not compared. A value that both `before` and `defaults` lack was not
        recorded, and is not compared either. None: every name that only one mapping has is a
        difference.

    Yields
    ------
    difference : tuple
        Dotted name, value before, value now. A value is None where a mapping lacks the name.
    """
    if not (isinstance(before, Mapping) and isinstance(now, Mapping)):
        if before != now:
            yield name, before, now
        return
    for key in sorted(before.keys() | now.keys()):
        below = f"{name}.{key}" if name else key
        old = before.get(key)
        if defaults is not None:
            missing = (key not in before, key not in now)
            if missing == (True, False):
                old = defaults.get(key, now[key])
            if missing == (False, True) and key in defaults:
                continue
        nested = None if defaults is None else defaults.get(key)
        known = nested if isinstance(nested, Mapping) else None
        yield from differences(old, now.get(key), below, known)


class TrainingConfig(Section):
    """How a network is trained: one optimiser, one schedule, one precision."""

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
    lanes: int = Field(
        1,
        ge=1,
        description="number of parts of a batch that processes share; each part is computed alone, "
        "with its own batch-norm statistics, and a fixed tree adds up the gradients; the weights "
        "have the same bits for every number of processes that divides lanes; 1: one process "
        "trains",
    )
    ddp: bool = Field(
        False,
        description="let processes share each batch by torch's DistributedDataParallel, which is "
        "faster than lanes; the number of processes is then part of the result, and the result of "
        "the stage names the number",
    )
    learning_rate: float = Field(0.01, gt=0, description="initial learning rate of the weights")
    bias_rate: float = Field(
        2.0, gt=0, description="learning rate of biases, as a multiple of learning_rate"
    )
    optimizer: Literal["sgd", "adamw"] = Field(
        "sgd",
        description="sgd: SGD with momentum, as in the paper; adamw: AdamW, which vision "
        "transformers need, with a learning_rate such as 0.001 and a weight_decay such as 0.05",
    )
    momentum: float = Field(
        0.9, ge=0, lt=1, description="momentum of SGD; for adamw, the factor beta1"
    )
    beta2: float = Field(
        0.999,
        gt=0,
        lt=1,
        description="optimizer adamw: factor by which the mean of the squared gradients decays "
        "per step",
    )
    epsilon: float = Field(
        1e-8,
        gt=0,
        description="optimizer adamw: number that is added to the root of the mean of the squared "
        "gradients",
    )
    weight_decay: float = Field(
        5e-4,
        ge=0,
        description="factor of the L2 penalty on weights; biases have no penalty; for adamw, the "
        "share of the learning rate by which a weight shrinks per step",
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
    drop_every: int = Field(
        0,
        ge=0,
        description="schedule step: number of steps between two drops, such as 100000 for the "
        "schedule of the paper's transfer; the drops come at these steps instead of at drop_at; 0: "
        "at drop_at",
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

    def unused(self) -> Collection[str]:
        """Name the options of the schedule "step" and of the optimiser that are not in use."""
        adamw = () if self.optimizer == "adamw" else ("beta2", "epsilon")
        drops: tuple[str, ...] = ("drop_at", "drop_factor", "drop_every")
        if self.schedule == "step":
            drops = ("drop_at",) if self.drop_every else ("drop_every",)
        # A training without ddp has the question of earlier versions, which lacked the option.
        return (*adamw, *drops, *(() if self.ddp else ("ddp",)))

    @property
    def is_shared(self) -> bool:
        """Whether several processes share each batch."""
        return self.lanes > 1 or self.ddp

    @model_validator(mode="after")
    def _ddp_fits(self) -> "TrainingConfig":
        for name in ("accumulate", "lanes"):
            if self.ddp and (parts := getattr(self, name)) > 1:
                raise ValueError(
                    f"{name} is {parts}, but a training with ddp does not use {name}: each process "
                    f"computes its part of a batch at once; leave {name} at 1, or leave ddp out"
                )
        return self

    @model_validator(mode="after")
    def _lanes_fit(self) -> "TrainingConfig":
        if self.lanes > 1 and self.accumulate > 1:
            raise ValueError(
                f"accumulate is {self.accumulate}, but a training with {self.lanes} lanes does not "
                "use accumulate: each lane is one micro-batch; leave accumulate at 1, and raise "
                "lanes to save memory"
            )
        if self.lanes > self.batch_size:
            raise ValueError(
                f"lanes is {self.lanes}, but a batch has {self.batch_size} images; give at most "
                "batch_size lanes"
            )
        return self

    @model_validator(mode="after")
    def _optimizer_has_these_options(self) -> "TrainingConfig":
        for name in ("beta2", "epsilon"):
            value = getattr(self, name)
            if self.optimizer != "adamw" and value != type(self).model_fields[name].default:
                raise ValueError(
                    f"{name} is {value:g}, but the optimizer {self.optimizer} does not use {name}; "
                    f"leave {name} out, or give optimizer adamw"
                )
        return self
