"""Notice a training whose network is no better than guessing."""

from collections.abc import Mapping
from dataclasses import dataclass

from ktfast.errors import InputError

PATIENCE = 0.4
"""Share of the steps after which a network should have left the accuracy of guessing."""

BETTER = 3.0
"""A network has learnt something if its accuracy is this multiple of the accuracy of guessing."""


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

    def sentence(self, name: str, metrics: Mapping[str, float], step: int, total: int) -> str:
        """Say that a training is hardly better than guessing, and what to do."""
        return (
            f"{name} is hardly better than guessing: after {step} of {total} steps it is right in"
            f" {metrics['accuracy']:.1%} of the cases, and guessing in {self.accuracy:.1%}."
            f" Its features are little better than those of random weights. {self.remedy}"
        )
