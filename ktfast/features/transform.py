"""Transform features before clustering: none, L2 normalisation, or PCA (whitened) and L2.

The paper names no transform. The default here is L2 normalisation. DeepCluster (Caron et al. 2018)
uses PCA to 256 dimensions with whitening, then L2 normalisation.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ktfast.durable import replacing
from ktfast.errors import DataError, reading, shown
from ktfast.features.covariance import Covariance
from ktfast.features.store import FeatureStore
from ktfast.ops.unit_rows import common_exponent, scaled, unit_rows
from ktfast.readers import read_npz

Floats = npt.NDArray[np.float32]
Choice = Literal["none", "l2", "pca-l2", "pca-whiten-l2"]

FIT_ROWS = 100_000
"""PCA is fitted on at most this number of rows, drawn evenly from the store."""
BLOCK_ROWS = 16_384
"""Rows that are read and transformed at once."""

# Features of which the largest magnitude lies between these powers of two are used as they are. All
# others are multiplied by a power of two, because their squares would leave the range of float32,
# or their variances would fall below the floor of the whitening.
_ORDINARY = {"none": (-100, 60), "pca": (-10, 30)}


class FeatureTransform:
    """A fitted map from stored features to the rows that are clustered.

    Parameters
    ----------
    choice : {"none", "l2", "pca-l2", "pca-whiten-l2"}
        Name of the transform.
    mean : array, float32 [d], optional
        Mean that PCA subtracts.
    projection : array, float32 [d, p], optional
        Projection of PCA.
    exponent : int, default 0
        The features are multiplied by ``2 ** exponent`` first. The exponent is 0 unless the
        features are very large or very small.
    """

    def __init__(
        self,
        choice: Choice,
        mean: Floats | None = None,
        projection: Floats | None = None,
        exponent: int = 0,
    ) -> None:
        self.choice: Choice = choice
        self.mean = mean
        self.projection = projection
        self.exponent = exponent
        self._placed: dict[torch.device, tuple[Tensor, Tensor]] = {}

    @property
    def dim(self) -> int | None:
        """Dimensions that PCA keeps; None without PCA."""
        return None if self.projection is None else int(self.projection.shape[1])

    @classmethod
    def fit(cls, store: FeatureStore, choice: Choice, *, dim: int, seed: int) -> "FeatureTransform":
        """Fit on at most `FIT_ROWS` rows, drawn evenly from a store.

        Parameters
        ----------
        store : FeatureStore
            Features.
        choice : {"none", "l2", "pca-l2", "pca-whiten-l2"}
            Name of the transform.
        dim : int
            Dimensions that PCA keeps.
        seed : int
            Seed of PCA's randomised solver.

        Returns
        -------
        transform : FeatureTransform
            The fitted transform.

        Raises
        ------
        ConfigError
            The store has fewer than `dim` rows or dimensions, or its rows are too long for PCA.
        """
        rows = np.linspace(0, store.n - 1, min(store.n, FIT_ROWS)).astype(np.int64)
        blocks = (torch.from_numpy(store.read(block)) for block in _blocks(rows))
        if choice == "none" and store.dtype == np.float64:  # the rows are converted to float32
            peak = max(map(_peak, blocks))
            return cls(choice, exponent=common_exponent(peak, *_ORDINARY["none"]))
        return cls.fit_blocks(blocks, choice, dim=dim, seed=seed)

    @classmethod
    def fit_blocks(
        cls, blocks: Iterable[Tensor], choice: Choice, *, dim: int, seed: int
    ) -> "FeatureTransform":
        """Fit on a sample that comes in blocks, and that may be larger than the memory.

        Parameters
        ----------
        blocks : iterable of Tensor [b, d]
            Features, all on one device. Without PCA the blocks are not read.
        choice : {"none", "l2", "pca-l2", "pca-whiten-l2"}
            Name of the transform.
        dim : int
            Dimensions that PCA keeps.
        seed : int
            Seed of PCA's randomised solver.

        Returns
        -------
        transform : FeatureTransform
            The fitted transform.

        Raises
        ------
        ConfigError
            The sample has fewer than `dim` rows or dimensions, or its rows are too long for PCA.
        """
        if not choice.startswith("pca"):
            return cls(choice)
        covariance = Covariance()
        exponent: int | None = None
        for block in blocks:
            if exponent is None:
                exponent = common_exponent(_peak(block), *_ORDINARY["pca"])
            covariance.add(scaled(block, exponent) if exponent else block)
        mean, projection, variances = covariance.axes(dim, seed)
        if choice == "pca-whiten-l2":
            projection /= np.sqrt(np.maximum(variances, 1e-12))
        return cls(choice, mean, projection, exponent or 0)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "FeatureTransform":
        """Read a transform that `save` wrote.

        Parameters
        ----------
        path : path-like
            The file.

        Returns
        -------
        transform : FeatureTransform
            The fitted transform.

        Raises
        ------
        DataError
            The file is damaged.
        """
        remedy = "run the stage that wrote the file again"
        arrays = read_npz(path, remedy=remedy)
        sha256 = arrays.pop("sha256", None)  # earlier versions stored no hash
        if sha256 is not None and str(sha256) != _digest(arrays):
            raise DataError(f"{shown(path)} is damaged; {remedy}")
        with reading(path, "a transform of features", remedy):
            choice, exponent = str(arrays["choice"]), int(arrays.get("exponent", 0))
            if choice not in get_args(Choice):
                raise ValueError(f"it names the transform {choice!r}")
            if not choice.startswith("pca"):
                return cls(choice, exponent=exponent)  # type: ignore[arg-type]
            mean, projection = (arrays[name].astype(np.float32) for name in ("mean", "projection"))
            if mean.ndim != 1 or projection.ndim != 2 or len(mean) != len(projection):
                raise ValueError(f"mean {mean.shape} does not fit projection {projection.shape}")
            return cls(choice, mean, projection, exponent)  # type: ignore[arg-type]

    def apply(self, features: npt.NDArray[Any]) -> Floats:
        """Transform rows [b, d] to float32 [b, p]; rows of zeros stay zero."""
        rows = torch.from_numpy(np.array(features, dtype=_read_as(features.dtype)))
        result: Floats = self.apply_tensor(rows).numpy()
        return result

    def apply_tensor(self, rows: Tensor) -> Tensor:
        """Transform rows [b, d] to float32 [b, p], on the device of `rows`."""
        if self.choice != "l2":  # `unit_rows` scales every row by itself
            given = rows
            rows = scaled(rows, self.exponent) if self.exponent else rows.float()
            if given.dtype == torch.float64:
                _check_kept(given, rows)
        if self.mean is not None and self.projection is not None:
            if rows.device not in self._placed:
                mean, projection = map(torch.from_numpy, (self.mean, self.projection))
                self._placed[rows.device] = mean.to(rows.device), projection.to(rows.device)
            mean, projection = self._placed[rows.device]
            rows = (rows - mean) @ projection
        if self.choice == "none":
            return rows
        unit: Tensor = unit_rows(rows)
        return unit

    def apply_store(self, store: FeatureStore, folder: Path, budget: int) -> Floats:
        """Transform a whole store.

        Parameters
        ----------
        store : FeatureStore
            Features.
        folder : Path
            Folder of a temporary file, which holds the result if it is larger than `budget`. The
            file has no name, so that the system removes it when the process ends.
        budget : int
            Largest size of a result in memory, bytes.

        Returns
        -------
        rows : array, float32 [n, p]
            Transformed rows, in memory or memory-mapped.

        Raises
        ------
        OSError
            The disk has no room for the file.
        """
        dim = self.dim or store.dim
        size = store.n * dim * 4
        if size <= budget:
            rows: Floats = np.empty((store.n, dim), np.float32)
        else:
            with tempfile.TemporaryFile(dir=folder) as file:
                # Reserve the space now: writing to the map on a full disk would kill the process.
                _reserve(file.fileno(), size)
                rows = np.memmap(file, np.float32, "r+", shape=(store.n, dim))
        for block in _blocks(np.arange(store.n)):
            rows[block[0] : block[-1] + 1] = self.apply(store.read(block))
        return rows

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the transform as .npz, so that further images can be labelled later."""
        arrays = {"choice": np.array(self.choice)}
        if self.mean is not None and self.projection is not None:
            arrays |= {"mean": self.mean, "projection": self.projection}
        if self.exponent:
            arrays["exponent"] = np.array(self.exponent)
        digest = np.array(_digest(arrays))
        with replacing(path) as file:
            np.savez(file, **arrays, sha256=digest)  # type: ignore[arg-type]


