"""Many Python threads use the kernels at the same time, also where Python has no GIL."""

import hashlib
import sys
import threading

import numpy as np
import pytest

import ktfast
from ktfast.native import modules
from ktfast.ops import jigsaw_tiles, kmeans_assign

N_THREADS, N_ROUNDS = 8, 6


def digest(*arrays):
    return hashlib.sha256(b"".join(np.asarray(a).tobytes() for a in arrays)).hexdigest()


def work(seed):
    """Fit, assign and make puzzles; the result depends on the seed alone."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(700 + seed, 24)).astype(np.float32)
    n_threads = 1 + seed % 3
    fitted = ktfast.KMeans(70, random_state=seed, max_iter=3, n_threads=n_threads).fit(x)
    labels, distances = kmeans_assign(x, fitted.cluster_centers_, n_threads=n_threads)
    images = generator.integers(0, 256, size=(3, 64, 64, 3), dtype=np.uint8)
    permutations = np.array([[0, 1, 2, 3], [3, 2, 1, 0]], dtype=np.int32)
    tiles, chosen = jigsaw_tiles(
        images, permutations, sample_ids=range(3), seed=seed, epoch=0, tile_size=24,
        n_threads=n_threads,
    )  # fmt: skip
    return digest(fitted.labels_, fitted.cluster_centers_, labels, distances, tiles, chosen)


def in_threads(run):
    """Run a function in threads that start together, and raise what any of them raises."""
    barrier, errors = threading.Barrier(N_THREADS), []

    def guarded(thread):
        try:
            barrier.wait()
            run(thread)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(N_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_threads_do_not_disturb_each_other():
    seeds = range(N_THREADS + N_ROUNDS)
    expected = [work(seed) for seed in seeds]
    found = [[] for _ in range(N_THREADS)]

    def run(thread):
        for turn in range(N_ROUNDS):
            found[thread].append(work(thread + turn))

    in_threads(run)
    for thread, results in enumerate(found):
        assert results == expected[thread : thread + N_ROUNDS]


def test_threads_that_share_their_arrays():
    x = np.random.default_rng(0).normal(size=(2000, 32)).astype(np.float32)
    centers = x[:100].astype(np.float64)
    expected = digest(*kmeans_assign(x, centers, n_threads=2))
    found = [set() for _ in range(N_THREADS)]

    def run(thread):
        for _ in range(N_ROUNDS):
            found[thread].add(digest(*kmeans_assign(x, centers, n_threads=2)))

    in_threads(run)
    assert found == [{expected}] * N_THREADS


def test_errors_of_one_thread_reach_that_thread_only():
    x = np.zeros((50, 4), np.float32)
    found = [[] for _ in range(N_THREADS)]

    def run(thread):
        for _ in range(50):
            centers = np.zeros((3, 4 + thread % 2))
            try:
                kmeans_assign(x, centers, n_threads=1)
                found[thread].append("labels")
            except ValueError:
                found[thread].append("error")

    in_threads(run)
    assert found == [["labels", "error"][thread % 2 : thread % 2 + 1] * 50 for thread in range(8)]


@pytest.mark.skipif(
    getattr(sys, "_is_gil_enabled", lambda: True)() and "free-threading" not in sys.version,
    reason="this Python has a GIL",
)
def test_the_modules_do_not_switch_the_gil_on():
    modules.cuda_module()
    assert not sys._is_gil_enabled()
