"""Assignments of one fit: each call gives what `Rows.assign` gives, in less and less time.

A first pass screens every centre for every row, and so do the next ones while the centres move
far. Once they have slowed down, a pass notes which centres are near each row and bounds the others;
from then on centres that cannot have become the nearest, given how far they moved, are left out:
see `ktfast.ops.kmeans_screen.DistanceBounds`.
"""

import functools
from typing import Any, NamedTuple, Protocol

import numpy as np
from threadpoolctl import ThreadpoolController

from ktfast.kmeans.assign_gpu import GpuAssigner
from ktfast.kmeans.rows import Float64, Int32, Int64, Rows
from ktfast.kmeans.screen import Outlook, first_screen, later_screen
from ktfast.kmeans.sums import Sums
from ktfast.native.modules import cpu
from ktfast.ops.kmeans_screen import DistanceBounds, Drift, Float32, RowCodes, Screen, kmeans_drift

# Below so many distances per pass, plain passes are as fast.
_SMALL = 1 << 18
# Snapshots of the centres: at most so many, and of at most this share of the rows' own numbers or,
# where these are few, so many bytes.
_EPOCHS = 8
_SNAPSHOT_SHARE = 1 / 8
_SNAPSHOT_BYTES = 1 << 25
# Distances that may always be computed for a row before it is screened anew.
_LEAST_BUDGET = 32


class Assigner(Protocol):
    """Labels and distances for centres that follow one another.

    skipped : share of the last call's n x k distances that was neither screened nor computed.
    is_exact : whether labels and distances are exact before the last call, too.
    """

    skipped: float
    is_exact: bool

    def assign(self, centers: Any, *, last: bool = False) -> tuple[Any, Any]:
        """Labels int32 [n] and squared distances float64 [n]; valid until the next call.

        On a GPU, labels are valid until the call after it.
        """


def make_assigner(
    rows: Rows,
    mean: Float64,
    n_clusters: int,
    sums: Sums,
    *,
    precision: str,
    memory_budget: int | None = None,
) -> Assigner:
    """The assigner for rows, by device and size; the sums follow it on a GPU."""
    if rows.on_gpu:
        return GpuAssigner(rows, mean, sums, precision, memory_budget)
    few = cpu.kmeans_is_few(n_clusters=n_clusters, n_features=rows.d)
    if few or rows.n * n_clusters < _SMALL:
        return PlainAssigner(rows, mean, precision, few=few)
    return BoundedAssigner(rows, mean, precision)


class PlainAssigner:
    """Every row against every centre (CPU).

    Parameters
    ----------
    rows, mean, precision : as for `BoundedAssigner`.
    few : whether there are so few clusters that the kernel does without a screen.
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


@functools.cache
def _blas() -> ThreadpoolController:
    """NumPy's linear algebra. To find it takes milliseconds."""
    return ThreadpoolController().select(user_api="blas")


class _Screening(NamedTuple):
    """How rows are screened once their nearest centres are nearly known."""

    screen: Screen
    codes: RowCodes | None
    margin: float
    budget: int


class _Snapshots:
    """Centres as they were when bounds were noted, and how many rows have bounds of each epoch."""

    def __init__(self, epochs: int, n_clusters: int, n_features: int, *, n_threads: int) -> None:
        self._threads = n_threads
        self._centers = np.empty((epochs, n_clusters, n_features), np.float32)
        self._error = np.zeros(epochs, np.float32)
        self._rows = np.zeros(epochs, np.int64)
        self._drift = np.empty((epochs, n_clusters), np.float32)
        self._known = np.zeros(epochs, bool)

    def drift(self, centers: Float64, previous: Float64) -> Drift:
        """How far the centres have moved since each epoch; ask once for each assignment."""
        used = int(np.flatnonzero(self._rows).max()) + 1
        found = kmeans_drift(
            centers,
            previous,
            self._centers[:used],
            self._error[:used],
            drift=self._drift[:used],
            known=self._known[:used],
            n_threads=self._threads,
        )
        self._known[:used] = True
        return found

    def open(self, centers: Float64, epochs: Any, pending: Any) -> tuple[int, Int64]:
        """Take a snapshot for rows whose bounds will be noted anew.

        Parameters
        ----------
        centers : float64 [k, d].
        epochs : uint8 [n], of all rows.
        pending : bool [n], which rows these are.

        Returns
        -------
        the epoch, and the rows' increasing numbers: with those of the epoch it replaces if none was
        free.
        """
        self._rows -= np.bincount(epochs[pending], minlength=len(self._rows))
        epoch = int(self._rows.argmin())
        if self._rows[epoch] > 0:
            pending = pending | (epochs == epoch)
        leaving = np.flatnonzero(pending)
        self.begin(epoch, centers, leaving.size)
        return epoch, leaving

    def begin(self, epoch: int, centers: Float64, n_rows: int) -> None:
        """Take a snapshot in a given place."""
        self._error[epoch] = cpu.kmeans_snapshot(
            centers=centers, snapshot=self._centers[epoch], n_threads=self._threads
        )
        self._rows[epoch] = n_rows
        self._known[epoch] = False


