"""A comparison of two models whose measure and layer are settled before the run.

If the best of several layers and measures is chosen after the test, the chosen difference is on
average larger than the true difference. A comparison that is settled before the run avoids this
bias.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ktfast.errors import InputError
from ktfast.evaluation.json_values import Json, mapping, number

MEASURES = {"knn": "nearest neighbours", "linear": "linear probe"}
"""Printed name of each measure that can be settled before a run."""


@dataclass(frozen=True)
class Headline:
    """Accuracies of the settled measure at the settled layer.

    Attributes
    ----------
    measure : str
        A name from `MEASURES`.
    layer : str
        Name of the layer.
    classes : dict of str to list of float
        Accuracy of each class, in the order of the classes, by model.
    """

    measure: str
    layer: str
    classes: dict[str, list[float]]

    def to_json(self) -> Json:
        """JSON object of the comparison."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, value: object) -> "Headline | None":
        """Read what `to_json` returned; None if the value is no settled comparison."""
        known = mapping(value)
        measure, layer = known.get("measure"), known.get("layer")
        if measure not in MEASURES or not isinstance(layer, str):
            return None
        classes = {}
        for model, row in mapping(known.get("classes")).items():
            values = [number(item) for item in row] if isinstance(row, list) else []
            whole = [value for value in values if value is not None]
            if whole and len(whole) == len(values):
                classes[str(model)] = whole
        return cls(str(measure), layer, classes)


@dataclass(frozen=True)
class Difference:
    """Difference of two mean per-class accuracies, and the uncertainty of the difference.

    Attributes
    ----------
    first, second : float
        Mean per-class accuracies, in [0, 1].
    noise : float
        Half the width of a 95 % confidence interval of `first - second` for other test images of
        the same classes.
    class_noise : float
        Half the width of a 95 % confidence interval for other classes; infinite for one class.
    """

    first: float
    second: float
    noise: float
    class_noise: float

    @property
    def gap(self) -> float:
        """The difference of the two accuracies."""
        return self.first - self.second


def difference(first: Sequence[float], second: Sequence[float], n_images: float) -> Difference:
    """Compare two models on the same test images.

    The formula of `noise` assumes that the test images are independent draws, and that each model
    is tested on images of its own. Both models see the same images, so the true noise is usually
    smaller. The formula of `class_noise` assumes that the classes are independent draws (paired
    Student's t).

    Parameters
    ----------
    first, second : sequence of float [n]
        Accuracy of each class, in [0, 1].
    n_images : float
        Number of test images, > 0.

    Returns
    -------
    Difference
        Both means, and both noises.

    Raises
    ------
    InputError
        The sequences are empty or not equally long, or there are no images.
    """
    if len(first) != len(second) or not len(first):
        raise InputError(
            f"both models need the accuracy of every class, got {len(first)} and {len(second)}"
        )
    if not n_images > 0:
        raise InputError(f"n_images must be positive, got {n_images}")
    a, b = np.asarray(first, np.float64), np.asarray(second, np.float64)
    p, q = float(a.mean()), float(b.mean())
    variance = p * (1 - p) + q * (1 - q)
    return Difference(
        first=p,
        second=q,
        noise=1.96 * math.sqrt(variance / n_images),
        class_noise=_by_classes(a - b),
    )


def _by_classes(differences: NDArray[np.float64]) -> float:
    """Half-width of the 95 % interval of the mean difference over classes."""
    n = len(differences)
    if n < 2:
        return math.inf
    from scipy.stats import t

    return float(t.ppf(0.975, n - 1) * differences.std(ddof=1) / math.sqrt(n))
