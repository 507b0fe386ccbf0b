"""Published results of the method, in percent, that the report shows beside a run's results.

Source: Noroozi, Vinjimoor, Favaro, Pirsiavash: "Boosting Self-Supervised Learning via Knowledge
Transfer", CVPR 2018, arXiv 1805.00385. All results are for an AlexNet target. None stands
for a result that was not published. The paper's data sets are larger than a small run's data set.
Compare the differences between layers and the order of the methods, not the values.
"""

from dataclasses import dataclass
from typing import Literal

SOURCES = {
    "printed": "a table printed in the paper",
    "third party": "a statement about the paper elsewhere (the authors' project page, a blog)",
    "code": "another project's code or README",
    "derived": "recomputed from other figures",
    "remembered": "remembered, not checked against a source",
}
Source = Literal["printed", "third party", "code", "derived", "remembered"]

CONV_LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")


@dataclass(frozen=True)
class LayerRow:
    """Top-1 accuracy of one method at the layers conv1 .. conv5.

    Attributes
    ----------
    name : str
        Name of the method in the paper.
    accuracy : tuple of float
        Accuracy in percent, one per layer.
    source : str
        Where the numbers come from, a key of `SOURCES`.
    note : str
        Remark on the numbers.
    """

    name: str
    accuracy: tuple[float, ...]
    source: Source
    note: str = ""


@dataclass(frozen=True)
class VocRow:
    """Results of one method on PASCAL VOC.

    Attributes
    ----------
    name : str
        Name of the method in the paper.
    clustered : bool
        Whether knowledge was transferred through clusters.
    pretext_network : str
        Network that learnt the pretext task.
    classification, detection_single_scale, detection_multi_scale : pair, optional
        Mean average precision in percent, and its source.
    segmentation : pair, optional
        Mean intersection over union in percent, and its source.
    """

    name: str
    clustered: bool
    pretext_network: str
    classification: tuple[float, Source] | None
    detection_single_scale: tuple[float, Source] | None
    detection_multi_scale: tuple[float, Source] | None
    segmentation: tuple[float, Source] | None


# fmt: off
IMAGENET_LINEAR = (
    LayerRow("ImageNet labels", (19.3, 36.3, 44.2, 48.3, 50.5), "printed"),
    LayerRow("random", (11.6, 17.1, 16.9, 16.3, 14.1), "printed"),
    LayerRow("CC+HOG", (16.8, 27.4, 20.7, 32.0, 29.1), "printed", "conv3 may be a misprint"),
    LayerRow("Jigsaw++", (18.2, 28.7, 34.1, 33.2, 28.0), "printed"),
    LayerRow("CC+Jigsaw++", (18.9, 30.5, 35.7, 35.4, 32.2), "printed"),
    LayerRow("CC+vgg-Jigsaw++", (19.2, 32.0, 37.3, 37.1, 34.6), "printed"),
)
IMAGENET_NONLINEAR = (
    LayerRow("ImageNet labels", (57.3, 57.3, 57.3, 57.3, 57.3), "printed"),
    LayerRow("random", (48.5, 41.0, 34.8, 27.1, 12.0), "printed"),
    LayerRow("Jigsaw", (54.7, 52.8, 49.7, 45.3, 34.6), "printed"),
    LayerRow("Jigsaw++", (54.7, 52.9, 50.3, 46.1, 35.4), "printed"),
    LayerRow("CC+Jigsaw++", (55.3, 52.2, 51.4, 47.6, 41.1), "printed", "fc6 33.9, fc7 25.9"),
    LayerRow("CC+vgg-Jigsaw++", (55.9, 55.1, 52.4, 49.5, 43.9), "printed", "fc6 37.3, fc7 27.9"),
)
PLACES_LINEAR = (
    LayerRow("CC+vgg-Jigsaw++", (22.9, 34.2, 37.5, 37.1, 34.4), "remembered",
             "a third party confirms 37.5 at conv3"),
)
VOC = (
    VocRow("Jigsaw", False, "AlexNet", (67.7, "third party"), (53.2, "third party"), None, None),
    VocRow("Jigsaw++", False, "AlexNet", (69.8, "third party"), (55.5, "third party"),
           (55.7, "third party"), (38.1, "third party")),
    VocRow("Jigsaw++", True, "AlexNet", (69.9, "third party"), (55.0, "third party"),
           (55.8, "third party"), (40.0, "third party")),
    VocRow("Jigsaw++", True, "VGG-16", (72.5, "third party"), (56.5, "third party"),
           (57.2, "third party"), (42.6, "third party")),
    VocRow("ImageNet labels", False, "AlexNet", (79.9, "remembered"), (59.1, "derived"),
           (59.8, "remembered"), (48.0, "code")),
    VocRow("random", False, "AlexNet", (53.3, "remembered"), (43.4, "remembered"), None,
           (19.8, "remembered")),
)
# Mean average precision of VOC2007 classification in percent, by the number of clusters of ImageNet
# and by the data sets of the centres and of the pseudo-labelled images. The paper prints both.
CLUSTERS_VOC07 = {500: 69.1, 1000: 69.5, 2000: 69.9, 5000: 69.9, 10000: 70.0}
DATA_SETS_VOC07 = (
    ("ImageNet", "ImageNet", 69.9),
    ("ImageNet", "Places", 68.4),
    ("Places", "ImageNet", 68.3),
)
# fmt: on
