"""What a fit tells while it runs, and the best complete iteration that an interrupted one keeps."""

import logging
import time

from ktfast.kmeans.lloyd import LloydResult

_logger = logging.getLogger(__name__)

LINE_SECONDS = 10.0


class Progress:
    """Watches the initialisations and iterations of one fit.

    Parameters
    ----------
    max_iter : the most iterations of a run.
    verbose : above 0 logs every step; 0: a line every ten seconds.

    Attributes
    ----------
    best : the run of least inertia after its last complete iteration, or None before there is one.
    """

    def __init__(self, max_iter: int, verbose: int = 0) -> None:
        self.best: LloydResult | None = None
        self._max_iter = max_iter
        self._pause = 0.0 if verbose > 0 else LINE_SECONDS
        self._told = time.monotonic()

    def seeding(self, done: int, wanted: int) -> None:
        """Tell how many first centres, or candidates for them, were chosen."""
        if self._is_due():
            _logger.info("k-means: chose %d of %d first centres or candidates", done, wanted)

    def observe(self, run: LloydResult) -> None:
        """Keep a run whose last iteration is complete, and tell of it."""
        self.keep(run)
        if not self._is_due():
            return
        row, done = run.history[-1], len(run.history)
        pace = sum(past["seconds"] for past in run.history) / done
        _logger.info(
            "k-means iteration %d of at most %d: inertia %.9g, %.2f %% of the rows moved, "
            "%.3g s an iteration, %s left at most",
            done,
            self._max_iter,
            row["inertia"],
            100 * row["moved"] / len(run.labels),
            pace,
            _clock(pace * (self._max_iter - done)),
        )

    def keep(self, run: LloydResult) -> LloydResult:
        """Keep a run if none before it was better; return the one that is kept."""
        if self.best is None or run.inertia <= self.best.inertia:
            self.best = run
        return self.best

    def _is_due(self) -> bool:
        now = time.monotonic()
        if now - self._told < self._pause:
            return False
        self._told = now
        return True


def _clock(seconds: float) -> str:
    """A duration as `1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
