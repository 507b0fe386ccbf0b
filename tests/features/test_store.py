"""Features on disk: all rows come back, no finished shard is lost, errors name damaged files."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ktfast.durable import write_sealed
from ktfast.errors import ConfigError, DataError, InputError
from ktfast.features.store import FeatureStore
from ktfast.features.writer import FeatureWriter

DIM = 5


def rows_of(n: int, dtype: str = "float32") -> tuple[np.ndarray, np.ndarray]:
    """Features and sample ids that follow from the row number."""
    features = np.arange(n * DIM, dtype=np.float64).reshape(n, DIM) / 8
    return features.astype(dtype), np.arange(n, dtype=np.int64) * 7 + 3


def written(folder: Path, n: int = 23, block: int = 4, shard_rows: int = 6) -> FeatureStore:
    features, ids = rows_of(n)
    writer = FeatureWriter(folder, dim=DIM, dtype="float32", shard_rows=shard_rows)
    for start in range(0, n, block):
        writer.append(features[start : start + block], ids[start : start + block])
    writer.close()
    return FeatureStore.open(folder, verify=True)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("n", [1, 5, 6, 7, 12, 23])
def test_rows_come_back(tmp_path: Path, dtype: str, n: int) -> None:
    features, ids = rows_of(n, dtype)
    writer = FeatureWriter(tmp_path, dim=DIM, dtype=dtype, meta={"layer": "conv4"}, shard_rows=6)
    for start in range(0, n, 4):
        writer.append(features[start : start + 4], ids[start : start + 4])
    writer.close()
    writer.close()
    store = FeatureStore.open(tmp_path, verify=True)
    assert (store.n, store.dim, store.dtype, store.meta) == (n, DIM, dtype, {"layer": "conv4"})
    assert [len(shard) for shard in store.shards] == [6] * (n // 6) + ([n % 6] if n % 6 else [])
    assert all(isinstance(shard, np.memmap) for shard in store.shards)
    np.testing.assert_array_equal(np.concatenate(store.shards), features)
    np.testing.assert_array_equal(store.sample_ids, ids)


def test_read_takes_rows_in_any_order(tmp_path: Path) -> None:
    store = written(tmp_path)
    features, _ = rows_of(23)
    wanted = [22, 0, 5, 6, 6, 17]
    np.testing.assert_array_equal(store.read(wanted), features[wanted])
    np.testing.assert_array_equal(store.read(slice(3, None, 2)), features[3::2])
    assert store.read([]).shape == (0, DIM)
    with pytest.raises(InputError, match=r"0 \.\. 22, got 0 \.\. 23"):
        store.read([0, 23])


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    first = written(tmp_path / "a").fingerprint
    assert written(tmp_path / "b", block=23).fingerprint == first
    assert written(tmp_path / "c", n=22).fingerprint != first


def test_a_bare_file_is_a_store(tmp_path: Path) -> None:
    features, _ = rows_of(9)
    np.save(tmp_path / "x.npy", features)
    store = FeatureStore.open(tmp_path / "x.npy")
    np.testing.assert_array_equal(store.sample_ids, np.arange(9))
    np.testing.assert_array_equal(store.read([8, 1]), features[[8, 1]])
    assert len(store.fingerprint) == 64


@pytest.mark.parametrize("content", [b"", b"junk", b"\x93NUMPY\x01\x00"])
def test_a_file_that_is_no_array_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.npy"):
        FeatureStore.open(tmp_path / "x.npy")


def test_pickled_arrays_and_wrong_shapes_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(DataError, match=r"x\.npy"):
        FeatureStore.open(tmp_path / "x.npy")
    np.save(tmp_path / "y.npy", np.zeros(4))
    with pytest.raises(DataError, match=r"y\.npy must hold numbers \[n, d\]"):
        FeatureStore.open(tmp_path / "y.npy")


def test_values_that_are_not_finite_name_their_sample(tmp_path: Path) -> None:
    features, ids = rows_of(4)
    writer = FeatureWriter(tmp_path, dim=DIM)
    features[2, 1] = np.nan
    with pytest.raises(InputError, match=r"features of row 2 .* check the model"):
        writer.append(features, ids)
    features[2, 1] = 1e5
    with pytest.raises(InputError, match=r"row 2 .*float16 .*100000.* store float32"):
        writer.append(features, ids)
    features[2, 1] = 1
    writer.append(features, ids)
    writer.close()
    assert FeatureStore.open(tmp_path).n == 4


def test_wrong_blocks_are_refused(tmp_path: Path) -> None:
    features, ids = rows_of(4)
    writer = FeatureWriter(tmp_path, dim=DIM)
    with pytest.raises(InputError, match=r"\[b, 5\]"):
        writer.append(features[:, :3], ids)
    with pytest.raises(InputError, match=r"\[4, 5\] and \[3\]"):
        writer.append(features, ids[:3])
    with pytest.raises(InputError, match="rows must follow each other from 0"):
        writer.append(features, ids, np.array([1, 2, 3, 4]))
    with pytest.raises(InputError, match="no features were appended"):
        writer.close()
    writer.append(features, ids)
    writer.append(features, ids)
    with pytest.raises(InputError, match=r"row 0 and row \d were appended to .* same sample id"):
        writer.close()
    with pytest.raises(ConfigError, match="float16 or float32"):
        FeatureWriter(tmp_path, dim=DIM, dtype="float64")


def test_resume_goes_on_after_the_last_whole_shard(tmp_path: Path) -> None:
    features, ids = rows_of(23)
    options = {"dim": DIM, "dtype": "float32", "meta": {"sizes": (1, 2)}, "shard_rows": 6}
    begun = FeatureWriter(tmp_path / "a", **options)
    begun.append(features[:15], ids[:15])
    with pytest.raises(DataError, match="unfinished after 12 rows"):
        FeatureStore.open(tmp_path / "a")
    writer = FeatureWriter(tmp_path / "a", **options, resume=True)
    assert writer.rows_done == 12
    for start in range(8, 23, 8):  # from the batch that holds row 12
        rows = np.arange(start, min(start + 8, 23))
        writer.append(features[rows], ids[rows], rows)
    writer.close()
    straight = FeatureWriter(tmp_path / "b", **options, resume=True)
    straight.append(features, ids)
    straight.close()
    for path in (tmp_path / "b").iterdir():
        assert path.read_bytes() == (tmp_path / "a" / path.name).read_bytes()
    again = FeatureWriter(tmp_path / "a", **options, resume=True)
    assert again.rows_done == 23
    again.append(features[20:], ids[20:], np.arange(20, 23))
    with pytest.raises(InputError, match="complete with 23 rows"):
        again.append(features[:1], ids[:1])
    again.close()
    with pytest.raises(ConfigError, match=r"dim 5 is now 4"):
        FeatureWriter(tmp_path / "a", **{**options, "dim": 4}, resume=True)


@pytest.mark.parametrize("position", range(0, 200, 9))
def test_a_flipped_byte_is_found_and_only_that_part_made_again(
    tmp_path: Path, position: int
) -> None:
    before = written(tmp_path).fingerprint
    path = tmp_path / ("features-00001.npy" if position % 2 else "sample_ids-00001.npy")
    content = bytearray(path.read_bytes())
    content[position % len(content)] ^= 0x10
    path.write_bytes(content)
    with pytest.raises(DataError, match=path.name):
        FeatureStore.open(tmp_path, verify=True)
    writer = FeatureWriter(tmp_path, dim=DIM, dtype="float32", shard_rows=6, resume=True)
    assert writer.rows_done == 6
    features, ids = rows_of(23)
    writer.append(features[6:], ids[6:])
    writer.close()
    assert FeatureStore.open(tmp_path, verify=True).fingerprint == before


def test_missing_and_truncated_parts_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"manifest\.json is missing"):
        FeatureStore.open(tmp_path)
    written(tmp_path)
    os.truncate(tmp_path / "features-00002.npy", 130)
    with pytest.raises(DataError, match=r"features-00002\.npy is damaged: .*features stage"):
        FeatureStore.open(tmp_path)
    content = (tmp_path / "manifest.json").read_text()
    (tmp_path / "manifest.json").write_text(content.replace('"rows"', '"rowz"', 1))
    with pytest.raises(DataError, match=r"manifest\.json is damaged"):
        FeatureStore.open(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(DataError, match=r"manifest\.json is damaged"):
        FeatureStore.open(tmp_path)
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(DataError, match=r"manifest\.json is damaged"):
        FeatureStore.open(tmp_path)
    write_sealed(tmp_path / "manifest.json", {"schema": 99})
    with pytest.raises(DataError, match="not a feature manifest"):
        FeatureStore.open(tmp_path)


ENDLESS = """
import sys, numpy as np
from ktfast.features.writer import FeatureWriter
writer = FeatureWriter(sys.argv[1], dim=64, dtype="float32", shard_rows=16, resume=True)
print("ready", flush=True)
row = writer.rows_done
while True:
    writer.append(np.full((1, 64), row), [row], [row])
    row += 1
