"""The phases of the assignment passes of one fit on a CPU.

A fit goes through these phases, from pass to pass:

1. `DensePass`: screens every centre for every row. Each pass but the first uses the former label of
   a row as a guess, so that fewer centres become candidates. Dense passes continue until the
   centres move so little that distance bounds would save time.
2. `_RecordingPass`, once: screens every centre for every row, and records distance bounds for every
   row. The screen is the one that is cheapest if the nearest centre of a row is nearly known.
3. `_BoundedPass`: skips the centres that, given their movement, cannot have become the nearest.
   Only rows whose bounds are too loose are screened again.

`_ScreenedPass` takes the place of phases 2 and 3 if bounds are of no use: because the pass is the
last one, or because the snapshots of the centres would need too much memory.
"""

from typing import NamedTuple, Protocol

import numpy as np

from ktfast.kmeans.array_types import Float32, Float64, Int32, Int64
from ktfast.kmeans.assignment.boxes import Boxes, make_boxes
from ktfast.kmeans.assignment.screen import Outlook, first_screen, later_screen
from ktfast.kmeans.assignment.snapshots import Snapshots, epochs_that_fit
from ktfast.kmeans.data.rows import Rows
from ktfast.native.threads import one_blas_thread
from ktfast.ops.kmeans_rows import DistanceBounds, RowCodes
from ktfast.ops.kmeans_screen import Screen

# Bounded passes may compute at least this many distances for a row, added up over the passes,
# before they screen the row again.
_LEAST_BUDGET = 32


class FitRows(NamedTuple):
    """The rows of a fit, with the results that every pass updates.

    Attributes
    ----------
    rows : Rows
        The data [n, d].
    mean : array, float64 [d]
        Mean of the rows.
    precision : str
        See `ktfast.ops.kmeans_assign`.
    labels : array, int32 [n]
        Nearest centre of each row.
    distances : array, float64 [n]
        Squared distance to the nearest centre.
    boxes : Boxes or None
        Groups of the centres, with which guessed rows skip most centres; None with few centres.
    """

    rows: Rows
    mean: Float64
    precision: str
    labels: Int32
    distances: Float64
    boxes: Boxes | None = None

    @property
    def share(self) -> float:
        """Share of the centres that a pass compares with a row."""
        return 1.0 if self.boxes is None else self.boxes.share

    def prepare(self, screen: Screen, centers: Float64, *, regroup: bool = True) -> Float32:
        """Prepare centres for a pass; with boxes, in groups. See `Boxes.group`."""
        if self.boxes is None:
            return screen.prepare(centers)
        return screen.prepare(centers, self.boxes.group(centers, anew=regroup))

    def screen(
        self,
        chosen: "_ChosenScreen",
        centers: Float64,
        prepared: Float32,
        *,
        guessed: bool,
        subset: Int64 | None = None,
        bounds: DistanceBounds | None = None,
        epoch: int = 0,
    ) -> None:
        """Screen every centre for all rows or a subset, and write labels, distances and bounds."""
        for place, part in self.rows.parts():
            local = None
            if subset is not None:
                first, end = np.searchsorted(subset, (place.start, place.stop))
                local = subset[first:end] - place.start
                if local.size == 0:
                    continue
            places = None
            if self.boxes is not None and guessed:
                places = self.boxes.places[place]
                local = self.boxes.order(self.labels[place], local)
            chosen.screen.assign(
                part,
                centers,
                prepared,
                self.labels[place],
                self.distances[place],
                codes=None if chosen.codes is None else chosen.codes.at(place),
                subset=local,
                places=places,
                guessed=guessed,
                bounds=None if bounds is None else bounds.at(place),
                epoch=epoch,
                margin=0.0 if bounds is None else chosen.margin,
            )


class _ChosenScreen(NamedTuple):
    """A screen, and how a fit uses it.

    Attributes
    ----------
    screen : Screen
        Stores rows and centres in low precision (as codes), and compares the codes.
    codes : RowCodes or None
        Codes of all rows. None if each pass codes the rows again.
    margin : float
        Margin of the distance bounds, see `ktfast.ops.kmeans_rows.DistanceBounds`.
    budget : int
        Distances that bounded passes may compute for a row, added up over the passes, before they
        screen the row again.
    """

    screen: Screen
    codes: RowCodes | None = None
    margin: float = 0.0
    budget: int = 0


class Phase(Protocol):
    """One kind of assignment pass."""

    def next_phase(self, centers: Float64, previous: Float64, *, last: bool) -> "Phase":
        """Choose the phase of the next pass.

        `centers` are the centres of the next pass, and `previous` those of the last pass.
        """

    def run(self, centers: Float64, previous: Float64 | None) -> float:
        """Assign the rows to `centers`; return the share of distances that was skipped."""


