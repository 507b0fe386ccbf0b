"""A memory-mapped file that is cut off during a fit is an error, not the end of the process."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ktfast
from ktfast.errors import DataError
from ktfast.features.store import FeatureStore
from ktfast.features.writer import FeatureWriter
from ktfast.ops.mapped import copied_blocks, copy_mapped, is_mapped, take_mapped

SHRINK = """
import os, sys
import numpy as np
import ktfast
from ktfast.errors import DataError

kind, path = sys.argv[1:]
x = np.load(path, mmap_mode="r")
centers = x[:8].copy()

def cut(X, n_clusters, random_state):
    os.truncate(path, 5000)
    return centers

model = ktfast.KMeans(8, init=cut, n_init=1, random_state=0)
rows = [np.load(path, mmap_mode="r")[:2000], x[2000:]] if kind == "shards" else x
try:
    if kind == "predict":
        model = ktfast.KMeans(8, init=centers, n_init=1).fit(x)
        os.truncate(path, 5000)
        model.predict(x)
    else:
        if kind == "take":
            model = ktfast.KMeans(8, init="k-means++", n_init=1)
            os.truncate(path, 5000)
        if kind == "spherical":
            model.set_params(spherical=True)
        model.fit(rows)
except DataError as error:
    print(error)
"""


@pytest.mark.parametrize("kind", ["matrix", "shards", "spherical", "predict", "take"])
def test_a_file_that_shrinks_under_a_fit_is_named(kind, tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.random.default_rng(0).normal(size=(40_000, 32)).astype(np.float32))
    done = subprocess.run(
        [sys.executable, "-c", SHRINK, kind, str(path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"{path} became shorter while its rows were read" in done.stdout


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", ">f4"])
def test_copies_equal_the_mapped_rows(dtype, tmp_path):
    rows = np.random.default_rng(0).integers(0, 200, (5000, 7)).astype(dtype)
    np.save(tmp_path / "x.npy", rows)
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert is_mapped(x)
    assert is_mapped(x[10:20])
    assert not is_mapped(x[:, 1:])
    assert not is_mapped(x.copy())  # of type memmap, but in main memory
    target = np.empty_like(rows)
    copy_mapped(x, target)
    np.testing.assert_array_equal(target, rows)
    chosen = np.random.default_rng(1).integers(0, 5000, 3000)
    np.testing.assert_array_equal(take_mapped(x[5:], chosen % 4995), rows[5:][chosen % 4995])
    assert take_mapped(x, np.array([], np.int64)).shape == (0, 7)
    found = [block.copy() for _, block in copied_blocks(x, 999)]
    assert all(block.dtype.isnative for block in found)
    np.testing.assert_array_equal(np.concatenate(found), rows)


def test_where_the_system_call_is_forbidden_the_size_is_checked(tmp_path, monkeypatch):
    monkeypatch.setattr("ktfast.ops.mapped._process_vm_readv", lambda: None)
    rows = np.random.default_rng(0).normal(size=(4000, 8))
    np.save(tmp_path / "x.npy", rows)
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    np.testing.assert_array_equal(take_mapped(x, np.array([3, 1])), rows[[3, 1]])
    np.testing.assert_array_equal(next(copied_blocks(x))[1], rows)
    os.truncate(tmp_path / "x.npy", 9000)
    with pytest.raises(DataError, match="became shorter"):
        take_mapped(x, np.array([3999]))


def test_a_feature_shard_that_shrinks_is_named(tmp_path: Path):
    writer = FeatureWriter(tmp_path, dim=64, dtype="float32")
    writer.append(np.ones((3000, 64)), np.arange(3000))
    writer.close()
    store = FeatureStore.open(tmp_path, verify=True)
    assert (store.read(slice(None)) == 1).all()
    os.truncate(tmp_path / "features-00000.npy", 10_000)
    with pytest.raises(DataError, match=r"features-00000\.npy became shorter"):
        store.read(slice(None))


def test_a_map_gives_the_bits_of_an_array(tmp_path):
    rows = np.random.default_rng(0).normal(size=(30_000, 24)).astype(np.float32)
    np.save(tmp_path / "x.npy", rows)
    x = np.load(tmp_path / "x.npy", mmap_mode="r")
    for options in ({}, {"spherical": True}, {"init": "k-means||"}):
        ours, plain = (ktfast.KMeans(50, random_state=0, **options).fit(d) for d in (x, rows))
        np.testing.assert_array_equal(ours.cluster_centers_, plain.cluster_centers_)
        np.testing.assert_array_equal(ours.labels_, plain.labels_)
