"""Log lines of a running fit, and the best complete iteration, which an interrupted fit keeps."""

import logging
import time

import numpy as np

from ktfast.kmeans.lloyd import LloydResult

_logger = logging.getLogger(__name__)

_LINE_SECONDS = 10.0


class Progress:
    """Observes all runs and iterations of one fit.

    Parameters
    ----------
    max_iter : int
        Most iterations of a run.
    verbose : int, default 0
        Above 0: every call of `seeding` or `observe` logs a line, and scikit-learn's lines are
        printed. 0: at most one line is logged every ten seconds.
    is_silent : bool, default False
        Whether to write nothing, because another process of the fit does.

    Attributes
    ----------
    exponent : int
        The rows are the user's rows times ``2 ** exponent``.
    total : int
        Number of rows of all processes. 0 means that `labels` has the labels of all rows.
    best : LloydResult or None
        Result with the lowest inertia of all complete iterations of all runs. None before the
        first complete iteration. Results whose inertia has an error are left out.
    """

    def __init__(self, max_iter: int, verbose: int = 0, *, is_silent: bool = False) -> None:
        self.best: LloydResult | None = None
        self.exponent = 0
        self.total = 0
        self._max_iter = max_iter
        self._prints = verbose > 0 and not is_silent
        self._is_silent = is_silent
        self._pause = 0.0 if verbose > 0 else _LINE_SECONDS
        self._last_line = time.monotonic()
        # The last iteration of the present run, if the inertia has an error.
        self._inexact: LloydResult | None = None

    def seeding(self, done: int, wanted: int) -> None:
        """Log the number of initial centres, or of candidates for them, that have been chosen."""
        if self._is_due():
            _logger.info("k-means: chose %d of %d initial centres or candidates", done, wanted)

    def begin(self) -> None:
        """Print that a run begins, if verbose."""
        if self._prints:
            print("Initialization complete", flush=True)

    def end(self, result: LloydResult, tolerance: float) -> None:
        """Print why a run ended, if verbose."""
        last, done = result.history[-1], len(result.history)
        if not self._prints:
            return
        if last["moved"] == 0 or last["shift"] == 0:
            print(f"Converged at iteration {done - 1}: strict convergence.", flush=True)
        elif last["shift"] <= tolerance:
            shift, limit = (self._in_scale(value) for value in (last["shift"], tolerance))
            print(
                f"Converged at iteration {done - 1}: center shift {shift} within tolerance "
                f"{limit}.",
                flush=True,
            )

    def observe(self, result: LloydResult) -> None:
        """Keep a result whose last iteration is complete, and log this iteration."""
        if result.error > 0:
            self._inexact = result
        else:
            self.keep(result)
        row, done = result.history[-1], len(result.history)
        inertia = self._in_scale(row["inertia"])
        if self._prints:
            print(f"Iteration {done - 1}, inertia {inertia}.", flush=True)
        if not self._is_due():
            return
        pace = sum(past["seconds"] for past in result.history) / done
        _logger.info(
            "k-means iteration %d of at most %d: inertia %.9g, %.2f %% of the rows moved, "
            "%.3g s an iteration, %s left at most",
            done,
            self._max_iter,
            inertia,
            100 * row["moved"] / (self.total or len(result.labels)),
            pace,
            _clock(pace * (self._max_iter - done)),
        )

    def keep(self, result: LloydResult) -> LloydResult:
        """Keep a result unless an earlier one was better; return the result that is kept."""
        self._inexact = None
        if self.best is None or result.inertia <= self.best.inertia:
            self.best = result
        return self.best

    def interrupted(self) -> LloydResult | None:
        """The best result if the present run ends now. Its inertia may have an error."""
        if self._inexact is not None:
            self.keep(self._inexact)
        return self.best

    def _in_scale(self, square: float) -> float:
        """A squared distance in the scale of the user's rows."""
        return float(np.ldexp(square, -2 * self.exponent)) if self.exponent else square

    def _is_due(self) -> bool:
        now = time.monotonic()
        if self._is_silent or now - self._last_line < self._pause:
            return False
        self._last_line = now
        return True


def _clock(seconds: float) -> str:
    """A duration as `1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