class DensePass:
    """Phase 1: screens every centre for every row.

    Parameters
    ----------
    fit : FitRows
        The rows and their labels.
    centers : array, float64 [k, d]
        Centres of the first pass, on which screens are tried.
    """

    def __init__(self, fit: FitRows, centers: Float64) -> None:
        fit = fit._replace(boxes=make_boxes(fit.rows, fit.mean, centers))
        self._fit = fit
        screen = first_screen(fit.rows, fit.mean, centers, fit.precision)
        self._chosen = _ChosenScreen(screen, _codes_of(screen, fit.rows))
        self._outlook = Outlook(screen, fit.rows, fit.share)

    def next_phase(self, centers: Float64, previous: Float64, *, last: bool) -> Phase:
        """See `Phase`."""
        if last and self._fit.boxes is not None:
            return self  # a trial of other screens would take longer than the pass
        with one_blas_thread():
            if not self._outlook.bounds_pay(centers, previous, self._fit.distances):
                return self
            chosen = _choose_screen(self._fit, centers)
        epochs = epochs_that_fit(self._fit.rows.n, *centers.shape)
        if last or epochs < 2:
            return _ScreenedPass(self._fit, chosen)
        return _RecordingPass(self._fit, chosen, epochs)

    def run(self, centers: Float64, previous: Float64 | None) -> float:
        """See `Phase`."""
        fit = self._fit
        prepared = fit.prepare(self._chosen.screen, centers)
        guessed = previous is not None
        if not guessed and fit.boxes is not None:
            fit.boxes.guess(fit.rows, centers, fit.labels)
            guessed = True
        fit.screen(self._chosen, centers, prepared, guessed=guessed)
        return 0.0


class _ScreenedPass:
    """Screens every centre for every row, and records no bounds."""

    def __init__(self, fit: FitRows, chosen: _ChosenScreen) -> None:
        self._fit = fit
        self._chosen = chosen

    def next_phase(self, centers: Float64, previous: Float64, *, last: bool) -> Phase:
        """See `Phase`."""
        return self

    def run(self, centers: Float64, previous: Float64 | None) -> float:
        """See `Phase`."""
        prepared = self._fit.prepare(self._chosen.screen, centers)
        self._fit.screen(self._chosen, centers, prepared, guessed=True)
        return 0.0


class _RecordingPass:
    """Phase 2: screens every centre for every row, and records the distance bounds of all rows."""

    def __init__(self, fit: FitRows, chosen: _ChosenScreen, epochs: int) -> None:
        self._fit = fit
        self._chosen = chosen
        self._epochs = epochs
        self._bounded: _BoundedPass | None = None

    def next_phase(self, centers: Float64, previous: Float64, *, last: bool) -> Phase:
        """See `Phase`."""
        return self if self._bounded is None else self._bounded

    def run(self, centers: Float64, previous: Float64 | None) -> float:
        """See `Phase`."""
        n = self._fit.rows.n
        prepared = self._fit.prepare(self._chosen.screen, centers)
        bounds = DistanceBounds.empty(n)
        snapshots = Snapshots(self._epochs, *centers.shape, n_threads=self._fit.rows.threads)
        snapshots.begin(0, centers, n)
        self._fit.screen(self._chosen, centers, prepared, guessed=True, bounds=bounds)
        self._bounded = _BoundedPass(self._fit, self._chosen, bounds, snapshots)
        return 0.0


class _BoundedPass:
    """Phase 3: uses distance bounds, and screens only rows whose bounds are too loose."""

    def __init__(
        self, fit: FitRows, chosen: _ChosenScreen, bounds: DistanceBounds, snapshots: Snapshots
    ) -> None:
        self._fit = fit
        self._chosen = chosen
        self._bounds = bounds
        self._snapshots = snapshots

    def next_phase(self, centers: Float64, previous: Float64, *, last: bool) -> Phase:
        """See `Phase`."""
        return self

    def run(self, centers: Float64, previous: Float64 | None) -> float:
        """See `Phase`."""
        assert previous is not None  # the phase begins after other passes
        fit, bounds, screen = self._fit, self._bounds, self._chosen.screen
        prepared = fit.prepare(screen, centers, regroup=False)
        drift = self._snapshots.drift(centers, previous)
        pending = np.empty(fit.rows.n, bool)
        computed = 0
        for place, part in fit.rows.parts():
            computed += screen.reassign(
                part,
                centers,
                prepared,
                fit.labels[place],
                fit.distances[place],
                drift=drift,
                bounds=bounds.at(place),
                budget=self._chosen.budget,
                pending=pending[place].view(np.uint8),
            )
        if pending.any():
            epoch, subset = self._snapshots.begin_for(pending, centers, bounds.epochs)
            fit.screen(
                self._chosen,
                centers,
                prepared,
                guessed=True,
                subset=subset,
                bounds=bounds,
                epoch=epoch,
            )
            computed += subset.size * len(centers)
        return 1 - computed / (fit.rows.n * len(centers))


def _choose_screen(fit: FitRows, centers: Float64) -> _ChosenScreen:
    """Choose the screen for the rest of a fit; code all rows if the screen needs their codes."""
    screen, margin, cost = later_screen(
        fit.rows, fit.mean, centers, fit.labels, fit.precision, fit.share
    )
    codes = _codes_of(screen, fit.rows)
    return _ChosenScreen(screen, codes, margin, max(_LEAST_BUDGET, int(cost / screen.pair_cost)))


def _codes_of(screen: Screen, rows: Rows) -> RowCodes | None:
    """Code all rows if the screen has a basis, else return None."""
    if not screen.n_coordinates:
        return None
    codes = screen.empty_codes(rows.n)
    for place, part in rows.parts():
        screen.encode(part, codes.at(place))
    return codes
