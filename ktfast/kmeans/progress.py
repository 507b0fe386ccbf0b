"""Log lines of a running fit, and the best complete iteration, which an interrupted fit keeps."""

import logging
import time

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
        Above 0: every call of `seeding` or `observe` logs a line. 0: at most one line every ten
        seconds.

    Attributes
    ----------
    best : LloydResult or None
        Result with the lowest inertia of all complete iterations of all runs. None before the
        first complete iteration.
    """

    def __init__(self, max_iter: int, verbose: int = 0) -> None:
        self.best: LloydResult | None = None
        self._max_iter = max_iter
        self._pause = 0.0 if verbose > 0 else _LINE_SECONDS
        self._last_line = time.monotonic()

    def seeding(self, done: int, wanted: int) -> None:
        """Log the number of initial centres, or of candidates for them, that have been chosen."""
        if self._is_due():
            _logger.info("k-means: chose %d of %d initial centres or candidates", done, wanted)

    def observe(self, result: LloydResult) -> None:
        """Keep a result whose last iteration is complete, and log this iteration."""
        self.keep(result)
        if not self._is_due():
            return
        row, done = result.history[-1], len(result.history)
        pace = sum(past["seconds"] for past in result.history) / done
        _logger.info(
            "k-means iteration %d of at most %d: inertia %.9g, %.2f %% of the rows moved, "
            "%.3g s an iteration, %s left at most",
            done,
            self._max_iter,
            row["inertia"],
            100 * row["moved"] / len(result.labels),
            pace,
            _clock(pace * (self._max_iter - done)),
        )

    def keep(self, result: LloydResult) -> LloydResult:
        """Keep a result unless an earlier one was better; return the result that is kept."""
        if self.best is None or result.inertia <= self.best.inertia:
            self.best = result
        return self.best

    def _is_due(self) -> bool:
        now = time.monotonic()
        if now - self._last_line < self._pause:
            return False
        self._last_line = now
        return True


def _clock(seconds: float) -> str:
    """A duration as `1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
