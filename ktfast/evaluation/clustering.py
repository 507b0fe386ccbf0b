"""Agreement of clusters with true classes: mutual information, purity, adjusted Rand index.

Images whose class is unknown (label -1) take no part; `clustering_scores` counts them.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import metrics
from sklearn.metrics.cluster import contingency_matrix

from ktfast.errors import InputError


@dataclass(frozen=True)
class ClusteringScores:
    """All three scores, and how many images were compared or left out."""

    nmi: float
    purity: float
    adjusted_rand: float
    n_compared: int
    n_excluded: int
    n_classes: int
    n_clusters: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dictionary ready for JSON."""
        return asdict(self)


def clustering_scores(labels: ArrayLike, clusters: ArrayLike) -> ClusteringScores:
    """Compare clusters with classes.

    Parameters
    ----------
    labels : int [n], true classes; -1 is unknown.
    clusters : int [n], cluster of each image.

    Raises
    ------
    InputError : shapes that differ, or no image with a known class.
    """
    known, groups, excluded = _known(labels, clusters)
    return ClusteringScores(
        nmi=normalized_mutual_information(known, groups),
        purity=purity(known, groups),
        adjusted_rand=adjusted_rand(known, groups),
        n_compared=len(known),
        n_excluded=excluded,
        n_classes=len(np.unique(known)),
        n_clusters=len(np.unique(groups)),
    )


def normalized_mutual_information(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Mutual information of classes and clusters over the mean of their entropies, 0 to 1.

    Not corrected for chance: more clusters give a higher value even at random, so compare at the
    same number of clusters only.

    Parameters
    ----------
    labels, clusters : int [n]; rows with label -1 are left out.
    """
    known, groups, _ = _known(labels, clusters)
    return float(metrics.normalized_mutual_info_score(known, groups))


def purity(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Fraction of images that belong to the most frequent class of their cluster.

    Parameters
    ----------
    labels, clusters : int [n]; rows with label -1 are left out.
    """
    known, groups, _ = _known(labels, clusters)
    table = contingency_matrix(known, groups, sparse=True)
    return float(table.max(axis=0).sum() / len(known))


def adjusted_rand(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Rand index corrected for chance: 1 for equal partitions, about 0 for random ones.

    Parameters
    ----------
    labels, clusters : int [n]; rows with label -1 are left out.
    """
    known, groups, _ = _known(labels, clusters)
    return float(metrics.adjusted_rand_score(known, groups))


def _known(
    labels: ArrayLike, clusters: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Keep the rows with a known class; also return how many had none."""
    classes, groups = np.asarray(labels), np.asarray(clusters)
    for name, vector in (("labels", classes), ("clusters", groups)):
        if vector.ndim != 1 or not np.issubdtype(vector.dtype, np.integer):
            raise InputError(
                f"{name} must be a vector of integers, got {vector.dtype} {vector.shape}"
            )
    if classes.shape != groups.shape:
        raise InputError(
            f"labels and clusters must be equally long, got {len(classes)} and {len(groups)}"
        )
    known = classes >= 0
    if not known.any():
        raise InputError("no image has a known class, so clusters cannot be compared with classes")
    return (
        classes[known].astype(np.int64),
        groups[known].astype(np.int64),
        int((~known).sum()),
    )
