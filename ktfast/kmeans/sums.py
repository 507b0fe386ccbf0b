"""Compute centres from labels, with sums of the clusters that are kept between iterations."""

from typing import Any, Protocol

import numpy as np

from ktfast.kmeans.array_types import Float64, Int64
from ktfast.kmeans.data.passes import cluster_sums
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.data.workspace import to_host
from ktfast.kmeans.distributed.communicator import CommunicationError
from ktfast.kmeans.limbs import LimbSums, Units, units_of
from ktfast.kmeans.relocation import relocate_empty


class Sums(Protocol):
    """Turns labels into the next centres.

    Attributes
    ----------
    gives_costs : bool
        Whether `costs` can be called.
    """

    gives_costs: bool

    def follow(self, place: slice, part: Any, labels: Any) -> None:
        """Add rows to the sums of their new labels while the rows are in the memory of the device.

        Parameters
        ----------
        place : slice
            Numbers of the rows, in 0 .. n - 1. Successive calls go through the rows in order.
        part : array [m, d]
            The rows, as `Rows.parts` yields them.
        labels : array, int32 [n]
            Labels of all rows; those at `place` are new. The array must not change until `follow`
            gets the same rows with their next labels.
        """

    def centers(self, labels: Any, distances: Any, previous: Any) -> tuple[Any, float, int]:
        """Compute the means of the clusters.

        Parameters
        ----------
        labels : array, int32 [n]
            Nearest previous centre of each row. If `follow` did not get these labels, `centers`
            adds up the rows itself.
        distances : array, float64 [n], or callable
            Squared distances to the nearest previous centres, or a function that computes them.
            Only empty clusters need them.
        previous : array, float64 [k, d]
            Previous centres, on the device that processes the rows. An empty cluster that is given
            no row keeps its centre.

        Returns
        -------
        centers : array, float64 [k, d]
            Next centres, on the same device, rounded to the dtype of the result.
        shift : float
            Sum of the squared movements of the centres.
        relocated : int
            Number of empty clusters that were given a row.
        """

    def costs(self, centers: Any, mean: Any) -> tuple[Float64, Float64]:
        """What the clusters that `follow` has built add to the inertia; see `kmeans_costs`."""


def make_sums(rows: Rows, n_clusters: int, weight: Float64 | None) -> Sums:
    """Choose integer sums if integers hold the rows precisely enough, else float64 sums."""
    units = units_of(rows, weight)
    if units is None:
        return FreshSums(rows, n_clusters, weight)
    return FollowingSums(rows, n_clusters, weight, *units)


class FreshSums:
    """Adds up all rows in every iteration, in float64; see `Sums`.

    Parameters
    ----------
    rows : Rows
        The data [n, d].
    n_clusters : int
        Number of clusters k.
    weight : array, float64 [n], optional
        Weights of the rows. None means that all weights are 1.
    """

    gives_costs = False

    def __init__(self, rows: Rows, n_clusters: int, weight: Float64 | None) -> None:
        self._rows = rows
        self._n_clusters = n_clusters
        self._weight = weight

    def follow(self, place: slice, part: Any, labels: Any) -> None:
        """Do nothing; see `Sums`."""

    def costs(self, centers: Any, mean: Any) -> tuple[Float64, Float64]:
        """Not available; see `gives_costs`."""
        raise NotImplementedError

    def centers(self, labels: Any, distances: Any, previous: Any) -> tuple[Any, float, int]:
        """See `Sums`."""
        sums, counts = cluster_sums(self._rows, labels, self._n_clusters, self._weight)
        if self._weight is None and counts.sum() != self._rows.total:
            raise self._rows.ranks.agreed_on(_changed_rows())
        return _next_centers(self._rows, labels, distances, self._weight, sums, counts, previous)


