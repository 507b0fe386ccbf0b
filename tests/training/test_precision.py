"""The type in which networks compute follows the device."""

import math

import pytest
import torch

from ktfast.errors import ConfigError
from ktfast.training import precision
from ktfast.training.precision import computing_dtype
from support.one_thread import one_thread  # noqa: F401
from support.toy_training import toy_config, toy_train


def test_precision_follows_the_device(monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    for gain, expected in ((0.4, torch.float32), (2.1, torch.bfloat16)):
        monkeypatch.setattr(precision, "bfloat16_gain", lambda gain=gain: gain)
        assert computing_dtype("auto", cpu) is expected
    assert computing_dtype("bfloat16", cpu) is torch.bfloat16
    with pytest.raises(ConfigError, match="float16 needs a GPU"):
        computing_dtype("float16", cpu)
    for capability, expected in {
        (6, 1): torch.float32,
        (7, 5): torch.float16,
        (8, 0): torch.bfloat16,
        (9, 0): torch.bfloat16,
        (12, 0): torch.bfloat16,
    }.items():
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, c=capability: c)
        assert computing_dtype("auto", gpu) is expected


def test_bfloat16_trains_on_a_cpu(tmp_path):
    summary, _ = toy_train(tmp_path, toy_config(precision="bfloat16", epochs=0.5))
    assert math.isfinite(summary.metrics["loss"])
