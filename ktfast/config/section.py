"""What every group of options is, and the group that all trainings share."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    """A frozen group of options that refuses unknown names."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        """Complete groups of options that are given in part as this one's defaults have them."""
        if not isinstance(values, dict):
            return values
        completed = dict(values)
        for name, field in cls.model_fields.items():
            if isinstance(values.get(name), dict) and isinstance(field.default, Section):
                own = field.default.model_dump(exclude_unset=True)
                completed[name] = {**own, **values[name]}
        return completed


class TrainingConfig(Section):
    """How a network is trained: SGD with momentum, one schedule, one precision."""

    epochs: float = Field(70.0, gt=0, description="passes over the data; may be fractional")
    batch_size: int = Field(256, ge=1, description="images a step")
    accumulate: int = Field(1, ge=1, description="micro-batches a step; batch_size is split")
    learning_rate: float = Field(0.01, gt=0, description="initial learning rate of the weights")
    bias_rate: float = Field(2.0, gt=0, description="learning-rate factor of biases (no decay)")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD momentum")
    weight_decay: float = Field(5e-4, ge=0, description="L2 penalty on weights, not on biases")
    schedule: Literal["step", "cosine", "constant"] = Field(
        "step", description="how the learning rate falls"
    )
    drop_at: tuple[float, ...] = Field(
        (2 / 7, 4 / 7, 6 / 7),
        description="schedule step: when it drops, as fractions of the training",
    )
    drop_factor: float = Field(0.1, gt=0, lt=1, description="schedule step: factor of each drop")
    warmup: float = Field(
        0.0, ge=0, lt=1, description="fraction of the training that rises linearly"
    )
    clip_norm: float = Field(
        0.0, ge=0, description="longest gradient of a step, all weights together; 0: no limit"
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="auto: bfloat16 where the device is fast at it, else float16 or float32"
    )
    channels_last: bool = Field(True, description="keep activations channels-last")
    compile: bool | Literal["auto"] = Field(
        "auto", description="torch.compile the network; auto: on a GPU, where a trial is faster"
    )
    cuda_graphs: bool | Literal["auto"] = Field(
        "auto", description="run the network as CUDA graphs; auto: where a trial is faster"
    )
    deterministic: bool = Field(False, description="only deterministic GPU algorithms")
    checkpoint_minutes: float = Field(5.0, gt=0, description="minutes between checkpoints")
    log_every: int = Field(20, ge=1, description="steps between rows of metrics.jsonl")
    tensorboard: bool = Field(False, description="also write TensorBoard events, if installed")