class FollowingSums:
    """Corrects the sums of the last iteration for the rows that changed cluster; see `Sums`.

    The sums are integers; see `ktfast.kmeans.limbs`. Integer sums are exact, so the sums depend
    only on the rows, their weights and their present labels. Earlier labels, the device and the
    number of processes do not matter.

    Parameters
    ----------
    rows : Rows
        The data [n, d].
    n_clusters : int
        Number of clusters k.
    weight : array, float64 [n], optional
        Weights of the rows. None means that all weights are 1.
    units : Units
        Units of the sums of the weighted rows.
    weight_units : Units, optional
        Units of the sums of the weights, if there are weights.
    """

    def __init__(
        self,
        rows: Rows,
        n_clusters: int,
        weight: Float64 | None,
        units: Units,
        weight_units: Units | None,
    ) -> None:
        self._rows = rows
        self._weight = weight
        given = [units, *([] if weight_units is None else [weight_units])]
        self._sums = [LimbSums(rows.workspace, each, n_clusters) for each in given]
        # The errors of products with weights are not bounded, and each process has its own sums.
        self.gives_costs = rows.on_gpu and weight is None and rows.ranks.size == 1
        self._labels: Any = None
        # Sum over all clusters of the first iteration, if there are several processes.
        self._constant: Int64 | None = None

    def follow(self, place: slice, part: Any, labels: Any) -> None:
        """See `Sums`."""
        before = None if self._labels is None else self._labels[place]
        after, threads = labels[place], self._rows.n_threads
        weights = self._rows.workspace.weights(self._weight)
        weight = None if weights is None else weights[place]
        self._sums[0].move(part, before, after, weight, threads)
        if weight is not None:
            self._sums[1].move(weight.reshape(-1, 1), before, after, None, threads)
        if place.stop == self._rows.n:
            self._labels = labels

    def costs(self, centers: Any, mean: Any) -> tuple[Float64, Float64]:
        """See `Sums`."""
        return self._sums[0].costs(centers, mean)

    def centers(self, labels: Any, distances: Any, previous: Any) -> tuple[Any, float, int]:
        """See `Sums`."""
        if self._labels is not labels:
            for place, part in self._rows.parts():
                self.follow(place, part, labels)
        rows = self._rows
        sums = self._of_all_processes()
        is_plain = self._weight is None
        weights = to_host(sums[0].counts).astype(np.float64) if is_plain else sums[1].values()[:, 0]
        if not (rows.plain_means and (weights > 0).all()):
            values = sums[0].values()
            return _next_centers(rows, labels, distances, self._weight, values, weights, previous)
        centers, shifts = sums[0].means(
            previous,
            None if is_plain else rows.workspace.to_device(weights),
            narrow=rows.center_dtype == "float32",
            n_threads=rows.n_threads,
        )
        return centers, rows.ranks.broadcast(float(to_host(shifts).sum())), 0

    def _of_all_processes(self) -> list[LimbSums]:
        """Sums over all processes.

        Rows only move between clusters, so the sum over all clusters never changes. A change means
        that a process lost rows, or that bits flipped in its memory.
        """
        ranks = self._rows.ranks
        if ranks.size == 1:
            return self._sums
        tables = [each.table() for each in self._sums]
        local = np.concatenate(tables, axis=1)
        total = ranks.sum(local.ravel()).reshape(local.shape)
        parts = np.split(total, np.cumsum([table.shape[1] for table in tables])[:-1], axis=1)
        sums = [own.with_table(part) for own, part in zip(self._sums, parts, strict=True)]
        constant = np.concatenate([each.constant() for each in sums])
        if self._constant is None:
            self._constant = constant
        if (constant != self._constant).any() or constant[-1] != self._rows.total:
            # All processes see the same total, so all of them raise the error.
            raise ranks.agreed_on(_changed_rows())
        return sums


def _changed_rows() -> CommunicationError:
    return CommunicationError(
        "the number or the sum of all rows has changed between two iterations; check the memory of "
        "the machines, and start the fit again"
    )


def _next_centers(
    rows: Rows,
    labels: Any,
    distances: Any,
    weight: Float64 | None,
    sums: Float64,
    counts: Float64,
    previous: Any,
) -> tuple[Any, float, int]:
    """Compute what `Sums.centers` returns from float64 sums and weights, which are changed."""
    relocated = relocate_empty(rows, labels, distances, weight, sums, counts)
    former = to_host(previous)
    centers = rows.centers_of(sums, counts, former)
    shift = rows.ranks.broadcast(float(((centers - former) ** 2).sum()))
    return rows.workspace.to_device(centers), shift, relocated
