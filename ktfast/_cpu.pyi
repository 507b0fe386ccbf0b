"""Types of the CPU kernels: arrays are anything with DLPack, the caller allocates outputs."""

from typing import Any

def simd_level() -> str: ...
def jigsaw_tiles_workspace_size(*, tile_size: int, n_threads: int) -> int: ...
def jigsaw_tiles(
    *,
    images: Any,
    permutations: Any,
    sample_ids: Any,
    indices: Any | None,
    tiles: Any,
    labels: Any,
    offsets: Any,
    cells: Any,
    occluded: Any,
    donors: Any,
    gray: Any,
    projection: Any,
    donor_gray: Any,
    donor_projection: Any,
    seed: int,
    epoch: int,
    tile_size: int,
    jitter: int,
    chroma_shift: int,
    max_occluders: int,
    gray_threshold: int,
    projection_threshold: int,
    donor_shares_color: bool,
    channels_last: bool,
    statistics: str,
    workspace: Any,
    n_threads: int,
) -> None: ...
def kmeans_prepared_size(*, n_clusters: int, n_features: int) -> int: ...
def kmeans_prepare(*, centers: Any, prepared: Any, n_threads: int) -> None: ...
def kmeans_assign_workspace_size(*, n_features: int, n_threads: int) -> int: ...
def kmeans_assign(
    *,
    x: Any,
    centers: Any,
    prepared: Any,
    workspace: Any,
    labels: Any,
    distances: Any,
    n_threads: int,
) -> None: ...
def kmeans_update_workspace_size(*, n_rows: int, n_clusters: int) -> int: ...
def kmeans_update(
    *,
    x: Any,
    labels: Any,
    sample_weight: Any | None,
    workspace: Any,
    sums: Any,
    counts: Any,
    n_threads: int,
) -> None: ...
def machine_peak(*, kind: str, seconds: float, n_threads: int) -> float: ...
