"""Agreement of clusters with true classes: normalised mutual information and purity.

Images whose class is unknown (label -1) are left out.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ktfast.errors import InputError


def normalized_mutual_information(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Mutual information of classes and clusters, divided by the mean of their entropies.

    The measure is not corrected for chance: more clusters give a higher value even for random
    clusters. Compare values of the same number of clusters only.

    Parameters
    ----------
    labels : array, int [n]
        True classes; rows with label -1 are left out.
    clusters : array, int [n]
        Cluster of each image.

    Returns
    -------
    float
        Value in [0, 1].

    Raises
    ------
    InputError
        An argument is no vector of integers, the lengths differ, or no class is known.
    """
    from sklearn import metrics  # slow to import

    known, groups = _known(labels, clusters)
    return float(metrics.normalized_mutual_info_score(known, groups))


def purity(labels: ArrayLike, clusters: ArrayLike) -> float:
    """Fraction of images that belong to the most frequent class of their cluster.

    Parameters
    ----------
    labels : array, int [n]
        True classes; rows with label -1 are left out.
    clusters : array, int [n]
        Cluster of each image.

    Returns
    -------
    float
        Value in (0, 1].

    Raises
    ------
    InputError
        An argument is no vector of integers, the lengths differ, or no class is known.
    """
    from sklearn.metrics.cluster import contingency_matrix  # slow to import

    known, groups = _known(labels, clusters)
    table = contingency_matrix(known, groups, sparse=True)
    return float(table.max(axis=0).sum() / len(known))


def _known(labels: ArrayLike, clusters: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Check both vectors and keep the rows whose class is known."""
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
        raise InputError(
            "no image has a known class, so clusters cannot be compared with classes; give images "
            "in class folders"
        )
    return classes[known].astype(np.int64), groups[known].astype(np.int64)
