"""Networks for whole photographs, built on a convolutional network of torchvision or timm.

Such a network has no hidden fully connected layers that Fast R-CNN and FCN-32s could reuse. Both
methods here read the network's last map. The detector adds two new hidden layers.
"""

from typing import cast

import torch
from torch import Tensor, nn

from ktfast.errors import ConfigError
from ktfast.models.student import Student
from ktfast.voc.heads import FixedNorms, interpolated

GRID, HIDDEN = 7, 1024
"""Side of the pooled map of a region, and units of each new hidden layer of the detector."""
_TRIAL = (256, 384)
"""Height and width of an image that a network must take, pixels."""


def map_stride(student: Student) -> int:
    """Give the number of image pixels per pixel of the last map.

    Parameters
    ----------
    student : Student
        The network; the function puts it into evaluation mode and back.

    Returns
    -------
    stride : int
        Image pixels per pixel of the map.

    Raises
    ------
    ConfigError
        The network takes no photographs of other sizes, or its map is not proportional to them.
    """
    height, width = _TRIAL
    weight = next(student.parameters())
    if student.layout(student.last_layer) == "tokens":
        raise ConfigError(f"{student.source} takes squares of one size only")
    was_training = student.training
    student.eval()
    try:
        with torch.no_grad():
            images = torch.zeros(1, 3, height, width, device=weight.device, dtype=weight.dtype)
            found = student.features_all(images, (student.last_layer,))[student.last_layer]
    except (AssertionError, RuntimeError, ValueError) as error:
        said = str(error).strip().partition("\n")[0]
        raise ConfigError(
            f"{student.source} does not take photographs of {width} x {height} px ({said})"
        ) from error
    finally:
        student.train(was_training)
    stride = height // found.shape[-2]
    if found.shape[-2] * stride != height or found.shape[-1] * stride != width:
        raise ConfigError(
            f"the last map of {student.source} has {found.shape[-1]} x {found.shape[-2]} pixels "
            f"for photographs of {width} x {height} px, which is not proportional"
        )
    return stride


class _Features(FixedNorms):
    """The layers of a network up to its last map."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.stride = map_stride(student)
        self.student = student
        self.layer = student.last_layer
        student.freeze_after(self.layer)

    def features(self, images: Tensor) -> Tensor:
        """The last map [B, C, h, w] of images [B, 3, H, W]."""
        return self.student.features_all(images, (self.layer,))[self.layer]


class StudentFCN(_Features):
    """Class of every pixel from the last map of a network.

    Parameters
    ----------
    student : Student
        The network. It becomes a part of this network; do not use it afterwards.
    n_classes : int
        Number of classes, the background (class 0) included.

    Attributes
    ----------
    hidden : nn.Sequential
        Empty: there are no new hidden layers.
    """

    def __init__(self, student: Student, n_classes: int) -> None:
        super().__init__(student)
        self.hidden = nn.Sequential()
        self.scores = nn.Conv2d(student.channels[self.layer], n_classes, 1)
        for parameter in self.scores.parameters():
            nn.init.zeros_(parameter)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [B, n_classes, H, W] of images [B, 3, H, W]."""
        scores = self.scores(self.features(images)).float()
        return interpolated(scores, images, self.stride, (self.stride - 1) / 2)


class StudentRCNN(_Features):
    """Fast R-CNN on the last map of a network, with two new hidden layers.

    Parameters
    ----------
    student : Student
        The network. It becomes a part of this network; do not use it afterwards.
    n_classes : int
        Number of classes without the background. The background is class 0 of the scores.
    """

    def __init__(self, student: Student, n_classes: int) -> None:
        super().__init__(student)
        self.hidden = nn.Sequential()
        width = student.channels[self.layer] * GRID**2
        for before in (width, HIDDEN):
            self.hidden.extend([nn.Linear(before, HIDDEN), nn.ReLU(inplace=True)])
            layer = cast(nn.Linear, self.hidden[-2])
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        self.scores = nn.Linear(HIDDEN, n_classes + 1)
        self.boxes = nn.Linear(HIDDEN, 4 * (n_classes + 1))
        for output, std in ((self.scores, 0.01), (self.boxes, 0.001)):
            nn.init.normal_(output.weight, std=std)
            nn.init.zeros_(output.bias)

    def forward(self, images: Tensor, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Classify regions and correct their boxes; see `ktfast.voc.heads.FastRCNN.forward`."""
        from torchvision.ops import roi_pool  # slow to import

        corners = regions.float() - regions.new_tensor([0, 0, 0, 1, 1])
        maps = self.features(images).float()
        pooled = roi_pool(maps, corners, GRID, 1 / self.stride)
        hidden = self.hidden(pooled.flatten(1))
        return self.scores(hidden), self.boxes(hidden)
