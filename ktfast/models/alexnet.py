"""AlexNet as Caffe has it (the paper's target), and as torchvision has it.

Sources: Krizhevsky et al. 2012; Caffe's reference network (pooling before normalisation, pooling
rounds up); Krizhevsky 2014 ("one weird trick") for torchvision's. For the puzzle, conv1 has stride
2 (Noroozi and Favaro 2016): its weights fit the stride-4 network.
"""

from typing import Literal

from torch import nn

from ktfast.errors import ConfigError
from ktfast.models.normalization import LocalResponseNorm
from ktfast.models.trunk import LayerStack, Trunk, scaled

# Per layer: channels, kernel, padding, convolution groups (None: the `groups` option or 1).
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
    n_classes : outputs of the classifier; 0 leaves it out.
    variant : "caffe" (96-256-384-384-256, groups, LRN, pooling rounds up) or "torchvision"
        (64-192-384-256-256, none of these; state dicts interchange with torchvision's).
    width : multiplier of all channel counts and of the classifier's 4096.
    batch_norm : batch-norm after each convolution, which replaces LRN.
    lrn : local response normalisation after pool1 and pool2 (variant "caffe").
    groups : convolution groups of conv2, conv4 and conv5 (variant "caffe").
    conv1_stride : 4; the puzzle's network has 2.
    image_size : side of the images that the classifier is made for, pixels.
    dropout : of the classifier.

    Raises
    ------
    ConfigError : the variant is unknown or image_size too small.
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
    ) -> None:
        super().__init__()
        if variant not in ("caffe", "torchvision"):
            raise ConfigError(f"variant must be 'caffe' or 'torchvision', got {variant!r}")
        caffe = variant == "caffe"
        modules: list[nn.Module] = []
        ends: dict[str, int] = {}
        before = 3
        for number, (channels, kernel, padding, grouped) in enumerate(
            _CAFFE if caffe else _TORCHVISION, start=1
        ):
            split = groups if grouped else 1
            after = scaled(channels, width, groups if caffe else 1)
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
