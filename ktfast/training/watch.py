"""Measure a network at equal intervals while it is trained."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Watch:
    """A measure that is taken before a training, and then at equal intervals of steps.

    Attributes
    ----------
    times : int
        Number of times after step 0 that the measure is taken. The last time follows the last step.
    measure : callable
        Called with the number of steps done. Returns figures for metrics.jsonl. The call must not
        change the network, its mode or the random generators.
    """

    times: int
    measure: Callable[[int], Mapping[str, float]]

    def due(self, step: int, total: int) -> bool:
        """Whether to measure after `step` of `total` steps. Step 0 is before the training."""
        return step == 0 or step * self.times // total > (step - 1) * self.times // total
