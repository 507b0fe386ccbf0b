"""kmeans_update against a plain loop: equal bits for any threads, split, dtype and device."""

import numpy as np
import pytest

from ktfast.ops import kmeans_update
from ktfast.reference import kmeans as reference
from support.kmeans_cases import fewer
from support.optional import torch


def example(n, d, k, dtype="float32", seed=0):
    generator = np.random.default_rng(seed)
    x = (generator.normal(size=(n, d)) * 20 + 60).astype(dtype)
    labels = generator.integers(0, k, size=n).astype(np.int32)
    weight = generator.random(n) * generator.integers(0, 2, size=n)
    return x, labels, weight


def check(actual, x, labels, k, weight=None):
    for a, b in zip(actual, reference.update(x, labels, k, weight), strict=True):
        assert a.dtype == np.float64
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint8", "int8"])
@pytest.mark.parametrize(
    ("n", "d", "k"), [(0, 3, 2), (1, 1, 1), (5, 0, 2), (100, 7, 3), (50, 600, 9), (300, 3, 1000)]
)
def test_adds_in_the_order_of_the_rows(n, d, k, dtype, weighted, backend):
    x, labels, weight = example(n, d, k, dtype)
    weight = weight if weighted else None
    there = backend.array(x), backend.array(labels)
    found = kmeans_update(
        *there, k, sample_weight=None if weight is None else backend.array(weight)
    )
    check([backend.numpy(array) for array in found], x, labels, k, weight)


def test_by_hand(backend):
    x = np.array([[1, 2], [3, 4], [5, 6]], dtype=np.float32)
    labels = np.array([1, 0, 1], np.int32)
    sums, counts = kmeans_update(backend.array(x), backend.array(labels), 3)
    np.testing.assert_array_equal(backend.numpy(sums), [[3, 4], [6, 8], [0, 0]])
    np.testing.assert_array_equal(backend.numpy(counts), [1, 2, 0])


def test_threads_and_splits_give_the_same_bits(monkeypatch):
    x, labels, weight = example(2000, 300, 7)
    x *= np.float32(1.1)
    expected = kmeans_update(x, labels, 7, sample_weight=weight, n_threads=1)
    for n_threads in (2, 3, 16):
        actual = kmeans_update(x, labels, 7, sample_weight=weight, n_threads=n_threads)
        np.testing.assert_array_equal(actual[0], expected[0])
    out = np.zeros((7, 300)), np.zeros(7)
    for i, j in [(0, 1), (1, 700), (700, 2000)]:
        kmeans_update(x[i:j], labels[i:j], 7, sample_weight=weight[i:j], out=out)
    np.testing.assert_array_equal(out[0], expected[0])
    np.testing.assert_array_equal(out[1], expected[1])
    monkeypatch.setattr("ktfast.ops.vectors.CALL_BYTES", 10_000)
    actual = kmeans_update(x, labels, 7, sample_weight=weight)
    np.testing.assert_array_equal(actual[0], expected[0])


def test_a_caller_that_flushes_subnormal_numbers():
    x, labels, weight = example(100, 7, 3)
    x = (x * 1e-40).astype(np.float32)
    expected = reference.update(x, labels, 3, weight)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormal numbers")
    try:
        sums, counts = kmeans_update(x, labels, 3, sample_weight=weight)
    finally:
        torch.set_flush_denormal(False)
    assert sums.tobytes() == expected[0].tobytes()
    np.testing.assert_array_equal(counts, expected[1])


def test_layouts():
    x, labels, weight = example(60, 11, 4)
    for array in (np.asfortranarray(x), x.astype(">f4"), np.concatenate([x, x], 1)[:, :11]):
        check(
            kmeans_update(array, labels, 4, sample_weight=weight.astype(np.float32)),
            x,
            labels,
            4,
            weight.astype(np.float32),
        )
    x.flags.writeable = False
    labels.flags.writeable = False
    check(kmeans_update(x, np.repeat(labels, 2)[::2], 4), x, labels, 4)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "uint8", "int8"])
@pytest.mark.parametrize(("n", "d", "k"), [(0, 3, 2), (9000, 3, 40), (100, 300, 7), (50, 2, 5000)])
def test_torch(device, dtype, n, d, k):
    x, labels, weight = example(n, d, k)
    x = torch.from_numpy(x).to(device, getattr(torch, dtype))
    for w in (None, torch.from_numpy(weight).to(device)):
        actual = kmeans_update(x, torch.from_numpy(labels).to(device), k, sample_weight=w)
        assert actual[0].device == x.device
        check(
            [a.cpu().numpy() for a in actual],
            x.double().cpu().numpy(),
            labels,
            k,
            None if w is None else weight,
        )


def test_half_precision_is_converted_exactly(backend):
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    every = every[np.isfinite(every)][:: fewer(1, 31), None]
    labels = np.arange(len(every), dtype=np.int32)
    sums, _ = kmeans_update(backend.array(every), backend.array(labels), len(every))
    np.testing.assert_array_equal(backend.numpy(sums), every.astype(np.float64))


def test_bfloat16_is_converted_exactly(device):
    bits = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int16).view(torch.bfloat16)
    bits = bits[torch.isfinite(bits)][:: fewer(1, 31), None]
    labels = torch.arange(len(bits), dtype=torch.int32)
    sums, _ = kmeans_update(bits.to(device), labels.to(device), len(bits))
    assert torch.equal(sums.cpu(), bits.double())


def test_refusals():
    x, labels, weight = example(10, 3, 4)
    for bad in (-1, 4):
        wrong = labels.copy()
        wrong[5] = bad
        with pytest.raises(ValueError, match="labels must lie between 0 and n_clusters - 1"):
            kmeans_update(x, wrong, 4)
    with pytest.raises(TypeError, match="labels must be int32, got int64"):
        kmeans_update(x, labels.astype(np.int64), 4)
    with pytest.raises(ValueError, match="labels must have shape"):
        kmeans_update(x, labels[:9], 4)
    with pytest.raises(ValueError, match="n_clusters must be at least 1"):
        kmeans_update(x, labels, 0)
    with pytest.raises(ValueError, match="sample_weight must have shape"):
        kmeans_update(x, labels, 4, sample_weight=weight[:5])
    with pytest.raises(TypeError, match="x must be one of"):
        kmeans_update(x.astype(np.int32), labels, 4)
    with pytest.raises(ValueError, match="sums must have shape"):
        kmeans_update(x, labels, 4, out=(np.zeros((3, 3)), np.zeros(4)))
