"""How equal the sizes of clusters are."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ktfast.errors import InputError


class SizeBalance(NamedTuple):
    """Measures of the sizes of clusters.

    Attributes
    ----------
    entropy : float
        Entropy of a row's cluster, divided by the logarithm of the number of clusters. 1 means
        that all clusters have the same size, and 0 that one cluster has all rows.
    empty : int
        Number of clusters without rows.
    least, low, median, high, most : float
        The 0, 5, 50, 95 and 100 % quantiles of the sizes.
    """

    entropy: float
    empty: int
    least: float
    low: float
    median: float
    high: float
    most: float


def size_balance(counts: npt.ArrayLike) -> SizeBalance:
    """Measure how equal the sizes of clusters are.

    Parameters
    ----------
    counts : array [k]
        Number or total weight of the rows of each cluster, such as `KMeans.counts_`.

    Returns
    -------
    balance : SizeBalance
        The normalised entropy and quantiles of the sizes.

    Raises
    ------
    ValueError
        `counts` is not one-dimensional, a count is negative or not finite, or all are zero.
    """
    sizes = np.asarray(counts, dtype=np.float64)
    if sizes.ndim != 1 or not np.isfinite(sizes).all() or (sizes < 0).any() or not sizes.any():
        raise InputError(
            f"counts must be one-dimensional with numbers of at least 0 and a positive sum, got "
            f"shape {sizes.shape}; give for example counts_ of a fitted KMeans"
        )
    shares = sizes[sizes > 0] / sizes.sum()
    entropy = 1.0
    if len(sizes) > 1:
        entropy = float(-(shares * np.log(shares)).sum() / np.log(len(sizes)))
    quantiles = np.quantile(sizes, [0, 0.05, 0.5, 0.95, 1]).tolist()
    return SizeBalance(max(0.0, entropy), int((sizes == 0).sum()), *quantiles)
