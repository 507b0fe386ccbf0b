"""A fit on several processes gives the bits of a fit on one process, or an error on all of them."""

import functools
import pickle
import subprocess
import sys

import numpy as np
import pytest
from sklearn.base import clone

from ktfast import KMeans
from ktfast.errors import InputError
from ktfast.kmeans import limbs, sums
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.distributed import CommunicationError, ThreadCommunicator
from ktfast.kmeans.distributed.communicator import Alone, Communicator
from support import spread_fits
from support.spread_fits import CASES, cuts, digest, fit_part, in_threads, processes

pytestmark = pytest.mark.filterwarnings("ignore:Number of distinct clusters")


@functools.cache
def expected(name):
    return digest([fit_part(name, None, slice(None))])


def spread(name, size, kind="uneven", **options):
    """Fit a case in threads; return the models, or None, and the errors of all threads."""
    bounds = cuts(len(CASES[name][0]()), size, kind)
    return in_threads(
        size,
        lambda own: fit_part(name, own, slice(bounds[own.rank], bounds[own.rank + 1]), **options),
    )


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("size", "kind"), [(2, "even"), (3, "empty"), (4, "uneven")])
def test_any_number_of_processes_gives_the_bits_of_one(name, size, kind):
    models, errors = spread(name, size, kind)
    assert errors == [None] * size
    assert digest(models) == expected(name)


def test_a_communicator_of_one_process_changes_nothing():
    for own in (Alone(), ThreadCommunicator.group(1)[0]):
        assert digest([fit_part("weights", own, slice(None))]) == expected("weights")


@pytest.mark.parametrize("name", ["float32", "weights", "empty clusters"])
def test_64_processes_give_the_bits_of_one(name):
    models, errors = spread(name, 64)
    assert errors == [None] * 64
    assert digest(models) == expected(name)


def test_shards_and_memory_maps_of_each_process(tmp_path):
    x = spread_fits.rows()
    x.tofile(tmp_path / "x")
    mapped = np.memmap(tmp_path / "x", x.dtype, "r", shape=x.shape)
    parts = [[x[:10], x[10:3000]], mapped[3000:6000], np.asfortranarray(x[6000:])]

    def fit(own):
        model = KMeans(spread_fits.K, random_state=3, distributed=own, n_threads=1, max_iter=12)
        return model.fit(parts[own.rank])

    models, errors = in_threads(3, fit)
    assert errors == [None] * 3
    assert digest(models) == expected("float32")


def test_the_other_methods_use_the_own_rows_alone():
    x = spread_fits.rows()
    models, _ = spread("float32", 2, "even")
    np.testing.assert_array_equal(models[0].predict(x), models[1].predict(x))
    assert models[0].score(x) == pytest.approx(-models[0].inertia_)
    with pytest.raises(InputError, match="partial_fit runs on one process"):
        models[0].partial_fit(x)


def test_estimators_with_a_communicator_can_be_cloned_and_pickled():
    own = ThreadCommunicator.group(1)[0]
    assert clone(KMeans(2, distributed=own)).distributed is own
    assert isinstance(own, Communicator)
    assert pickle.loads(pickle.dumps(KMeans(2, distributed="torch"))).distributed == "torch"


