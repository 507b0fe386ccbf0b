"""The registry of objectives on the teacher's features: values of `transfer.objective`.

To add an objective, write a subclass of `ktfast.objectives.protocol.Objective`, give it a name
here, and add the name to the option `transfer.objective` in `ktfast.config.transfer`.
"""

import numpy as np
import numpy.typing as npt
from torch import nn

from ktfast.config import TransferConfig
from ktfast.objectives.protocol import Objective
from ktfast.objectives.regression import Regression
from ktfast.objectives.similarity import Similarity

OBJECTIVES: dict[str, type[Objective]] = {"regression": Regression, "similarity": Similarity}
"""The objectives by name. The objective `clusters` learns labels and is not among them."""


def build_objective(
    model: nn.Module, targets: npt.NDArray[np.float32], options: TransferConfig, *, seed: int
) -> Objective:
    """Build the objective that `transfer.objective` names.

    Parameters
    ----------
    model : nn.Module
        The student, with as many outputs as the targets have components.
    targets : array, float32 [n, p]
        Vector of length 1 for each image.
    options : TransferConfig
        Options of the section `transfer`.
    seed : int
        Seed of the random views.

    Returns
    -------
    objective : Objective
        The objective, which the training loop can train.
    """
    return OBJECTIVES[options.objective](model, targets, options, seed=seed)
