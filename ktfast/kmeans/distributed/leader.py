"""Rank 0 runs code over the rows of all processes, while the other processes answer its requests.

Some decisions, such as the initial centres and the relocation of empty clusters, need rows of every
process but little work per row. Rank 0 makes these decisions with the code of a single process. All
processes therefore use the same random numbers, and rounding on another machine changes no
decision.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from ktfast.kmeans.array_types import Float64, Int64
from ktfast.kmeans.data.passes import cluster_sums, nearest_centers
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.data.workspace import Workspace, to_host
from ktfast.kmeans.distributed.ranks import ALONE, Ranks, portable

T = TypeVar("T")

_RETURN, _RAISE = "return", "raise"


class Service:
    """Answers requests about the rows of this process.

    Parameters
    ----------
    rows : Rows
        The rows of this process.
    weight : array, float64 [n], optional
        Weights of the rows. None means that all weights are 1.
    """

    def __init__(self, rows: Rows, weight: Float64 | None) -> None:
        self._rows = rows
        self._weight = weight

    def weights(self) -> Float64 | None:
        """Weights of the rows."""
        return self._weight

    def take(self, indices: Int64) -> Float64:
        """Rows of this process, out of the rows with the given numbers in the whole data."""
        first = self._rows.first
        own = indices[(indices >= first) & (indices < first + self._rows.n)]
        return self._rows.take(own - first)

    def nearest(self, centers: Float64) -> tuple[Any, Any]:
        """Labels and distances of the rows of this process."""
        labels, distances = nearest_centers(self._rows, centers)
        return to_host(labels), to_host(distances)

    def cluster_sums(self, labels: Any, n_clusters: int) -> tuple[Float64, Float64]:
        """Sums of the clusters over all processes, given the labels of all rows."""
        rows = self._rows
        own = rows.workspace.to_device(labels[rows.first : rows.first + rows.n])
        return cluster_sums(rows, own, n_clusters, self._weight)


class LedRows(Rows):
    """The rows of all processes, which rank 0 requests from the other processes; see `Rows`.

    Results lie on the host. `parts` raises an error, because no process holds all rows.

    Parameters
    ----------
    rows : Rows
        The rows of rank 0.
    ask : callable
        ``ask(name, *arguments)`` calls the method `name` of the `Service` of every process, and
        returns the answers in the order of the ranks.
    """

    def __init__(self, rows: Rows, ask: Callable[..., list[Any]]) -> None:
        self._rows = rows
        self._ask = ask
        self.remote = self
        self.shards = []
        self.n, self.d = rows.total, rows.d
        self.first, self.total, self.ranks = 0, rows.total, ALONE
        self.dtype, self.center_dtype = rows.dtype, rows.center_dtype
        self.n_threads = rows.n_threads
        self.exponent, self.plain_means = rows.exponent, rows.plain_means
        like = np.empty((0, rows.d), rows.center_dtype)
        self.workspace = Workspace(like, None, like)

    def parts(self) -> Iterator[tuple[slice, Any]]:
        """Raise an error, because no process holds all rows."""
        raise NotImplementedError("the rows of all processes can only be taken by number")

    def take(self, indices: Int64) -> Float64:
        """See `Rows`."""
        indices = np.asarray(indices, np.int64)
        order = np.argsort(indices, kind="stable")
        found = np.concatenate(self._ask("take", indices[order]))
        values = np.empty((len(indices), self.d))
        values[order] = found
        return values

    def centers_of(self, sums: Float64, counts: Float64, former: Float64) -> Float64:
        """See `Rows`."""
        return self._rows.centers_of(sums, counts, former)

    def nearest_centers(self, centers: Float64) -> tuple[Any, Any]:
        """See `ktfast.kmeans.data.passes.nearest_centers`."""
        answers = self._ask("nearest", centers)
        return tuple(np.concatenate(arrays) for arrays in zip(*answers, strict=True))  # type: ignore[return-value]

    def cluster_sums(self, labels: Any, n_clusters: int) -> tuple[Float64, Float64]:
        """See `ktfast.kmeans.data.passes.cluster_sums`."""
        sums: tuple[Float64, Float64] = self._ask("cluster_sums", labels, n_clusters)[0]
        return sums


def led(
    rows: Rows,
    weight: Float64 | None,
    work: Callable[[Any, Float64 | None], T],
) -> T:
    """Run a function on rank 0 over the rows of all processes; return its result everywhere.

    Parameters
    ----------
    rows : Rows
        The rows of this process.
    weight : array, float64 [n], optional
        Weights of the rows. None means that all weights are 1.
    work : callable
        ``work(rows, weight)`` gets all rows and their weights.

    Returns
    -------
    result : object
        What `work` returned, on every process.
    """
    if rows.ranks.size == 1:
        return work(rows, weight)

    def lead(ask: Callable[..., list[Any]]) -> T:
        weights = None if weight is None else np.concatenate(ask("weights"))
        return work(LedRows(rows, ask), weights)

    return conduct(rows.ranks, Service(rows, weight), lead)


def conduct(ranks: Ranks, service: Any, lead: Callable[[Callable[..., list[Any]]], T]) -> T:
    """Run on rank 0 a function that asks the services of all processes.

    Parameters
    ----------
    ranks : Ranks
        The processes.
    service : object
        Has a method for every request.
    lead : callable
        ``lead(ask)`` runs on rank 0. ``ask(name, *arguments)`` calls the method `name` of the
        service of every process, and returns the answers in the order of the ranks.

    Returns
    -------
    result : object
        What `lead` returned, on every process.
    """

    def ask(name: str, *arguments: Any) -> list[Any]:
        ranks.broadcast((name, arguments))
        return ranks.gather_answers(lambda: getattr(service, name)(*arguments))

    if ranks.leads:
        try:
            result = lead(ask)
        except Exception as error:
            with contextlib.suppress(Exception):  # raise the first error, not this one
                ranks.broadcast((_RAISE, (portable(error),)))
            ranks.agreed_on(error)
            raise
        ranks.broadcast((_RETURN, (result,)))
        return result
    while True:
        request: tuple[str, tuple[Any, ...]] = "", ()
        name, arguments = ranks.broadcast(request)
        if name == _RETURN:
            return arguments[0]  # type: ignore[no-any-return]
        if name == _RAISE:
            raise ranks.agreed_on(arguments[0])
        ranks.gather_answers(lambda: getattr(service, name)(*arguments))  # noqa: B023
