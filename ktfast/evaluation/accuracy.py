"""The two accuracies every protocol reports, and the label checks they share.

Top-1 counts images; the mean per-class accuracy counts every class the same, which is the honest
figure where classes have 31 to 800 images each.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ktfast.errors import InputError


def label_vector(labels: Any, n_rows: int, name: str, *, n_classes: int) -> NDArray[np.int64]:
    """Check class labels and return them as int64.

    Parameters
    ----------
    labels : integers [n_rows], NumPy, torch or a sequence.
    n_rows : how many rows the features beside them have.
    name : the argument's name, for messages.
    n_classes : labels must lie in 0 .. n_classes - 1.

    Returns
    -------
    int64 [n_rows].

    Raises
    ------
    InputError : wrong shape, not integers, or a label out of range (-1, unknown, included).
    """
    vector = np.asarray(labels.cpu() if hasattr(labels, "cpu") else labels)
    if vector.shape != (n_rows,):
        raise InputError(f"{name} must be a vector of {n_rows} labels, got shape {vector.shape}")
    if not np.issubdtype(vector.dtype, np.integer):
        raise InputError(f"{name} must hold integers, got {vector.dtype}")
    if n_rows and (vector.min() < 0 or vector.max() >= n_classes):
        raise InputError(
            f"{name} must lie in 0..{n_classes - 1}, got {vector.min()}..{vector.max()}; "
            "leave out the images whose class is unknown"
        )
    return vector.astype(np.int64)


def top1_accuracy(labels: NDArray[np.int64], predictions: NDArray[np.int64]) -> float:
    """Fraction of rows whose prediction is their label; both int64 [n], n > 0."""
    return float(np.mean(labels == predictions))


def mean_per_class_accuracy(labels: NDArray[np.int64], predictions: NDArray[np.int64]) -> float:
    """Mean over the classes present in `labels` of the fraction of their rows predicted right.

    Parameters
    ----------
    labels, predictions : int64 [n], labels >= 0, n > 0.
    """
    n_classes = int(labels.max()) + 1
    counts = np.bincount(labels, minlength=n_classes)
    hits = np.bincount(labels[labels == predictions], minlength=n_classes)
    present = counts > 0
    return float(np.mean(hits[present] / counts[present]))
