"""The objective regression: the student's outputs point where the teacher's features point."""

from torch import Tensor
from torch.nn import functional

from ktfast.objectives.protocol import Objective
from ktfast.training.loop import StepOutput


class Regression(Objective):
    """Squared distance of the student's outputs to the teacher's features, both of length 1.

    The method is SimReg (Navaneet et al., BMVC 2021): squared error of rows of length 1, through a
    head that is dropped afterwards. FitNets (Romero et al., ICLR 2015) regressed features first.
    Because the rows have length 1, the loss depends only on the direction of the outputs, and its
    size does not depend on the scale of the teacher's features.
    """

    title = "regression of the teacher's features"
    measure_name = "cosine similarity"

    def loss(self, outputs: Tensor, targets: Tensor) -> StepOutput:
        """Compute the mean squared distance, and the mean cosine similarity as a metric."""
        cosine = self.score(outputs, targets).mean()
        return StepOutput(2 - 2 * cosine, {"cosine": cosine.detach()})

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compute the cosine similarity [B] of output and target: 1 if they agree."""
        return functional.cosine_similarity(outputs, targets, dim=1)
