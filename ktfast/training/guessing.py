"""Notice a training whose network is no better than guessing."""

import statistics
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ktfast.errors import InputError

PATIENCE = 0.4
"""Share of the steps after which a network should have left the accuracy of guessing."""

BETTER = 3.0
"""A network has learnt something if its accuracy is this multiple of the accuracy of guessing."""

RISEN = 1.5
"""A network still learns if its accuracy rises, and is at least this multiple of that of guessing.
"""


class AtChanceError(InputError):
    """The training was ended because its network is no better than guessing."""


@dataclass(frozen=True)
class Guessing:
    """The accuracy of guessing, and what a user can do if a network stays there.

    Attributes
    ----------
    accuracy : float
        Accuracy of guessing in [0, 1].
    remedy : str
        What the user can do, as an imperative sentence.
    stop : bool, default False
        End a training at chance with an `AtChanceError`.
    """

    accuracy: float
    remedy: str
    stop: bool = False

    def at_chance(self, metrics: Mapping[str, float]) -> bool:
        """Whether the accuracy of recent training steps is no better than guessing."""
        found = metrics.get("accuracy")
        # With few answers, the multiple is close to 1 or above 1. Then a quarter of the way to 1
        # counts.
        limit = min(BETTER * self.accuracy, self.accuracy + (1 - self.accuracy) / 4)
        return found is not None and found < limit

    def still_learns(self, tenths: tuple[float, float] | None) -> bool:
        """Whether the accuracy rises and has left that of guessing; see `Course.tenths`."""
        return tenths is not None and tenths[1] >= RISEN * self.accuracy and tenths[1] > tenths[0]

    def sentence(self, name: str, metrics: Mapping[str, float], step: int, total: int) -> str:
        """Say that a training is hardly better than guessing, and what to do."""
        return (
            f"{name} is hardly better than guessing: after {step} of {total} steps it is right in"
            f" {metrics['accuracy']:.1%} of the cases, and guessing in {self.accuracy:.1%}."
            " Features of such a network are often little better than those of random weights."
            f" {self.remedy}"
        )


class Course:
    """The accuracy of a training over its last steps.

    Parameters
    ----------
    total : int
        Number of steps of the training.
    rows : iterable of (int, float)
        Step and accuracy of the rows of metrics that an earlier session wrote.
    """

    def __init__(self, total: int, rows: Iterable[tuple[int, float]] = ()) -> None:
        self._tenth = total / 10
        self._rows = deque(rows)

    def add(self, step: int, accuracy: float) -> None:
        """Add the accuracy of the steps up to `step` that have no row yet."""
        self._rows.append((step, accuracy))
        while self._rows[0][0] <= step - 2 * self._tenth:
            self._rows.popleft()

    def tenths(self) -> tuple[float, float] | None:
        """Mean accuracy of the last tenth but one, and of the last tenth, of a training's steps.

        None if one of them has no row.
        """
        middle = self._rows[-1][0] - self._tenth if self._rows else 0.0
        before = [accuracy for step, accuracy in self._rows if step <= middle]
        last = [accuracy for step, accuracy in self._rows if step > middle]
        return (statistics.fmean(before), statistics.fmean(last)) if before and last else None
