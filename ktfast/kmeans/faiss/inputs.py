"""What `ktfast.kmeans.faiss.Kmeans` accepts: the options of faiss, and points."""

import importlib
import logging
from typing import Any

import numpy as np

from ktfast.errors import InputError
from ktfast.kmeans.array_types import Float64, Int64
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.data.spherical import SphericalRows, lengths
from ktfast.kmeans.data.workspace import float64_on_host
from ktfast.kmeans.faiss.index import threads
from ktfast.kmeans.faiss.points import points_of
from ktfast.kmeans.inputs import weights_of
from ktfast.native.arrays import library_of
from ktfast.native.modules import cuda

_logger = logging.getLogger(__name__)

# Options of faiss that change no result.
_WITHOUT_EFFECT = (
    "update_index",
    "decode_block_size",
    "check_input_data_for_NaNs",
    "use_faster_subsampling",
    "afkmc2_chain_length",
)
# Options of faiss that ktfast lacks, with the value that switches each one off.
_UNSUPPORTED = {
    "frozen_centroids": False,
    "int_centroids": False,
    "early_stop_threshold": 0.0,
    "use_super_kmeans": False,
    "progressive_dim_steps": None,
}


def check_options(options: dict[str, Any]) -> None:
    """Refuse options that ktfast lacks or that faiss does not know."""
    for name, value in options.items():
        if name in _UNSUPPORTED and value != _UNSUPPORTED[name]:
            raise InputError(
                f"ktfast's Kmeans does not support {name}={value!r}; leave {name} out, or use faiss"
            )
        if name not in _UNSUPPORTED and name not in _WITHOUT_EFFECT:
            raise TypeError(f"Kmeans has no option {name!r}; check the spelling")


def select_points(
    kmeans: Any, x: Any, weights: Any, random_state: Any
) -> tuple[Rows, Float64 | None]:
    """Select the points and weights that are clustered."""
    shards = points_of(x, kmeans.d)
    n = sum(len(shard) for shard in shards)
    most = kmeans.k * (kmeans.max_points_per_centroid or n)
    if n < kmeans.k:
        raise InputError(
            f"{n} points are fewer than the {kmeans.k} centroids that are wanted; give more "
            "points or a smaller k"
        )
    if n < kmeans.k * kmeans.min_points_per_centroid:
        _logger.warning(
            "%d points are few for %d centroids; give at least %d points",
            n,
            kmeans.k,
            kmeans.k * kmeans.min_points_per_centroid,
        )
    weight = weights_of(weights, n)
    if n > most:
        drawn = np.sort(random_state.choice(n, most, replace=False))
        shards = _drawn(shards, drawn)
        weight = None if weight is None else weight[drawn]
    if kmeans.gpu:
        shards = [_on_gpu(shard) for shard in shards]
    if not kmeans.spherical:
        return Rows(shards, n_threads=threads.wanted), weight
    # faiss adds up the points, not their directions. So the length of a point is the weight of its
    # direction.
    blocks = Rows(shards).blocks(1 << 14)
    long = np.concatenate([lengths(float64_on_host(block)) for _, block in blocks])
    rows = SphericalRows(shards, n_threads=threads.wanted)
    return rows, long[:, 0] if weight is None else long[:, 0] * weight


def _drawn(shards: list[Any], numbers: Int64) -> list[Any]:
    """The rows of these increasing numbers."""
    ends = np.cumsum([len(shard) for shard in shards])
    parts = np.split(numbers, np.searchsorted(numbers, ends[:-1]))
    starts = ends - [len(shard) for shard in shards]
    return [shard[part - start] for shard, part, start in zip(shards, parts, starts, strict=True)]


def _on_gpu(x: Any) -> Any:
    cuda()  # raises an error that says what is missing
    if library_of(x) != "numpy":
        return x if library_of(x) == "cupy" else x.cuda()
    return importlib.import_module("torch").from_numpy(np.ascontiguousarray(x)).cuda()
