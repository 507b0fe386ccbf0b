"""The stream of features to disk keeps their order, bounds its memory and reports errors."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ktfast.errors import InputError
from ktfast.features import stream as feature_stream
from ktfast.features.store import FeatureStore
from ktfast.features.stream import FeatureStream
from ktfast.features.writer import FeatureWriter

DIM = 5


def blocks(n: int, size: int = 4):
    """Features, sample ids and rows of every block."""
    features = torch.arange(n * DIM, dtype=torch.float32).reshape(n, DIM) / 8
    rows = torch.arange(n)
    for start in range(0, n, size):
        part = slice(start, start + size)
        yield features[part], rows[part] * 7 + 3, rows[part]


def writer(folder: Path) -> FeatureWriter:
    return FeatureWriter(folder, dim=DIM, dtype="float32", shard_rows=6, resume=True)


def test_blocks_arrive_in_order(tmp_path):
    with FeatureStream(writer(tmp_path)) as stream:
        for block in blocks(23):
            stream.put(*block)
    store = FeatureStore.open(tmp_path, verify=True)
    assert store.n == 23
    np.testing.assert_array_equal(
        np.concatenate(store.shards), torch.cat([block[0] for block in blocks(23)]).numpy()
    )
    np.testing.assert_array_equal(store.sample_ids, np.arange(23) * 7 + 3)
    assert "ktfast-features" not in [thread.name for thread in threading.enumerate()]


def test_a_slow_disk_is_waited_for_only_when_enough_is_on_its_way(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_stream, "WAITING", 3)
    disk, plain = threading.Event(), FeatureWriter.append

    def slow(self, *block):
        disk.wait()
        plain(self, *block)

    monkeypatch.setattr(FeatureWriter, "append", slow)
    given = []

    def give():
        with FeatureStream(writer(tmp_path)) as stream:
            for block in blocks(40):
                stream.put(*block)
                given.append(block)

    thread = threading.Thread(target=give)
    thread.start()
    deadline = time.monotonic() + 10
    while len(given) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(given) == 4  # one block is being written, three wait
    disk.set()
    thread.join()
    assert FeatureStore.open(tmp_path).n == 40


@pytest.mark.parametrize("failing", [0, 3, 9])
def test_what_the_writer_raises_is_raised_where_blocks_come_from(tmp_path, monkeypatch, failing):
    plain, calls = FeatureWriter.append, iter(range(100))

    def full(self, *block):
        if next(calls) == failing:
            raise OSError(28, "No space left on device")
        plain(self, *block)

    def write():
        with FeatureStream(writer(tmp_path)) as stream:
            for block in blocks(40):
                stream.put(*block)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureWriter, "append", full)
        with pytest.raises(OSError, match="No space left"):
            write()
    write()  # continues after the last whole shard
    assert FeatureStore.open(tmp_path, verify=True).n == 40


def test_features_that_cannot_be_stored_are_named(tmp_path):
    def write():
        with FeatureStream(writer(tmp_path)) as stream:
            for features, ids, rows in blocks(40):
                stream.put(torch.where(rows[:, None] == 13, torch.nan, features), ids, rows)

    with pytest.raises(InputError, match="features of row 13 are not finite"):
        write()


def test_an_error_between_blocks_leaves_whole_shards(tmp_path):
    def write():
        with FeatureStream(writer(tmp_path)) as stream:
            for number, block in enumerate(blocks(40)):
                if number == 8:
                    time.sleep(0.05)
                    raise KeyboardInterrupt
                stream.put(*block)

    with pytest.raises(KeyboardInterrupt):
        write()
    resumed = writer(tmp_path)
    assert resumed.rows_done % 6 == 0
    with FeatureStream(resumed) as stream:
        for block in blocks(40):
            stream.put(*block)
    np.testing.assert_array_equal(FeatureStore.open(tmp_path).sample_ids, np.arange(40) * 7 + 3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_features_arrive_from_a_gpu(tmp_path):
    with FeatureStream(writer(tmp_path)) as stream:
        for block in blocks(2000):
            torch.cuda._sleep(1_000_000)
            stream.put(*(tensor.cuda() for tensor in block))
    expected = torch.cat([block[0] for block in blocks(2000)]).numpy()
    np.testing.assert_array_equal(np.concatenate(FeatureStore.open(tmp_path).shards), expected)
