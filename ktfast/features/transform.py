"""What is done to features before they are clustered: nothing, L2, or PCA (whitened) and L2.

The paper does not say; L2-normalised rows are the default here, and PCA to 256 dimensions with
whitening and L2 is what DeepCluster does (Caron et al. 2018).
"""

import os
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ktfast.durable import replacing
from ktfast.errors import DataError
from ktfast.features.covariance import Covariance
from ktfast.features.store import FeatureStore

Floats = npt.NDArray[np.float32]
Choice = Literal["none", "l2", "pca-l2", "pca-whiten-l2"]

FIT_ROWS = 100_000  # PCA is fitted on at most this many rows, drawn evenly over the store
BLOCK_ROWS = 16_384


class FeatureTransform:
    """A fitted map from stored features to the rows that are clustered.

    Parameters
    ----------
    choice : what is done.
    mean, projection : float32 [d] and [d, p] of the PCA, or None.
    """

    def __init__(
        self, choice: Choice, mean: Floats | None = None, projection: Floats | None = None
    ) -> None:
        self.choice: Choice = choice
        self.mean = mean
        self.projection = projection
        self._placed: dict[torch.device, tuple[Tensor, Tensor]] = {}

    @property
    def dim(self) -> int | None:
        """Dimensions that a PCA keeps; None without one."""
        return None if self.projection is None else int(self.projection.shape[1])

    @classmethod
    def fit(cls, store: FeatureStore, choice: Choice, *, dim: int, seed: int) -> "FeatureTransform":
        """Fit on rows drawn evenly from `store`; see `fit_blocks`."""
        rows = np.linspace(0, store.n - 1, min(store.n, FIT_ROWS)).astype(np.int64)
        blocks = (torch.from_numpy(store.read(block)) for block in _blocks(rows))
        return cls.fit_blocks(blocks, choice, dim=dim, seed=seed)

    @classmethod
    def fit_rows(
        cls, rows: npt.NDArray[Any], choice: Choice, *, dim: int, seed: int
    ) -> "FeatureTransform":
        """Fit on features [n, d]; see `fit_blocks`."""
        blocks = (torch.from_numpy(block) for block in _blocks(rows))
        return cls.fit_blocks(blocks, choice, dim=dim, seed=seed)

    @classmethod
    def fit_blocks(
        cls, blocks: Iterable[Tensor], choice: Choice, *, dim: int, seed: int
    ) -> "FeatureTransform":
        """Fit on a sample that comes in blocks and need not fit in memory.

        Parameters
        ----------
        blocks : features [b, d] each, on one device; without PCA they are not looked at.
        choice : what is to be done.
        dim : dimensions that PCA keeps.
        seed : of PCA's randomised solver.

        Raises
        ------
        ConfigError : `dim` is more than the sample allows, or the features are too long for a PCA.
        """
        if not choice.startswith("pca"):
            return cls(choice)
        covariance = Covariance()
        for block in blocks:
            covariance.add(block)
        mean, projection, variances = covariance.axes(dim, seed)
        if choice == "pca-whiten-l2":
            projection /= np.sqrt(np.maximum(variances, 1e-12))
        return cls(choice, mean, projection)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "FeatureTransform":
        """Read what `save` wrote.

        Raises
        ------
        DataError : the file is damaged.
        """
        try:
            with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
                choice = str(file["choice"])
                return cls(choice, file.get("mean"), file.get("projection"))  # type: ignore[arg-type]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} is damaged ({error}); remove it to fit it again") from error

    def apply(self, features: npt.NDArray[Any]) -> Floats:
        """Transform rows [b, d] to float32 [b, p]; rows of zeros stay zero."""
        rows = torch.from_numpy(features.astype(np.float32))
        result: Floats = self.apply_tensor(rows).numpy()
        return result

    def apply_tensor(self, rows: Tensor) -> Tensor:
        """The same for a tensor, on its device."""
        rows = rows.float()
        if self.mean is not None and self.projection is not None:
            if rows.device not in self._placed:
                mean, projection = map(torch.from_numpy, (self.mean, self.projection))
                self._placed[rows.device] = mean.to(rows.device), projection.to(rows.device)
            mean, projection = self._placed[rows.device]
            rows = (rows - mean) @ projection
        if self.choice == "none":
            return rows
        norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        return rows / torch.where(norms == 0, 1, norms)

    def apply_store(self, store: FeatureStore, folder: Path, budget: int) -> Floats:
        """Transform a whole store, in memory within `budget` bytes, else in a file of `folder`.

        The file has no name, so that nothing is left of it however the process ends.

        Raises
        ------
        OSError : the disk has no room for the file.
        """
        dim = self.dim or store.dim
        size = store.n * dim * 4
        if size <= budget:
            rows: Floats = np.empty((store.n, dim), np.float32)
        else:
            with tempfile.TemporaryFile(dir=folder) as file:
                # A map of a file with holes would kill the process when the disk is full.
                os.posix_fallocate(file.fileno(), 0, size)
                rows = np.memmap(file, np.float32, "r+", shape=(store.n, dim))
        for block in _blocks(np.arange(store.n)):
            rows[block[0] : block[-1] + 1] = self.apply(store.read(block))
        return rows

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the transform as .npz, so that other images can be labelled later."""
        arrays = {"choice": np.array(self.choice)}
        if self.mean is not None and self.projection is not None:
            arrays |= {"mean": self.mean, "projection": self.projection}
        with replacing(path) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]


def _blocks(rows: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    for start in range(0, len(rows), BLOCK_ROWS):
        yield rows[start : start + BLOCK_ROWS]
