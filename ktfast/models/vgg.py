"""VGG-16 (Simonyan and Zisserman 2015), configuration D, with torchvision's names and shapes."""

from torch import nn

from ktfast.models.trunk import LayerStack, Trunk, scaled

# Channels of the convolutions before each pooling.
_BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG16(Trunk):
    """VGG-16 with layers conv1_1, conv1_2, pool1, ..., conv5_3, pool5.

    Parameters
    ----------
    n_classes : int
        Outputs of the classifier. 0 makes a network without a classifier.
    width : float
        Multiplier of all channel counts and of the classifier's 4096 units.
    batch_norm : bool
        Batch-norm after each convolution, as in torchvision's vgg16_bn.
    dropout : float
        Dropout probability of the classifier.
    image_size : int
        Side of the images for which the classifier is made, pixels.
    channels : int
        Channels of the images.

    Raises
    ------
    ConfigError
        image_size is too small.
    """

    puzzle_layer = "conv4_3"

    def __init__(
        self,
        n_classes: int = 1000,
        *,
        width: float = 1.0,
        batch_norm: bool = False,
        dropout: float = 0.5,
        image_size: int = 224,
        channels: int = 3,
    ) -> None:
        super().__init__()
        modules: list[nn.Module] = []
        ends: dict[str, int] = {}
        before = channels
        for block, sizes in enumerate(_BLOCKS, start=1):
            for number, full in enumerate(sizes, start=1):
                after = scaled(full, width)
                modules.append(nn.Conv2d(before, after, 3, padding=1))
                if batch_norm:
                    modules.append(nn.BatchNorm2d(after))
                modules.append(nn.ReLU(inplace=True))
                ends[f"conv{block}_{number}"] = len(modules)
                before = after
            modules.append(nn.MaxPool2d(2, stride=2))
            ends[f"pool{block}"] = len(modules)
        self.features = LayerStack(modules, ends)
        self._add_classifier(
            n_classes, image_size, scaled(4096, width), dropout, dropout_first=False
        )
