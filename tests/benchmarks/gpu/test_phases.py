"""The phases of K-means that only a GPU has, with a stand-in for the tensor-core screen."""

import contextlib
import inspect
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

import fits  # noqa: E402
import phases  # noqa: E402

from ktfast.ops import kmeans_tensor  # noqa: E402

REAL = kmeans_tensor.TensorScreen
N, D, K = 300, 16, 20


class Screen:
    """Every method takes what the real one takes, and works by brute force."""

    def __init__(self, mean, code, *, like):
        inspect.signature(REAL).bind(mean, code, like=like)
        assert mean.shape == (D,)
        self.calls = []

    def prepare(self, centers):
        inspect.signature(REAL.prepare).bind(self, centers)
        assert centers.dtype == torch.float64
        return centers.clone()

    def empty_codes(self, n):
        inspect.signature(REAL.empty_codes).bind(self, n)
        return torch.zeros(n)

    def encode(self, x, codes):
        inspect.signature(REAL.encode).bind(self, x, codes)
        assert len(x) == len(codes) == N

    def assign(self, *arrays, n_passed=None, **options):
        inspect.signature(REAL.assign).bind(self, *arrays, n_passed=n_passed, **options)
        x, centers, prepared, labels, distances = arrays
        assert torch.equal(centers, prepared)
        self.calls.append(options["guessed"])
        least = torch.cdist(x.double(), centers).square().min(1)
        distances.copy_(least.values)
        labels.copy_(least.indices)
        if n_passed is not None:
            n_passed += 2 * len(x)


@pytest.fixture
def device(monkeypatch):
    """The CPU, with the stand-in."""
    monkeypatch.setattr(kmeans_tensor, "TensorScreen", Screen)
    return phases.Device("cpu", small=True)


def test_every_phase_of_the_screen_is_timed(device, monkeypatch):
    monkeypatch.setattr(phases, "kernel_times", lambda call: iter([("k<1>", {"ms": 1.0})]))
    size = (N, D, K)
    data = phases.data_of(device, size)
    screening = phases.Screening(device, data, size, "int8")
    first = screening.centers
    rows = screening.rows()
    assert [row["phase"] for row in rows] == [
        "encode", "prepare", "assign, no guess", "assign, guessed",
        "assign, guessed, no certificate", "kernel k<1>",
    ]  # fmt: skip
    assert all(row["ms"] > 0 and row["code"] == "int8" for row in rows)
    assert [row.get("candidates_per_row") for row in rows] == [None, None, 2, 2, None, None]
    assert all(row["peak"] == "matmul int8" for row in rows if "tflop_per_s" in row)
    # The guesses are of the centres before their update.
    assert not torch.equal(screening.centers, first)
    labels = torch.cdist(data.x.double(), first).argmin(1)
    means = torch.stack([data.x[labels == k].double().mean(0) for k in range(K)])
    torch.testing.assert_close(screening.centers, means.float().double())
    guesses = screening.screen.calls
    assert guesses == sorted(guesses)
    assert set(guesses) == {False, True}


def test_float16_comes_before_int8_at_every_size(monkeypatch):
    """int8 can leave most rows undecided at 4,096 features; a call then takes seconds."""
    sizes = [(9, 256, 5), (9, 4096, 5)]
    device = phases.Device("cpu", small=False)
    device.on_gpu = True
    monkeypatch.setattr(phases, "sizes", lambda _: sizes)
    found = [(label.get("code"), label["case"]) for label, _ in phases.phases(device)]
    texts = [phases.text_of(size) for size in sizes]
    assert found == [(code, text) for code in ("float16", "int8", None) for text in texts]


def test_fits_in_float32_come_last(device, monkeypatch):
    monkeypatch.setattr(fits, "sizes", lambda _: [(9, 256, 5), (9, 4096, 5)])
    order = [label["precision"] for label, _ in fits.fits(device)]
    assert order == ["exact", "exact", "fast", "fast", "float32", "float32"]
    assert fits.PEAKS["exact"] == "float16"


def test_kernels_of_ktfast_are_told_from_others(monkeypatch):
    events = [
        SimpleNamespace(
            key="void ktfast::cuda::(anonymous namespace)::settle_kernel<float>(ktfast::P)",
            self_device_time_total=1500.0, count=3,
        ),
        SimpleNamespace(key="void at::native::copy_kernel()", self_device_time_total=1.0, count=1),
    ]  # fmt: skip
    profile = SimpleNamespace(key_averages=lambda: events)
    monkeypatch.setattr(torch.profiler, "profile", lambda **_: contextlib.nullcontext(profile))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    calls = []
    rows = list(phases.kernel_times(lambda: calls.append(1)))
    assert rows == [("settle_kernel<float>", {"ms": 1.5, "launches": 3})]
    assert len(calls) == 2  # the first warms up


def test_sizes_follow_the_memory_that_is_free(monkeypatch):
    device = phases.Device("cpu", small=False)
    device.on_gpu = True
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (20 * 2**30, 80 * 2**30))
    found = {d: n for n, d, _ in phases.sizes(device)}
    assert found[256] == found[512] == phases.N
    assert found[9216] < found[4096] < phases.N
    assert all(n % 128 == 0 and n * (6 * d + 600) < 20 * 2**30 for d, n in found.items())


def test_near_ties_lie_between_a_centre_and_the_next(device):
    data = phases.data_of(device, (N, D, K))
    rows = fits.near_ties(data, 200)
    distances = torch.cdist(rows.double(), data.start.double()).sort(1).values
    assert ((distances[:, 1] - distances[:, 0]) / distances[:, 0] < 1e-6).float().mean() > 0.9


def test_a_label_that_is_not_the_nearest_is_wrong_and_a_tie_is_not(device):
    data = phases.data_of(device, (N, D, K))
    labels = torch.cdist(data.x.double(), data.start.double()).argmin(1).int()
    good = fits.against_brute_force(data, data.x, labels)
    assert good == {"wrong": 0, "ties": 0}
    labels[7] = (labels[7] + 1) % K
    assert fits.against_brute_force(data, data.x, labels) == {"wrong": 1, "ties": 0}
    twice = data._replace(start=torch.cat([data.start, data.start]))
    assert fits.against_brute_force(twice, data.x[:7], labels[:7] + K) == {
        "wrong": 0, "ties": 7,
    }  # fmt: skip
