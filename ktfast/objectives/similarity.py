"""The objective similarity: the student finds the same images of a batch alike as the teacher."""

import torch
from torch import Tensor
from torch.nn import functional

from ktfast.objectives.protocol import Objective
from ktfast.training.loop import StepOutput

# Similarity of an image to itself: finite, so that its share is 0 and its divergence no NaN.
_NEVER = -1e9


class Similarity(Objective):
    """Kullback-Leibler divergence between the teacher's and the student's similarities.

    The method is CompRess (Koohpayegani et al., NeurIPS 2020), with the other images of the batch
    as anchors instead of a memory bank. For each image, the cosine similarities to the other images
    of the batch, divided by the temperature, become probabilities by a softmax. The loss is the
    divergence of the student's probabilities from the teacher's. The loss of similarity-preserving
    distillation (Tung and Mori, ICCV 2019) compares the same similarities by squared error. There
    the many pairs of unlike images outweigh the few pairs of like images.
    """

    title = "similarities of the teacher's features"
    measure_name = "divergence of similarities (nats)"
    whole_batches = True

    def loss(self, outputs: Tensor, targets: Tensor) -> StepOutput:
        """Compute the mean divergence over the images of a batch."""
        return StepOutput(self.score(outputs, targets).mean())

    def score(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Compute the divergence [B] of each image: 0 if student and teacher agree."""
        if len(outputs) < 2:
            return outputs.sum(1) * 0  # an image alone is similar to nothing
        # A matrix product in half precision would round similarities that differ little.
        with torch.autocast(outputs.device.type, enabled=False):
            student, teacher = (self._log_shares(rows) for rows in (outputs, targets))
            return functional.kl_div(student, teacher, reduction="none", log_target=True).sum(1)

    def _log_shares(self, rows: Tensor) -> Tensor:
        """Logarithms [B, B] of each row's shares of similarity to the other rows."""
        unit = functional.normalize(rows.float(), dim=1, eps=1e-6)
        oneself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
        similar = (unit @ unit.T) / self.options.temperature
        return functional.log_softmax(similar.masked_fill(oneself, _NEVER), dim=1)
