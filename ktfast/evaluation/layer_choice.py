"""Choose the layer at which a model is compared with other models, without the test images.

Each model has one accuracy per layer. If the test images choose the best layer, the accuracy at
that layer is too high on average. The layer is therefore chosen by the accuracy on held-out
training images. The accuracy on the test images is reported at the chosen layer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ktfast.evaluation.results import ByModel, Layers


@dataclass(frozen=True)
class LayerChoice:
    """The layer of each model, and the accuracy on the test images at that layer.

    Attributes
    ----------
    chosen : dict of str to tuple
        Layer and accuracy by model. A model without an accuracy is left out.
    by_test : bool
        Whether the test images chose the layers. This happens if accuracies on held-out training
        images are missing, as in results of earlier versions of ktfast.
    """

    chosen: dict[str, tuple[str, float]] = field(default_factory=dict)
    by_test: bool = False

    def get(self, model: str) -> tuple[str, float] | None:
        """Layer and accuracy of a model, or None."""
        return self.chosen.get(model)


def choose_layers(accuracy: ByModel, held_out: ByModel) -> LayerChoice:
    """Choose the layer of each model by the accuracy on held-out training images.

    Parameters
    ----------
    accuracy : dict of str to dict of str to float
        Accuracy on the test images by model and layer.
    held_out : dict of str to dict of str to float
        Accuracy on held-out training images by model and layer.

    Returns
    -------
    LayerChoice
        The chosen layers. Of equally accurate layers, the first is chosen. If a model lacks the
        accuracy of a layer on held-out images, the test images choose the layers of all models, so
        that all models are treated alike.
    """
    models = {model: row for model, row in accuracy.items() if row}
    by_test = any(not row.keys() <= held_out.get(model, {}).keys() for model, row in models.items())
    chosen = {}
    for model, row in models.items():
        layer = _best(row, row if by_test else held_out[model])
        chosen[model] = (layer, row[layer])
    return LayerChoice(chosen, by_test)


def _best(layers: Mapping[str, Any], scores: Layers) -> str:
    return max(layers, key=lambda layer: scores[layer])