def test_a_fit_without_processes_loads_no_torch():
    code = (
        "import sys, numpy as np, ktfast; from ktfast.kmeans.distributed import ThreadCommunicator;"
        "ktfast.KMeans(2, distributed=None).fit(np.eye(4)); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def errors_of(size, change, **options):
    """Fit rows in threads after ``change(rank, part)``; return the errors of all threads."""
    x = spread_fits.rows()
    bounds = cuts(len(x), size, "even")

    def fit(own):
        part = x[bounds[own.rank] : bounds[own.rank + 1]].copy()
        given = {"n_clusters": 20, "random_state": 0, **options}
        given.update(change(own.rank, part) or {})
        part = given.pop("part", part)
        weight = given.pop("weight", None)
        return KMeans(distributed=own, n_threads=1, **given).fit(part, sample_weight=weight)

    return in_threads(size, fit)[1]


@pytest.mark.parametrize("spherical", [False, True])
@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinity")])
def test_a_bad_value_raises_on_all_and_names_the_global_row(value, word, spherical):
    def change(rank, part):
        if rank == 2:
            part[17, 3] = value

    first = cuts(spread_fits.N, 4, "even")[2]
    for error in errors_of(4, change, spherical=spherical):
        assert isinstance(error, InputError)
        assert f"contains {word} in row {first + 17}" in str(error)


def test_too_large_values_raise_on_all_and_name_the_global_row():
    def change(rank, part):
        part[5] *= 1e30 if rank == 1 else 1

    first = cuts(spread_fits.N, 3, "even")[1]
    for error in errors_of(3, change):
        assert isinstance(error, InputError)
        assert f"in row {first + 5}" in str(error)


DIFFERENT = {
    "n_clusters": {"n_clusters": 21},
    "max_iter": {"max_iter": 5},
    "init": {"init": "random"},
    "random_state": {"random_state": 1},
    "spherical": {"spherical": True},
    "dtype of X": {"part": spread_fits.rows("float64")},
    "number of features": {"part": spread_fits.rows()[:, :3]},
    "use of sample_weight": {"weight": np.ones(spread_fits.N // 3)},
    "use of checkpoint": {"checkpoint": "never-written"},
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_different_parameters_are_refused_on_all(name):
    for error in errors_of(3, lambda rank, part: DIFFERENT[name] if rank == 1 else {}):
        assert isinstance(error, InputError)
        assert f"{name} is " in str(error)
        assert "on process 1" in str(error)


@pytest.mark.parametrize(
    ("given", "kind", "match"),
    [
        ({"n_clusters": 0}, InputError, "n_clusters must be"),
        ({"part": spread_fits.rows()[0]}, InputError, "Expected 2D array"),
        ({"weight": np.ones(5)}, ValueError, "sample_weight"),
        ({"init": np.ones((20, 3))}, InputError, "init is "),
    ],
)
def test_an_error_of_one_process_is_raised_on_all(given, kind, match):
    for error in errors_of(3, lambda rank, part: given if rank == 1 else {}):
        assert isinstance(error, kind)
        assert match in str(error)


def test_too_few_rows_and_weights_of_zero_are_counted_over_all_processes():
    for error in errors_of(2, lambda rank, part: {"part": part[:4], "n_clusters": 9}):
        assert "n_samples=8 should be >= n_clusters=9" in str(error)
    every = errors_of(2, lambda rank, part: {"weight": np.zeros(len(part))})
    assert all("non-zero" in str(error) for error in every)
    one = errors_of(2, lambda rank, part: {"weight": np.full(len(part), float(rank))})
    assert one == [None, None]


def test_a_failing_callable_raises_on_all():
    def init(X, n_clusters, random_state):
        raise ZeroDivisionError("in init")

    for error in errors_of(3, lambda rank, part: {"init": init}):
        assert isinstance(error, ZeroDivisionError)


def test_a_process_that_fails_alone_ends_the_others(monkeypatch):
    from ktfast.kmeans import lloyd

    make = lloyd.make_assigner

    def failing(rows, *arguments, **options):
        if rows.ranks.rank == 1:
            raise MemoryError
        return make(rows, *arguments, **options)

    monkeypatch.setattr(lloyd, "make_assigner", failing)
    errors = errors_of(3, lambda rank, part: {})
    assert isinstance(errors[1], MemoryError)
    assert all(isinstance(errors[rank], CommunicationError) for rank in (0, 2))


class Damaging(ThreadCommunicator):
    """Flips one bit of a result: of which method, at which call, and on which rank."""

    method, call, rank_hit = "sum", 0, 0
    calls = 0

    def _turn(self, method):
        if method != self.method or self.rank != self.rank_hit:
            return False
        self.calls += 1
        return self.calls == self.call

    def sum(self, array):
        total = super().sum(array)
        if self._turn("sum"):
            total[len(total) // 3] ^= 1 << 20
        return total

    def broadcast(self, message, source):
        return self._damaged("broadcast", super().broadcast(message, source))

    def gather(self, message):
        messages = super().gather(message)
        return [self._damaged("gather", each) for each in messages]

    def _damaged(self, method, message):
        if not self._turn(method):
            return message
        damaged = bytearray(message)
        damaged[len(damaged) // 2] ^= 4
        return bytes(damaged)


MESSAGES = [*(("broadcast", call, 1) for call in (1, 9, 30)), ("gather", 20, 0)]


@pytest.mark.parametrize(
    ("name", "method", "call", "rank"),
    [
        ("float32", "sum", 1, 0),
        ("float32", "sum", 4, 1),
        ("weights", "sum", 1, 2),
        *(("float32", *each) for each in MESSAGES),
        *(("weights", *each) for each in MESSAGES),
    ],
)
def test_a_flipped_bit_is_an_error_on_all(name, method, call, rank):
    bounds = cuts(spread_fits.N, 3, "even")

    def fit(own):
        changed = Damaging(own.rank, own.size, own._meeting)
        changed.method, changed.call, changed.rank_hit = method, call, rank
        return fit_part(name, changed, slice(bounds[own.rank], bounds[own.rank + 1]))

    models, errors = in_threads(3, fit)
    assert all(isinstance(error, CommunicationError) for error in errors), (models, errors)
    assert "changed bits" in str(errors[rank])


def test_a_flipped_bit_in_the_memory_of_one_process_is_an_error(monkeypatch):
    from ktfast.kmeans.sums import FollowingSums

    compute = FollowingSums.centers

    def centers(self, *arguments):
        if self._rows.ranks.rank == 1 and self._constant is not None:
            self._sums[0]._high[3, 2] ^= 1 << 12
        return compute(self, *arguments)

    monkeypatch.setattr(FollowingSums, "centers", centers)
    for error in spread("float32", 3)[1]:
        assert isinstance(error, CommunicationError)
        assert "between two iterations" in str(error)


TORCH_CASES = ("float32", "float64", "weights", "spherical", "empty clusters", "k-means++", "k = n")


@pytest.mark.parametrize("size", [1, 2, 4])
def test_processes_of_torch_give_the_bits_of_one(size, tmp_path):
    with processes(size, ["cases", tmp_path, *TORCH_CASES]) as started:
        for process in started:
            _, errors = process.communicate(timeout=280)
            assert process.returncode == 0, errors
    for name in TORCH_CASES:
        models = [pickle.loads((tmp_path / f"{name}-{i}").read_bytes()) for i in range(size)]
        assert digest(models) == expected(name)


def test_a_process_that_fails_but_lives_on_ends_the_others():
    with processes(2, ["fail"]) as started:
        found = [[process.stdout.readline().strip() for _ in range(2)] for process in started]
        assert started[1].poll() is None  # it lives on
    assert [each[0] for each in found] == ["CommunicationError", "MemoryError"]
    assert float(found[0][1]) - float(found[1][1]) < 15  # seconds; the process lives for 60 more


def test_torch_without_torchrun_is_an_error_that_says_so(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(CommunicationError, match="start the script with torchrun"):
        KMeans(2, distributed="torch").fit(np.eye(3))


@pytest.mark.parametrize("name", ["float32", "empty clusters", "weights"])
def test_float64_sums_where_integers_lose_too_many_bits(name, monkeypatch):
    monkeypatch.setattr(sums, "units_of", lambda rows, weight: None)
    models, errors = spread(name, 3)
    assert errors == [None] * 3
    assert digest(models) == digest([fit_part(name, None, slice(None))])


@pytest.mark.parametrize("name", ["float32", "float64", "uint8", "weights", "empty clusters"])
def test_a_billion_rows_keep_integer_sums(name, monkeypatch):
    # A limb of 62 bits holds 31 bits of each of 2^30 rows, so sums of most rows have two limbs.
    bits_of = limbs._bits_of
    monkeypatch.setattr(limbs, "_bits_of", lambda n: bits_of(1 << 30))
    models, errors = spread(name, 3)
    assert errors == [None] * 3
    assert digest(models) == digest([fit_part(name, None, slice(None))])
    weight = spread_fits.weights() if name == "weights" else None
    units, _ = limbs.units_of(Rows([CASES[name][0]()]), weight)
    assert units.has_low == (name != "uint8")
