"""The two accuracies that every protocol reports, and the check of labels.

Top-1 accuracy counts images. Mean per-class accuracy gives every class the same weight, which
matters for data sets with classes of very different size.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ktfast.errors import InputError


def label_vector(labels: Any, n_rows: int, name: str, *, n_classes: int) -> NDArray[np.int64]:
    """Check class labels and convert them to int64.

    Parameters
    ----------
    labels : array or sequence, int [n_rows]
        Labels from NumPy, torch or a list.
    n_rows : int
        Number of rows of the features that belong to the labels.
    name : str
        Name of the argument, for the error message.
    n_classes : int
        Number of classes; labels must lie in 0 .. n_classes - 1.

    Returns
    -------
    array, int64 [n_rows]
        The labels.

    Raises
    ------
    InputError
        The shape is wrong, the labels are not integers, or a label is out of range. The label -1
        (unknown class) is out of range.
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
    """Fraction of rows whose prediction equals their label; both int64 [n], n > 0."""
    return float(np.mean(labels == predictions))


def mean_per_class_accuracy(labels: NDArray[np.int64], predictions: NDArray[np.int64]) -> float:
    """Mean over classes of the fraction of the class's rows that are predicted right.

    Classes without a row in `labels` do not count. scikit-learn's `balanced_accuracy_score` returns
    the same value, but warns about every prediction of such a class.

    Parameters
    ----------
    labels : array, int64 [n]
        True classes, >= 0; n > 0.
    predictions : array, int64 [n]
        Predicted classes.

    Returns
    -------
    float
        Accuracy in [0, 1].
    """
    return float(np.mean(class_accuracies(labels, predictions)))


def class_accuracies(
    labels: NDArray[np.int64], predictions: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Fraction of the rows of each class that are predicted right.

    Parameters
    ----------
    labels : array, int64 [n]
        True classes, >= 0; n > 0.
    predictions : array, int64 [n]
        Predicted classes.

    Returns
    -------
    array, float64 [c]
        Accuracy of each class that has a row in `labels`, in the order of the classes.
    """
    n_classes = int(labels.max()) + 1
    counts = np.bincount(labels, minlength=n_classes)
    hits = np.bincount(labels[labels == predictions], minlength=n_classes)
    present = counts > 0
    accuracies: NDArray[np.float64] = hits[present] / counts[present]
    return accuracies
