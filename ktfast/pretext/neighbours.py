"""Judge a pretext network by its features while it is trained.

A network can solve more puzzles than before and still have worse features. If the training images
lie in one folder per class, the nearest neighbours of some training images show how well the
features separate the classes. The network never sees the classes. For images without classes, the
agreement of two clusterings with different seeds shows how clearly the features form groups.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from ktfast.evaluation.knn import knn_accuracy
from ktfast.evaluation.unlabelled import adjusted_rand_index
from ktfast.features.teachers import trunk_teacher
from ktfast.images.in_order import in_order
from ktfast.images.source import ImageSource
from ktfast.models import Trunk
from ktfast.training.classification import evaluating

IMAGES, CLASSES = 1000, 100
"""Largest numbers of images and of classes that judge the features."""
NEIGHBOURS = 10
GRID = 3
"""Each map is averaged to GRID x GRID cells."""
BATCH = 100
CLUSTERS, PER_CLUSTER = 50, 10
"""Largest number of clusters that are compared, and least mean number of their images."""


def judged_rows(labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Choose the images that judge the features: about equally many of each class.

    Parameters
    ----------
    labels : array, int64 [n]
        Class of each image; -1 means that the image has no class.

    Returns
    -------
    rows : array, int64 [m]
        Rows of the images in ascending order. The array is empty if fewer than two classes have two
        images, or if at most `NEIGHBOURS` images would be chosen.
    """
    names, sizes = np.unique(labels[labels >= 0], return_counts=True)
    names = names[sizes >= 2]
    nothing = np.zeros(0, np.int64)
    if len(names) < 2:
        return nothing
    names = names[_spread(len(names), CLASSES)]
    of_class = [np.flatnonzero(labels == name) for name in names]
    rows = np.sort(np.concatenate([r[_spread(len(r), IMAGES // len(names))] for r in of_class]))
    return rows if len(rows) > NEIGHBOURS else nothing


def clustered_rows(n: int) -> npt.NDArray[np.int64]:
    """Choose the images without classes that judge the features: equally spaced ones.

    Parameters
    ----------
    n : int
        Number of images.

    Returns
    -------
    rows : array, int64 [m]
        Rows of the images in ascending order. The array is empty if there are too few images for
        two clusters.
    """
    return _spread(n, IMAGES) if n >= 2 * PER_CLUSTER else np.zeros(0, np.int64)


def _spread(n: int, most: int) -> npt.NDArray[np.int64]:
    """Choose at most `most` of the numbers 0 .. n - 1, about equally spaced."""
    return np.arange(n) if n <= most else np.arange(most) * n // most


class Judge:
    """Measure the nearest neighbours of a trunk's features.

    Parameters
    ----------
    trunk : Trunk
        Network that is trained. The maps of its last layer, averaged to 3 x 3 cells, are the
        features.
    images : ImageSource
        Images of the training.
    rows : array, int64 [m]
        Rows of the images that judge the features; see `judged_rows` and `clustered_rows`. The
        centre squares of these images stay in memory.
    short_side : int
        Shorter side of the images, pixels.
    size : int
        Side of the centre square that the network sees, pixels.
    n_threads : int, optional
        Threads that decode the images. None: one per core of this process.
    """

    def __init__(
        self,
        trunk: Trunk,
        images: ImageSource,
        rows: npt.NDArray[np.int64],
        *,
        short_side: int,
        size: int,
        n_threads: int | None = None,
    ) -> None:
        self.trunk = trunk
        self.n_threads = n_threads
        self.labels = images.labels[rows]

        def square(number: int) -> npt.NDArray[np.uint8]:
            return images.square(int(rows[number]), short_side=short_side, size=size)

        with in_order(square, len(rows), n_threads) as squares:
            self.squares = torch.from_numpy(np.stack([found for _, found in squares(0)]))

    def accuracy(self) -> float | None:
        """Mean per-class accuracy, in [0, 1], of a vote of the 10 nearest neighbours of each image.

        None if a feature is NaN or infinite. The loss of the training then shows the cause.
        """
        features = self._features()
        if not bool(torch.isfinite(features).all()):
            return None
        every = np.arange(len(features))  # an image does not vote for itself
        found = knn_accuracy(
            features, self.labels, features, self.labels, k=NEIGHBOURS, own_rows=every
        )
        return found.mean_per_class

    def agreement(self) -> float | None:
        """Adjusted Rand index of two clusterings of the features, which differ in their seed.

        1 means equal clusterings, and about 0 independent ones. None if a feature is NaN or
        infinite, or if fewer images than clusters have different features: the network then gives
        nearly equal features to all images, and their clusters say nothing.
        """
        from ktfast.kmeans import KMeans  # loads scikit-learn, which is slow

        features = self._features().float().cpu()
        if not bool(torch.isfinite(features).all()):
            return None
        centred = features.double() - features.double().mean(0)
        rows = functional.normalize(centred).float().numpy()
        k = min(CLUSTERS, len(rows) // PER_CLUSTER)
        if len(np.unique(rows, axis=0)) < k:
            return None
        first, second = (
            KMeans(k, random_state=seed, n_threads=self.n_threads).fit_predict(rows)
            for seed in (0, 1)
        )
        return adjusted_rand_index(first, second)

    def _features(self) -> Tensor:
        device = next(self.trunk.parameters()).device
        with evaluating(self.trunk):
            teach = trunk_teacher(self.trunk, self.trunk.features.last, pool=GRID, pooling="mean")
            return torch.cat([teach(part.to(device)) for part in torch.split(self.squares, BATCH)])