class BoundedAssigner:
    """Screens what is new, and goes by bounds where these are good enough (CPU).

    Parameters
    ----------
    rows : the data [n, d].
    mean : float64 [d], of the rows.
    precision : see `ktfast.ops.kmeans_assign`.

    Notes
    -----
    Workspace: 13 bytes a row; 139 more for bounds, and up to n x d / 8 float32 or 32 MiB for
    snapshots of the centres, in fits of several iterations; up to 512 bytes a row for codes in a
    basis.
    """

    is_exact = True

    def __init__(self, rows: Rows, mean: Float64, precision: str) -> None:
        self.skipped = 0.0
        self._rows = rows
        self._mean = mean
        self._precision = precision
        self._labels = np.zeros(rows.n, np.int32)
        self._distances = np.empty(rows.n)
        self._previous: Float64 | None = None
        self._screening: _Screening | None = None
        self._bounds: DistanceBounds | None = None

    def assign(self, centers: Float64, *, last: bool = False) -> tuple[Int32, Float64]:
        """See `Assigner`; `last` says that no further call follows, so that bounds are no use."""
        previous, self._previous = self._previous, centers
        self.skipped = 0.0
        if previous is None:
            self._plain = first_screen(self._rows, self._mean, centers, self._precision)
            self._outlook = Outlook(self._plain, self._rows)
            self._screen_plainly(centers, False)
            return self._labels, self._distances
        if self._screening is None:
            # NumPy's threads would keep waiting for work, on the cores of the fit's, long after.
            with _blas().limit(limits=1):
                if self._outlook.bounds_pay(centers, previous, self._distances):
                    self._screening = self._choose(centers)
        if self._screening is None:
            self._screen_plainly(centers, True)
            return self._labels, self._distances
        prepared = self._screening.screen.prepare(centers)
        allowed = max(4 * _SNAPSHOT_SHARE * self._rows.n * self._rows.d, _SNAPSHOT_BYTES)
        epochs = min(_EPOCHS, int(allowed / (4 * centers.size)))
        if self._bounds is not None:
            self._reassign(self._screening, self._bounds, centers, prepared, previous)
        elif last or epochs < 2:
            self._screen(self._screening, centers, prepared, True)
        else:
            self._bounds = DistanceBounds.empty(self._rows.n)
            self._snapshots = _Snapshots(epochs, *centers.shape, n_threads=self._rows.threads)
            self._snapshots.begin(0, centers, self._rows.n)
            self._screen(self._screening, centers, prepared, True)
        return self._labels, self._distances

    def _choose(self, centers: Float64) -> _Screening:
        """The screen for the rest of the fit, and the rows in its code."""
        rows = self._rows
        screen, margin, cost = later_screen(
            rows, self._mean, centers, self._labels, self._precision
        )
        codes = None
        if screen.n_coordinates:
            codes = screen.empty_codes(rows.n)
            for place, part in rows.parts():
                screen.encode(part, codes.at(place))
        return _Screening(screen, codes, margin, max(_LEAST_BUDGET, int(cost / screen.pair_cost)))

    def _reassign(
        self,
        screening: _Screening,
        bounds: DistanceBounds,
        centers: Float64,
        prepared: Float32,
        previous: Float64,
    ) -> None:
        """Go by bounds; screen the rows for which these are too loose."""
        rows = self._rows
        drift = self._snapshots.drift(centers, previous)
        pending = np.empty(rows.n, bool)
        computed = 0
        for place, part in rows.parts():
            computed += screening.screen.reassign(
                part,
                centers,
                prepared,
                self._labels[place],
                self._distances[place],
                drift=drift,
                bounds=bounds.at(place),
                budget=screening.budget,
                pending=pending[place].view(np.uint8),
            )
        if pending.any():
            epoch, subset = self._snapshots.open(centers, bounds.epochs, pending)
            self._screen(screening, centers, prepared, True, subset=subset, epoch=epoch)
            computed += subset.size * len(centers)
        self.skipped = 1 - computed / (rows.n * len(centers))

    def _screen_plainly(self, centers: Float64, guessed: bool) -> None:
        plain = _Screening(self._plain, None, 0.0, 0)
        self._screen(plain, centers, self._plain.prepare(centers), guessed)

    def _screen(
        self,
        screening: _Screening,
        centers: Float64,
        prepared: Float32,
        guessed: bool,
        *,
        subset: Int64 | None = None,
        epoch: int = 0,
    ) -> None:
        """Screen every centre for all rows or a subset; note bounds if these are kept."""
        for place, part in self._rows.parts():
            local = None
            if subset is not None:
                first, end = np.searchsorted(subset, (place.start, place.stop))
                local = subset[first:end] - place.start
                if local.size == 0:
                    continue
            screening.screen.assign(
                part,
                centers,
                prepared,
                self._labels[place],
                self._distances[place],
                codes=None if screening.codes is None else screening.codes.at(place),
                subset=local,
                guessed=guessed,
                bounds=None if self._bounds is None else self._bounds.at(place),
                epoch=epoch,
                margin=0.0 if self._bounds is None else screening.margin,
            )