def _reserve(descriptor: int, size: int) -> None:
    """Reserve space on disk for an empty file; raises an OSError if there is too little."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    zeros = bytes(1 << 20)  # macOS: only bytes that are written take space
    while size > 0:
        size -= os.write(descriptor, zeros[:size])


def _digest(arrays: dict[str, npt.NDArray[Any]]) -> str:
    """SHA-256 over the names, types, shapes and bytes of arrays."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _blocks(rows: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Cut rows into blocks of `BLOCK_ROWS`."""
    for start in range(0, len(rows), BLOCK_ROWS):
        yield rows[start : start + BLOCK_ROWS]


def _read_as(dtype: np.dtype[Any]) -> type:
    """The dtype in which rows are read: float64 keeps values beyond the range of float32."""
    return np.float64 if dtype == np.float64 else np.float32


def _peak(block: Tensor) -> float:
    """The largest magnitude of a block."""
    return float(block.abs().max()) if block.numel() else 0.0


def _check_kept(given: Tensor, rows: Tensor) -> None:
    """Refuse finite float64 rows that become infinite, or zero, in float32."""
    peak, kept = given.abs().amax(1), rows.abs().amax(1)
    lost = peak.isfinite() & ((peak > 0) & (kept == 0) | ~kept.isfinite())
    if bool(lost.any()):
        raise DataError(
            f"the features hold rows of magnitudes from {float(peak[peak > 0].min()):.3g} to "
            f"{float(peak.max()):.3g}, which float32 cannot hold together; rescale these rows, or "
            "set cluster.normalize to l2"
        )
