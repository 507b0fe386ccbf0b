"""The manifest of a feature folder: the shards, their sizes and hashes, and how they were made."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ktfast import durable
from ktfast.errors import DataError, shown
from ktfast.readers import read_npy

MANIFEST = "manifest.json"
SCHEMA = 1
REMEDY = "run the features stage again, which makes damaged files again"


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read and verify the manifest of a folder.

    Raises
    ------
    DataError
        The manifest is missing, damaged or of another schema.
    """
    if not folder.exists():
        raise DataError(
            f"{shown(folder)} does not exist; give a file of features, or a folder that "
            "`ktfast features` wrote"
        )
    if not (folder / MANIFEST).is_file():
        raise DataError(
            f"no features in {shown(folder)} ({MANIFEST} is missing); run the features stage, or "
            "give a folder of Parquet files"
        )
    manifest = durable.read_sealed(folder / MANIFEST, REMEDY)
    if manifest.get("schema") != SCHEMA:
        raise DataError(
            f"{folder / MANIFEST} is not a feature manifest of schema {SCHEMA}; remove the folder"
            " and run the features stage again"
        )
    return manifest


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Write a manifest with its schema and hash, completely or not at all."""
    durable.write_sealed(folder / MANIFEST, {"schema": SCHEMA, **content})


def files_of(shard: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The records of a shard's two files: features and sample ids."""
    return shard, shard["sample_ids"]


def load_ids(folder: Path, shards: list[dict[str, Any]]) -> npt.NDArray[np.int64]:
    """Read the sample ids of all shards, int64 [n]."""
    parts = [read_npy(folder / shard["sample_ids"]["file"], REMEDY) for shard in shards]
    return np.concatenate(parts)
