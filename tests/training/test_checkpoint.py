"""Checkpoints: reading gives what was written, and an earlier checkpoint replaces a damaged one."""

import errno
import logging
import os
import resource

import pytest
import torch

from ktfast.errors import DataError
from ktfast.training.checkpoint import CheckpointFolder

BLOCK = 4096


def state(seed: int, values: int = 5000) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "model.weight": torch.randn(values, generator=generator),
        "model.half": torch.randn(7, 3, generator=generator).bfloat16(),
        "model.count": torch.tensor(seed),
        "model.conv": torch.randn(4, 3, 5, 5, generator=generator).to(
            memory_format=torch.channels_last
        ),
        "random.cpu": torch.randint(0, 255, (100,), generator=generator, dtype=torch.uint8),
        "model.none": torch.empty(0, 4),
    }


def test_a_checkpoint_comes_back(tmp_path):
    facts = {"seconds": 0.1 + 0.2, "metrics": {"loss": 1e-300}, "nested": [1, None, "é"]}
    CheckpointFolder(tmp_path).save(12, state(1), facts)
    found = CheckpointFolder(tmp_path).load()
    assert found.step == 12
    assert found.facts == facts
    assert found.tensors.keys() == state(1).keys()
    for name, value in state(1).items():
        assert torch.equal(found.tensors[name], value), name
        assert found.tensors[name].dtype == value.dtype


def test_an_empty_folder_has_none(tmp_path):
    (tmp_path / "checkpoint-notes.safetensors").write_bytes(b"not ours")
    assert CheckpointFolder(tmp_path).load() is None


def test_the_last_two_are_kept(tmp_path):
    folder = CheckpointFolder(tmp_path)
    for step in (1, 9, 10, 200):
        folder.save(step, state(step), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-10.safetensors",
        "checkpoint-200.safetensors",
    ]


def damaged(whole: bytes) -> dict[str, bytes]:
    """Damaged contents: each block overwritten, single bits flipped, the file cut at each block."""
    cases = {"empty": b"", "longer": whole + b"\0"}
    for start in range(0, len(whole), BLOCK):
        block = bytes(255 - byte for byte in whole[start : start + BLOCK])
        cases[f"block {start}"] = whole[:start] + block + whole[start + BLOCK :]
        cases[f"cut {start}"] = whole[:start]
    for bit in range(0, 8 * len(whole), 8 * len(whole) // 300):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        cases[f"bit {bit}"] = bytes(flipped)
    return cases


def test_all_damage_is_found_and_the_one_before_stands_in(tmp_path, caplog):
    folder = CheckpointFolder(tmp_path)
    folder.save(1, state(1), {"who": "first"})
    newest = folder.save(2, state(2), {"who": "second"})
    whole = newest.read_bytes()
    cases = damaged(whole)
    for name, content in cases.items():
        newest.write_bytes(content)
        with caplog.at_level(logging.WARNING):
            found = CheckpointFolder(tmp_path).load()
        if found.step == 2:
            # A flipped bit in the header's padding is not found, and must change no value.
            assert found.facts == {"who": "second"}, name
            assert all(torch.equal(found.tensors[k], v) for k, v in state(2).items()), name
            assert name.startswith("bit"), name
        else:
            assert found.facts == {"who": "first"}, name
            assert "checkpoint-2.safetensors" in caplog.text
        caplog.clear()
    assert len(cases) > 300


def test_nothing_usable_is_an_error(tmp_path):
    folder = CheckpointFolder(tmp_path)
    for step in (1, 2):
        path = folder.save(step, state(step), {})
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=f"none of the 2 checkpoints in {tmp_path} can be used"):
        CheckpointFolder(tmp_path).load()


def test_a_damaged_one_is_never_kept_in_place_of_a_whole_one(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.save(100, state(1), {})
    folder.save(200, state(2), {}).write_bytes(b"damaged")
    folder = CheckpointFolder(tmp_path)
    assert folder.load().step == 100
    folder.save(150, state(3), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-100.safetensors",
        "checkpoint-150.safetensors",
    ]


def test_what_a_killed_save_left_is_removed(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.save(1, state(1), {})
    (tmp_path / ".checkpoint-2.safetensors.99.tmp").write_bytes(b"half")
    assert CheckpointFolder(tmp_path).load().step == 1
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1.safetensors"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_failing_save_raises_and_changes_nothing(tmp_path, monkeypatch, call, code):
    folder = CheckpointFolder(tmp_path)
    folder.save(1, state(1), {})

    def fail(*_):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(f"ktfast.durable.os.{call}", fail)
        with pytest.raises(OSError, match=os.strerror(code)):
            folder.save(2, state(2), {})
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1.safetensors"]
    assert CheckpointFolder(tmp_path).load().step == 1
    folder.save(2, state(2), {})
    assert CheckpointFolder(tmp_path).load().step == 2


def test_a_write_cut_short_by_the_system_raises(tmp_path):
    folder = CheckpointFolder(tmp_path)
    folder.save(1, state(1), {})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (BLOCK, before[1]))
    try:
        with pytest.raises(OSError, match=r"[Ff]ile too large"):
            folder.save(2, state(2), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1.safetensors"]
    assert CheckpointFolder(tmp_path).load().step == 1
