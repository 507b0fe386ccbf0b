"""Principal axes of features that come in blocks, without keeping the blocks in memory.

The covariance is summed block by block, and takes d^2 numbers for any number of rows. A randomised
subspace iteration finds the leading eigenvectors (Halko, Martinsson and Tropp 2011).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ktfast.errors import ConfigError

MOST_FEATURES = 16_384
"""Largest number of features. At this number the sums take 2 GiB, and adding a block 1 GiB more."""
ITERATIONS = 4
"""Subspace iterations with the covariance. One of them has the effect of two iterations with
the rows; scikit-learn's PCA makes seven iterations with the rows."""

Floats = npt.NDArray[np.float32]


class Axes(NamedTuple):
    """Leading principal axes.

    Attributes
    ----------
    mean : array, float32 [d]
        Mean of the rows.
    directions : array, float32 [d, p]
        Orthonormal columns in descending order of variance.
    variances : array, float32 [p]
        Variance of the rows along each direction.
    """

    mean: Floats
    directions: Floats
    variances: Floats


class Covariance:
    """Sums of rows and of their products, in float64 on the rows' device.

    The mean of the first block is subtracted from all rows before the products are computed in
    float32. A mean far from zero therefore costs no digits.

    Attributes
    ----------
    n : int
        Number of rows so far.
    d : int
        Length of a row; 0 before the first block.
    """

    def __init__(self) -> None:
        self.n = self.d = 0
        self._origin = self._sum = self._products = torch.empty(0)

    def add(self, rows: Tensor) -> None:
        """Add a block of rows.

        Parameters
        ----------
        rows : Tensor, float [b, d]
            At least one row, on the device of the first block.

        Raises
        ------
        ConfigError
            The rows have more than `MOST_FEATURES` features.
        """
        rows = rows.float()
        if self.n == 0:
            self.d = rows.shape[1]
            if self.d > MOST_FEATURES:
                raise ConfigError(
                    f"features of {self.d:,} numbers are too long for a PCA, which takes at most"
                    f" {MOST_FEATURES:,}: choose a smaller features.pool, or cluster.normalize l2"
                )
            self._origin = rows.mean(0)
            self._sum = torch.zeros(self.d, dtype=torch.float64, device=rows.device)
            self._products = self._sum.new_zeros(self.d, self.d)
        rows = rows - self._origin
        self._sum += rows.sum(0, dtype=torch.float64)
        self._products += rows.T @ rows
        self.n += len(rows)

    def axes(self, dim: int, seed: int) -> Axes:
        """Axes of largest variance. No block can be added afterwards.

        Parameters
        ----------
        dim : int
            Number of axes.
        seed : int
            Seed of the randomised iteration.

        Returns
        -------
        axes : Axes
            Mean, directions and variances.

        Raises
        ------
        ConfigError
            The number of rows or the length of a row is less than `dim`.
        """
        from sklearn.utils.extmath import randomized_svd  # slow to import

        if dim > min(self.n, self.d):
            raise ConfigError(
                f"cluster.pca {dim} is more than the {min(self.n, self.d)} axes that features of"
                f" shape [{self.n}, {self.d}] have; choose a smaller cluster.pca"
            )
        shift = self._sum / self.n
        self._products.addr_(shift, shift, alpha=-self.n).div_(max(1, self.n - 1))
        covariance = self._products.cpu().numpy()
        directions, variances, _ = randomized_svd(
            covariance, dim, n_iter=ITERATIONS, random_state=seed
        )
        mean = (self._origin.double() + shift).cpu().numpy()
        return Axes(*(part.astype(np.float32) for part in (mean, directions, variances)))
