"""The network for tasks on whole photographs: a trunk and three fully connected layers."""

import torch
from torch import Tensor, nn

from ktfast.errors import ConfigError
from ktfast.models import Trunk


class PhotographNet(nn.Module):
    """Compute logits of whole photographs, with fully connected layers as in AlexNet.

    Parameters
    ----------
    trunk : Trunk
        The convolutional layers.
    n_answers : int
        Number of logits.
    image_size : int
        Side of the photographs, pixels.
    hidden : int
        Units of each of the two fully connected layers between the trunk and the logits.
    dropout : float
        Dropout probability after each of the two layers.

    Raises
    ------
    ConfigError
        The photographs are too small for the trunk.
    """

    def __init__(
        self, trunk: Trunk, n_answers: int, *, image_size: int, hidden: int, dropout: float
    ) -> None:
        super().__init__()
        side = trunk.features.side(image_size)
        if side < 1:
            raise ConfigError(
                f"photographs of {image_size} px are too small for layer {trunk.features.last}, "
                f"which needs at least {trunk.features.smallest()} px; raise pretext.crop"
            )
        self.trunk = trunk
        flat = trunk.channels[trunk.features.last] * side**2
        self.classifier = nn.Sequential(
            nn.Linear(flat, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, n_answers),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, n_answers] of normalised images [B, 3, s, s]."""
        logits: Tensor = self.classifier(torch.flatten(self.trunk.features(images), 1))
        return logits