"""


def test_a_killed_writer_leaves_whole_shards(tmp_path: Path) -> None:
    done = 0
    for trial in range(4):
        command = [sys.executable, "-c", ENDLESS, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.03 + 0.037 * trial)
            process.send_signal(signal.SIGKILL)
        writer = FeatureWriter(tmp_path, dim=64, dtype="float32", shard_rows=16, resume=True)
        assert writer.rows_done >= done
        done = writer.rows_done
    assert done > 0
    writer.append(np.full((1, 64), done), [done], [done])
    writer.close()
    store = FeatureStore.open(tmp_path, verify=True)
    np.testing.assert_array_equal(store.read(slice(None))[:, 5], np.arange(done + 1))


def test_masks_and_fractions_are_no_row_numbers(tmp_path: Path) -> None:
    writer = FeatureWriter(tmp_path / "f", dim=2)
    writer.append(np.zeros((3, 2), np.float32), np.arange(3))
    with pytest.raises(InputError, match="sample_ids must be integers, got float64"):
        writer.append(np.zeros((1, 2), np.float32), [1.5])
    writer.close()
    store = FeatureStore.open(tmp_path / "f")
    for rows in (np.array([True, False, True]), [1.9], 1):
        with pytest.raises(InputError, match=r"row numbers \[m\].*np\.flatnonzero\(mask\)"):
            store.read(rows)
    assert store.read([]).shape == (0, 2)
