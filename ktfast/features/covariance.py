"""The principal axes of rows that come in blocks and are not kept: features of many images.

The covariance is summed up block by block, which takes d^2 numbers however many rows there are,
and its leading eigenvectors are found by a randomised subspace iteration (Halko, Martinsson and
Tropp 2011).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from sklearn.utils.extmath import randomized_svd
from torch import Tensor

from ktfast.errors import ConfigError

MOST_FEATURES = 16_384
"""2 GiB of sums; the product of a block with itself takes half as much for a moment."""
ITERATIONS = 4
"""Of the covariance, each as good as two of the rows, of which scikit-learn's PCA makes seven."""

Floats = npt.NDArray[np.float32]


class Axes(NamedTuple):
    """Leading principal axes.

    Attributes
    ----------
    mean : float32 [d], of the rows.
    directions : float32 [d, p], orthonormal columns, by falling variance.
    variances : float32 [p], of the rows along them.
    """

    mean: Floats
    directions: Floats
    variances: Floats


class Covariance:
    """Sums of rows and of their products, in float64 on the rows' device.

    Products are taken in float32 of what rows differ by from the first block's mean, so that a mean
    far from zero costs no digits.

    Attributes
    ----------
    n, d : rows so far, and their length; 0 before any.
    """

    def __init__(self) -> None:
        self.n = self.d = 0
        self._origin = self._sum = self._products = torch.empty(0)

    def add(self, rows: Tensor) -> None:
        """Take in rows, float [b, d], b >= 1; the blocks lie on one device.

        Raises
        ------
        ConfigError : rows are longer than `MOST_FEATURES`.
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
        """The `dim` axes of most variance; nothing can be added afterwards.

        Parameters
        ----------
        dim : number of axes.
        seed : of the randomised iteration.

        Raises
        ------
        ConfigError : the rows are fewer or shorter than `dim`.
        """
        if dim > min(self.n, self.d):
            raise ConfigError(
                f"cluster.pca {dim} is more than the {min(self.n, self.d)} that features of shape "
                f"[{self.n}, {self.d}] allow"
            )
        shift = self._sum / self.n
        self._products.addr_(shift, shift, alpha=-self.n).div_(max(1, self.n - 1))
        covariance = self._products.cpu().numpy()
        directions, variances, _ = randomized_svd(
            covariance, dim, n_iter=ITERATIONS, random_state=seed
        )
        mean = (self._origin.double() + shift).cpu().numpy()
        return Axes(*(part.astype(np.float32) for part in (mean, directions, variances)))
