"""Measure a network now and then while it is trained."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Watch:
    """A measure that is taken before a training and several times in it, at equal distances.

    Attributes
    ----------
    times : int
        Number of measures in the training. The last one follows the last step.
    measure : callable
        Called with the number of steps done. Returns figures for metrics.jsonl. It must leave the
        network, its mode and the random generators as they were.
    """

    times: int
    measure: Callable[[int], Mapping[str, float]]

    def due(self, step: int, total: int) -> bool:
        """Whether to measure after `step` of `total` steps; step 0 is the untrained network."""
        return step == 0 or step * self.times // total > (step - 1) * self.times // total
