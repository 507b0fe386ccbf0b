"""Rows streamed from the host: the order of copies, the memory budget and the bits of a fit."""

import threading
from concurrent.futures import wait

import numpy as np
import pytest

import ktfast.kmeans.inputs
from ktfast import KMeans
from ktfast.errors import InputError
from ktfast.kmeans.data.memory_plan import GpuTarget, MemoryPlan, make_plan
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.data.streaming import HostStream
from ktfast.kmeans.data.workspace import to_host
from ktfast.kmeans.lloyd import lloyd
from support.fake_device import FakeDevice
from support.kmeans_cases import assert_consistent, assert_same, least_budget, mixture
from support.optional import torch


@pytest.fixture
def device(monkeypatch):
    """The fake device that `device="cuda"` opens."""
    fake = FakeDevice()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # the blocks are too small for more threads
    monkeypatch.setattr(ktfast.kmeans.inputs, "open_device", lambda index: fake)
    return fake


def stream(shards, plan, device=None):
    shards = shards if isinstance(shards, list) else [shards]
    name = str(shards[0].dtype).removeprefix("torch.")
    name = "float32" if name == ">f4" else name
    return HostStream(shards, name, device or FakeDevice(), plan, 2)


@pytest.mark.parametrize("resident", [0, 128, 384, 1000])
@pytest.mark.parametrize("layout", ["whole", "shards", "strided", "big-endian", "torch"])
def test_every_row_comes_once_and_in_order(resident, layout):
    x = mixture(1000)
    given = {
        "whole": x,
        "shards": [x[:0], x[:5], x[5:600], x[600:]],
        "strided": np.repeat(x, 2, axis=1)[:, ::2],
        "big-endian": x.astype(">f4"),
        "torch": torch.from_numpy(x),
    }[layout]
    blocks = stream(given, MemoryPlan(resident, 128, 0))
    for _ in range(3):
        places, rows = zip(*((p, block.copy()) for p, block in blocks.parts()), strict=True)
        assert [p.start for p in places] == [0, *(p.stop for p in places[:-1])]
        assert places[-1].stop == 1000
        np.testing.assert_array_equal(np.concatenate(rows), x)


def test_bfloat16_arrives_as_its_bits():
    x = torch.from_numpy(mixture(300)).bfloat16()
    device = FakeDevice()
    device.matrix = lambda memory, dtype, n, d: (
        dtype,
        memory.view(np.int16)[: n * d].reshape(n, d),
    )
    found = [block.copy() for _, (_, block) in stream(x, MemoryPlan(0, 128, 0), device).parts()]
    np.testing.assert_array_equal(np.concatenate(found), x.view(torch.int16).numpy())


def test_a_copy_waits_for_the_kernels_that_read_its_memory_before():
    device = FakeDevice()
    blocks = stream(mixture(1000), MemoryPlan(0, 128, 0), device)
    for _ in range(2):
        for place, _ in blocks.parts():
            device.log.append(("kernels", place.start))
    # A copy waits for an event that was recorded after the last kernels that read its memory.
    last_read, newest = {}, {}
    current = None
    for i, entry in enumerate(device.log):
        if entry[0] == "made":
            current = entry[1]
        elif entry[0] == "kernels":
            last_read[current] = i
        elif entry[0] == "computed":
            newest[entry[1]] = i
        elif entry[0] == "copy" and entry[1] in last_read:
            assert newest[entry[2]] > last_read[entry[1]]
    assert len(last_read) == 3


