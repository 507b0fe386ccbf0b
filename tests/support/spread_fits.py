"""The same fits on one process and on several: what is fitted, and the hashes of the results."""

import contextlib
import hashlib
import os
import socket
import subprocess
import sys
import threading

import numpy as np

from ktfast import KMeans
from ktfast.kmeans.distributed import ThreadCommunicator

# Rows of the cases. More than two parts of 4,096 rows, so that a part lies on several processes.
N, D, K = 9001, 7, 30


def rows(dtype="float32", *, seed=0, n=N, d=D):
    """Draw rows [n, d] from overlapping clusters."""
    generator = np.random.default_rng(seed)
    centers = generator.normal(size=(K, d)) * 40
    x = centers[generator.integers(0, K, n)] + generator.normal(size=(n, d)) * 15
    return (np.clip(x + 100, 0, 255) if dtype == "uint8" else x).astype(dtype)


def weights(n=N):
    """Weights of the rows, some of which are zero."""
    generator = np.random.default_rng(5)
    return generator.random(n) * (generator.random(n) > 0.1)


def far_start():
    """Centres of which most have no row at first, so that clusters are relocated."""
    x = rows()
    return np.concatenate([x[:4], np.arange(1.0, K - 3)[:, None] * 1e4 + x[:1]]).astype("float32")


def fixed_start(X, n_clusters, random_state):
    """Initial centres that do not depend on the rows of one process."""
    return random_state.permutation(rows()[:n_clusters])


def duplicates():
    """Rows of which only 20 are distinct, for 30 clusters."""
    return rows()[np.random.default_rng(2).integers(0, 20, 3000)]


CASES = {
    "float32": (rows, {}),
    "float16": (lambda: rows("float16"), {}),
    "float64": (lambda: rows("float64"), {}),
    "uint8": (lambda: rows("uint8"), {}),
    "k-means++": (rows, {"init": "k-means++"}),
    "random": (rows, {"init": "random", "n_init": 2}),
    "array": (rows, {"init": rows()[:K]}),
    "callable": (rows, {"init": fixed_start, "n_init": 2}),
    "weights": (rows, {"weighted": True}),
    "weights float64 k-means++": (
        lambda: rows("float64"),
        {"weighted": True, "init": "k-means++"},
    ),
    "weights random": (rows, {"weighted": True, "init": "random", "n_init": 1}),
    "spherical": (rows, {"spherical": True}),
    "spherical weights": (rows, {"spherical": True, "weighted": True}),
    "empty clusters": (rows, {"init": far_start(), "max_iter": 4}),
    "empty clusters weights": (rows, {"init": far_start(), "max_iter": 4, "weighted": True}),
    "duplicates": (duplicates, {}),
    "k = n": (lambda: rows(n=200), {"n_clusters": 200}),
    "k = 1": (rows, {"n_clusters": 1}),
    "huge values": (lambda: rows("float64") * 1e40, {}),
    "wide range": (lambda: np.exp(rows() / 8).astype("float32"), {}),
    "tolerance 0": (rows, {"tol": 0, "init": "random", "n_init": 1}),
}
"""Per case: the rows, and the options of `KMeans`."""


def cuts(n, size, kind="uneven"):
    """Divide n rows among processes; return the first row of each, and n."""
    if kind == "even":
        return np.linspace(0, n, size + 1).astype(int)
    if kind == "empty":  # the second process has no rows, the last one has two
        inner = np.linspace(n // 3, n - 2, max(1, size - 2)).astype(int)
        return np.array([0, *([inner[0]] * (size > 2)), *inner, n][: size + 1])
    inner = np.sort(np.random.default_rng(size).integers(0, n + 1, size - 1))
    return np.array([0, *inner, n])


def fit_part(name, communicator, place, **options):
    """Fit a case with the rows at `place`; None as communicator: with all rows."""
    make, given = CASES[name]
    x, given = make(), given | options
    weight = weights(len(x)) if given.pop("weighted", False) else None
    model = KMeans(
        given.pop("n_clusters", K),
        random_state=3,
        distributed=communicator,
        n_threads=1,
        **{"max_iter": 12, **given},
    )
    return model.fit(x[place], sample_weight=None if weight is None else weight[place])


def in_threads(size, work):
    """Run ``work(communicator)`` in as many threads; return the results, or raise the error."""
    communicators = ThreadCommunicator.group(size, timeout=60)
    results, errors = [None] * size, [None] * size

    def run(rank):
        try:
            results[rank] = work(communicators[rank])
        except Exception as error:
            errors[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results, errors


@contextlib.contextmanager
def processes(size, arguments):
    """Run a script in as many processes that torch.distributed connects; kill them at the end.

    The processes import ktfast from where this process has ktfast from.
    """
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "WORLD_SIZE": str(size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "OMP_NUM_THREADS": "1",
    }
    with contextlib.ExitStack() as stack:
        started = []
        for rank in range(size):
            process = subprocess.Popen(
                [sys.executable, "-m", "support.spread_process", *map(str, arguments)],
                env={**variables, "RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            started.append(process)
        yield started


def free_port():
    """Find a port that no program uses."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def digest(models):
    """Hash the results of all processes: the shared ones once, and the labels in their order."""
    first = models[0]
    for model in models[1:]:
        for name in ("cluster_centers_", "counts_"):
            np.testing.assert_array_equal(getattr(model, name), getattr(first, name))
        assert model.inertia_ == first.inertia_
    steps = [[row[name] for name in HISTORY] for row in first.history_]
    found = hashlib.sha256(repr((first.inertia_, steps, first.n_effective_clusters_)).encode())
    found.update(np.ascontiguousarray(first.cluster_centers_).tobytes())
    found.update(first.counts_.tobytes())
    found.update(np.concatenate([model.labels_ for model in models]).tobytes())
    return found.hexdigest()


HISTORY = ("inertia", "moved", "shift", "relocated")
