"""The assignment passes of one fit on a CPU.

A fit with few centres or few rows uses `PlainAssigner`: every pass compares all centres with all
rows. Any other fit uses `BoundedAssigner`: after some passes, distance bounds save comparisons.
`phases.py` says which kinds of passes follow each other, and why.
"""

from typing import Any

import numpy as np

from ktfast.kmeans.array_types import Float64, Int32
from ktfast.kmeans.assignment.bounds import Inertia
from ktfast.kmeans.assignment.phases import DensePass, FitRows, Phase
from ktfast.kmeans.assignment.screen import first_screen
from ktfast.kmeans.data.rows import Rows
from ktfast.ops.kmeans_screen import Screen


class _KnowsDistances:
    """An assigner whose distances are never upper bounds."""

    has_bounds = False

    def inertia(self, centers: Any) -> Inertia:
        """Not available; see `has_bounds`."""
        raise NotImplementedError

    def exact_distances(self, labels: Any, centers: Any) -> Any:
        """Not available; see `has_bounds`."""
        raise NotImplementedError


class PlainAssigner(_KnowsDistances):
    """Compares every row with every centre in every pass; see `Assigner`.

    Parameters
    ----------
    rows : Rows
        The data [n, d].
    mean : array, float64 [d]
        Mean of the rows.
    precision : str
        See `ktfast.ops.kmeans_assign`.
    few : bool
        Whether there are so few clusters that the kernel works without a screen.
    """

    skipped = 0.0
    is_exact = True

    def __init__(self, rows: Rows, mean: Float64, precision: str, *, few: bool) -> None:
        self._rows = rows
        self._mean = mean
        self._precision = "float32" if few and precision == "exact" else precision
        self._screen: Screen | None = None
        self._labels = np.empty(rows.n, np.int32)
        self._distances = np.empty(rows.n)

    def assign(self, centers: Float64, *, last: bool = False) -> tuple[Int32, Float64]:
        """See `Assigner`."""
        if self._screen is None:
            self._screen = first_screen(self._rows, self._mean, centers, self._precision)
        prepared = self._screen.prepare(centers)
        for place, part in self._rows.parts():
            self._screen.assign(
                part, centers, prepared, self._labels[place], self._distances[place]
            )
        return self._labels, self._distances


class NoRowsAssigner(_KnowsDistances):
    """Returns empty arrays, for a process without rows; see `Assigner`.

    Parameters
    ----------
    rows : Rows
        The data [0, d], on any device.
    precision : str
        See `ktfast.ops.kmeans_assign`.
    """

    skipped = 0.0

    def __init__(self, rows: Rows, precision: str) -> None:
        self.is_exact = not (rows.on_gpu and precision == "fast")  # as on the other processes
        self._labels = rows.workspace.empty((0,), "int32")
        self._distances = rows.workspace.empty((0,), "float64")

    def assign(self, centers: Any, *, last: bool = False) -> tuple[Any, Any]:
        """See `Assigner`."""
        return self._labels, self._distances


class BoundedAssigner(_KnowsDistances):
    """Skips the comparisons that distance bounds make unnecessary; see `Assigner`.

    Parameters
    ----------
    rows : Rows
        The data [n, d].
    mean : array, float64 [d]
        Mean of the rows.
    precision : str
        See `ktfast.ops.kmeans_assign`.
    """

    is_exact = True

    def __init__(self, rows: Rows, mean: Float64, precision: str) -> None:
        self.skipped = 0.0
        self._fit = FitRows(rows, mean, precision, np.zeros(rows.n, np.int32), np.empty(rows.n))
        self._previous: Float64 | None = None
        self._phase: Phase | None = None

    def assign(self, centers: Float64, *, last: bool = False) -> tuple[Int32, Float64]:
        """See `Assigner`."""
        if self._phase is None or self._previous is None:
            self._phase = DensePass(self._fit, centers)
        else:
            self._phase = self._phase.next_phase(centers, self._previous, last=last)
        self.skipped = self._phase.run(centers, self._previous)
        self._previous = centers
        return self._fit.labels, self._fit.distances