def test_the_next_copy_is_queued_while_kernels_work():
    device = FakeDevice()
    for place, _ in stream(mixture(1000), MemoryPlan(0, 128, 0), device).parts():
        queued = sum(entry[0] == "copy" for entry in device.log)
        assert queued == min(8, place.start // 128 + 2)
    assert device.log.count(("wait",)) == 5  # only for pinned memory


def filled_blocks(blocks, monkeypatch):
    """The first rows of the blocks that threads copy to pinned memory, and the threads."""
    filled, threads = [], set()
    copy = blocks._copy

    def record(target, start):
        copy(target, start)
        filled.append(start)
        threads.add(threading.current_thread())

    monkeypatch.setattr(blocks, "_copy", record)
    return filled, threads


@pytest.mark.parametrize("resident", [0, 256, 1000])
def test_the_threads_fill_ahead(resident, monkeypatch):
    """The first streamed blocks are copied before the next pass, by the threads of the stream."""
    device = FakeDevice()
    x = mixture(1000)
    blocks = stream(x, MemoryPlan(resident, 128, 0), device)
    filled, threads = filled_blocks(blocks, monkeypatch)
    blocks.expect_passes()
    starts = list(range(0, 1000, 128))
    streamed = [start for start in starts if start >= resident]
    list(blocks.parts())
    for buffer in blocks._buffers:
        wait(buffer.fills)
    assert sorted(filled) == sorted(starts + streamed[:3])
    for place, block in blocks.parts():
        np.testing.assert_array_equal(block, x[place])
        if place.start == 0:
            # Two copies are queued already when kernels process the first block of the pass.
            copies = [entry[0] for entry in device.log].count("copy")
            assert copies == len(starts) + min(2, len(streamed))
    for buffer in blocks._buffers:
        wait(buffer.fills)
    assert sorted(filled) == sorted(starts + streamed + streamed[:3])
    assert len(threads) <= 2
    assert threading.main_thread() not in threads


def test_an_error_of_a_fill_ends_the_pass(monkeypatch):
    blocks = stream(mixture(1000), MemoryPlan(0, 128, 0))
    copy = blocks._copy

    def broken(target, start):
        if start == 384:
            raise OSError("no such rows")
        copy(target, start)

    monkeypatch.setattr(blocks, "_copy", broken)
    with pytest.raises(OSError, match="no such rows"):
        list(blocks.parts())
    monkeypatch.setattr(blocks, "_copy", copy)
    assert len(list(blocks.parts())) == 8


def test_a_resident_prefix_is_copied_once():
    device = FakeDevice()
    blocks = stream(mixture(1000), MemoryPlan(384, 128, 0), device)
    for copies in (8, 5, 5):
        device.log.clear()
        assert len(list(blocks.parts())) == 8
        assert sum(entry[0] == "copy" for entry in device.log) == copies


def test_everything_resident_needs_no_block_beside_it():
    device = FakeDevice()
    x = mixture(1000)
    blocks = stream(x, MemoryPlan(1000, 128, 0), device)
    list(blocks.parts())
    assert device.peak == x.nbytes
    device.log.clear()
    list(blocks.parts())
    assert device.log == []


def test_a_pass_that_breaks_off_leaves_nothing_in_flight():
    device = FakeDevice()
    x = mixture(1000)
    blocks = stream(x, MemoryPlan(128, 128, 0), device)
    for stop in (0, 256):
        parts = blocks.parts()
        for place, _ in parts:
            if place.start == stop:
                break
        parts.close()
        assert all(copy.done for copy in device._copies)
        np.testing.assert_array_equal(np.concatenate([b.copy() for _, b in blocks.parts()]), x)


def test_plans_keep_to_the_budget():
    n, d, k = 1_000_000, 256, 2000
    everything = make_plan(n, d, 4 * d, k, 1 << 40)
    assert everything.resident == n
    least = least_budget(np.broadcast_to(np.float32(0), (n, d)), k)
    former = -1
    for budget in (least, 2 * least, 4 * least, 1 << 29, 1 << 30):
        plan = make_plan(n, d, 4 * d, k, max(budget, least))
        assert former <= plan.resident < n
        assert plan.block % 128 == plan.resident % 128 == 0
        assert plan.block > 0
        assert plan.spare >= 0
        former = plan.resident
    with pytest.raises(InputError, match=r"^1,000 bytes of GPU .* at least [0-9,]{9,};"):
        make_plan(n, d, 4 * d, k, 1000)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint8"])
@pytest.mark.parametrize("weighted", [False, True])
def test_streamed_is_in_core_bit_for_bit(device, dtype, weighted, tmp_path):
    x = np.abs(mixture(1500) * 5).astype(dtype)
    weight = np.random.default_rng(0).random(len(x)) if weighted else None
    x.tofile(tmp_path / "x")
    mapped = np.memmap(tmp_path / "x", dtype=dtype, mode="r", shape=x.shape)
    expected = KMeans(12, random_state=3).fit(x, sample_weight=weight)
    least = least_budget(x, 12)
    for given, budget in (
        (x, least),
        (mapped, least + x.nbytes // 2),
        ([x[:700], x[700:]], None),
    ):
        model = KMeans(12, random_state=3, device="cuda", memory_budget=budget)
        model.fit(given, sample_weight=weight)
        assert_same(model, expected)
        assert type(model.labels_) is type(model.cluster_centers_) is np.ndarray
        np.testing.assert_array_equal(model.counts_, expected.counts_)
        assert [r["moved"] for r in model.history_] == [r["moved"] for r in expected.history_]
        np.testing.assert_array_equal(model.predict(given), expected.labels_)
        assert model.score(given, sample_weight=weight) == -model.inertia_
        np.testing.assert_allclose(model.transform(given), expected.transform(x), rtol=1e-5)
    assert any(entry[0] == "copy" for entry in device.log)


@pytest.mark.parametrize("init", ["k-means||", "k-means++", "random"])
def test_starts_and_empty_clusters(device, init):
    x = mixture(1500)
    x[900:] = x[:600]
    options = {"n_clusters": 400, "init": init, "n_init": 2, "random_state": 0}
    expected = KMeans(**options).fit(x)
    budget = least_budget(x, 400)
    model = KMeans(**options, device="cuda", memory_budget=budget).fit(x)
    assert_same(model, expected)
    assert_consistent(model, x)
    start = np.zeros((300, 16))  # all but one cluster start empty
    expected = KMeans(300, init=start).fit(x)
    assert expected.history_[0]["relocated"] > 0
    assert_same(KMeans(300, init=start, device="cuda", memory_budget=budget).fit(x), expected)


def test_mini_batches(device):
    x = mixture(1000)
    models = [KMeans(12, random_state=0, device=where) for where in (None, "cuda")]
    for batch in np.split(x, 5):
        for model in models:
            model.partial_fit(batch)
        np.testing.assert_array_equal(models[0].cluster_centers_, models[1].cluster_centers_)
        np.testing.assert_array_equal(models[0].labels_, models[1].labels_)


def test_spherical(device):
    x = mixture(2000) + 1
    options = {"n_clusters": 12, "random_state": 0, "spherical": True, "device": "cuda"}
    resident = KMeans(**options).fit(x)
    work = 28 * x.shape[1] * 128
    streamed = KMeans(**options, memory_budget=least_budget(x, 12) + work).fit(x)
    assert_same(streamed, resident)
    on_host = KMeans(**{**options, "device": None}).fit(x)
    np.testing.assert_array_equal(streamed.labels_, on_host.labels_)
    np.testing.assert_array_equal(streamed.predict(x), streamed.labels_)
    x[57] = 0
    with pytest.raises(InputError, match="only zeros, which have no direction, in row 57"):
        KMeans(**options).fit(x)


def test_an_iteration_reads_streamed_rows_once(device):
    x = mixture(1280)
    rows = Rows([x], target=GpuTarget(device, least_budget(x, 12), 12))
    result = lloyd(rows, x[:12].astype(float), None, mean=x[0], max_iter=5, tolerance=0)
    device.log.clear()
    again = lloyd(rows, x[:12].astype(float), None, mean=x[0], max_iter=5, tolerance=0)
    copies = sum(entry[0] == "copy" for entry in device.log)
    passes = 1 + len(again.history) + 1  # the ranges, each iteration, the last assignment
    assert copies == passes * 10
    np.testing.assert_array_equal(to_host(result.labels), to_host(again.labels))


@pytest.mark.parametrize("k", [12, 300])
def test_memory_stays_within_the_budget(device, k):
    x = mixture(20_000)
    for budget in (least_budget(x, k), least_budget(x, k) + x.nbytes // 2, 1 << 28):
        device.peak = device.in_use
        KMeans(k, random_state=0, device="cuda", memory_budget=budget, max_iter=3).fit(x)
        assert 0 < device.peak <= budget


@pytest.mark.parametrize(
    ("value", "message"),
    [(np.nan, "NaN in row 570"), (np.inf, "infinity in row 570"), (3e38, "too large to cluster")],
)
def test_bad_rows_are_named(device, value, message):
    x = mixture(1000)
    model = KMeans(12, random_state=0, device="cuda", memory_budget=least_budget(x, 12)).fit(x)
    x[570, 3] = value
    with pytest.raises(InputError, match=message):
        model.fit(x)
    if not abs(value) < np.inf:
        for use in (model.predict, model.transform, model.score):
            with pytest.raises(InputError, match=message):
                use(x)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, 'device must be None, "cpu", "cuda" or "cuda:N"'),
        ({"device": "cuda", "memory_budget": 1000}, "1,000 bytes of GPU memory may be used"),
        ({"memory_budget": 0}, "memory_budget must be None or a number of bytes"),
        ({"memory_budget": 1e9}, "memory_budget must be None or a number of bytes"),
    ],
)
def test_options_are_checked(device, options, message):
    with pytest.raises(InputError, match=message):
        KMeans(12, **options).fit(mixture(100))
