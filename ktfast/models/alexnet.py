"""AlexNet as in Caffe (the paper's target network) and as in torchvision.

Sources: Krizhevsky et al. 2012; Caffe's reference network (pooling before normalisation, pooling
rounds up); Krizhevsky 2014 ("one weird trick") for torchvision's variant. For the puzzle, conv1 has
stride 2 (Noroozi and Favaro 2016). The weights of both strides have the same shapes.
"""

from typing import Literal

from torch import nn

from ktfast.errors import ConfigError
from ktfast.models.normalization import LocalResponseNorm
from ktfast.models.trunk import LayerStack, Trunk, scaled

# Per layer: channels, kernel, padding, whether the convolution has `groups` groups.
_CAFFE = (
    (96, 11, 0, False),
    (256, 5, 2, True),
    (384, 3, 1, False),
    (384, 3, 1, True),
    (256, 3, 1, True),
)
_TORCHVISION = (
    (64, 11, 2, False),
    (192, 5, 2, False),
    (384, 3, 1, False),
    (256, 3, 1, False),
    (256, 3, 1, False),
)


class AlexNet(Trunk):
    """AlexNet with layers conv1, pool1, conv2, pool2, conv3, conv4, conv5, pool5.

    Parameters
    ----------
    n_classes : int
        Outputs of the classifier. 0 makes a network without a classifier.
    variant : {"caffe", "torchvision"}
        "caffe" has 96-256-384-384-256 channels, groups, local response normalisation, and pooling
        that rounds up. "torchvision" has 64-192-384-256-256 channels, no groups, no local response
        normalisation, and pooling that rounds down; state dicts interchange with torchvision's.
    width : float
        Multiplier of all channel counts and of the classifier's 4096 units.
    batch_norm : bool
        Batch-norm after each convolution, instead of local response normalisation.
    lrn : bool
        Local response normalisation after pool1 and pool2 (variant "caffe").
    groups : int
        Convolution groups of conv2, conv4 and conv5 (variant "caffe").
    conv1_stride : int
        Stride of conv1: 4 in the published network, 2 in the puzzle network.
    image_size : int
        Side of the images for which the classifier is made, pixels.
    dropout : float
        Dropout probability of the classifier.
    channels : int
        Channels of the images.

    Raises
    ------
    ConfigError
        The variant is unknown, or image_size is too small.
    """

    puzzle_layer = "pool5"

    def __init__(
        self,
        n_classes: int = 1000,
        *,
        variant: Literal["caffe", "torchvision"] = "caffe",
        width: float = 1.0,
        batch_norm: bool = False,
        lrn: bool = True,
        groups: int = 2,
        conv1_stride: int = 4,
        image_size: int = 227,
        dropout: float = 0.5,
        channels: int = 3,
    ) -> None:
        super().__init__()
        if variant not in ("caffe", "torchvision"):
            raise ConfigError(f"variant must be 'caffe' or 'torchvision', got {variant!r}")
        caffe = variant == "caffe"
        modules: list[nn.Module] = []
        ends: dict[str, int] = {}
        before = channels
        for number, (full, kernel, padding, grouped) in enumerate(
            _CAFFE if caffe else _TORCHVISION, start=1
        ):
            split = groups if grouped else 1
            after = scaled(full, width, groups if caffe else 1)
            stride = conv1_stride if number == 1 else 1
            modules.append(
                nn.Conv2d(before, after, kernel, stride=stride, padding=padding, groups=split)
            )
            before = after
            if batch_norm:
                modules.append(nn.BatchNorm2d(after))
            modules.append(nn.ReLU(inplace=True))
            ends[f"conv{number}"] = len(modules)
            if number in (1, 2, 5):
                modules.append(nn.MaxPool2d(3, stride=2, ceil_mode=caffe))
                ends[f"pool{number}"] = len(modules)
            if number in (1, 2) and caffe and lrn and not batch_norm:
                modules.append(LocalResponseNorm())
        self.features = LayerStack(modules, ends)
        self._add_classifier(
            n_classes, image_size, scaled(4096, width), dropout, dropout_first=not caffe
        )
