"""The files of one shard of features."""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ktfast import durable
from ktfast.errors import InputError

Array = npt.NDArray[Any]


def converted(block: Array, dtype: npt.DTypeLike, name: Callable[[int], str]) -> Array:
    """Convert a block of features to the type in which they are stored.

    Parameters
    ----------
    block : array, float [b, dim]
        Features.
    dtype : dtype
        Type of the stored features.
    name : callable
        Names the image of a row of the block in messages.

    Returns
    -------
    stored : array [b, dim]
        The features; the block itself if it has the type.

    Raises
    ------
    InputError
        A value is not finite. In float16, values above 65504 are infinite.
    """
    with np.errstate(over="ignore"):
        stored = block.astype(dtype, copy=False)
    finite = np.isfinite(stored).all(axis=1)
    if not finite.all():
        bad = int(np.argmin(finite))
        largest = np.abs(block[bad].astype(np.float64)).max()
        remedy = (
            "store float32 (features.dtype)" if np.isfinite(block[bad]).all() else "check the model"
        )
        raise InputError(
            f"features of {name(bad)} are not finite in {stored.dtype}"
            f" (largest magnitude {largest:g}); {remedy}"
        )
    return stored


def write_shard(
    folder: Path, number: int, features: Array, ids: npt.NDArray[np.int64]
) -> dict[str, Any]:
    """Write a shard of a feature folder.

    Parameters
    ----------
    folder : Path
        The feature folder.
    number : int
        Number of the shard, from 0.
    features : array [m, dim]
        C-contiguous features in the stored type.
    ids : array, int64 [m]
        Sample id of each row.

    Returns
    -------
    record : dict
        Entry of the shard in the manifest.
    """
    stored = _write_npy(folder / f"features-{number:05d}.npy", features)
    stored_ids = _write_npy(folder / f"sample_ids-{number:05d}.npy", ids)
    return {**stored, "rows": len(ids), "sample_ids": stored_ids}


def _write_npy(path: Path, array: Array) -> dict[str, Any]:
    """Write a C-contiguous array; return the record of its file: name, size and hash."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(array))
    header, content = head.getvalue(), array.data.cast("B")
    digest = hashlib.sha256(header)
    digest.update(content)
    with durable.replacing(path) as file:
        file.write(header)
        file.write(content)
    durable.remember(path, digest.hexdigest())
    size = len(header) + content.nbytes
    return {"file": path.name, "bytes": size, "sha256": digest.hexdigest()}
