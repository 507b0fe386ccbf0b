"""Types of the CPU kernels. Arrays are objects with DLPack; the caller allocates the outputs."""

from typing import Any

# Sizes that the kernels and Python share; csrc/bindings/bind_kmeans_cpu.h exports them.
KMEANS_PANEL_WIDTH: int
KMEANS_COLUMN_WIDTH: int
KMEANS_ROW_CONSTANTS: int
KMEANS_NEAR_CENTERS: int
KMEANS_PLACE_NUMBERS: int
KMEANS_FARTHEST: int
KMEANS_TENSOR_TILE_ROWS: int
KMEANS_TENSOR_ROW_CONSTANTS: int
KMEANS_TENSOR_MOST_FEATURES: int

def simd_level() -> str: ...
def x86_features() -> dict[str, bool]: ...
def thread_limit() -> int: ...
def image_resize_is_fast() -> bool: ...
def image_resize(*, image: Any, box: Any, out: Any) -> None: ...
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
def kmeans_assign_costs(*, code: str) -> dict[str, float]: ...
def kmeans_prepared_size(
    *, n_clusters: int, n_features: int, n_coordinates: int, code: str
) -> int: ...
def kmeans_assign_workspace_size(*, n_features: int, n_coordinates: int, n_threads: int) -> int: ...
def kmeans_code_bytes(*, n_features: int, n_coordinates: int, code: str) -> int: ...
def kmeans_has_fast(*, code: str) -> bool: ...
def kmeans_is_few(*, n_clusters: int, n_features: int) -> bool: ...
def kmeans_prepare(
    *,
    centers: Any,
    prepared: Any,
    code: str,
    mean: Any,
    n_coordinates: int,
    basis: Any = ...,
    basis_error: float = ...,
    order: Any = ...,
    places: Any = ...,
    n_threads: int,
) -> None: ...
def kmeans_encode(
    *,
    x: Any,
    code: str,
    mean: Any,
    n_coordinates: int,
    basis: Any = ...,
    basis_error: float = ...,
    workspace: Any,
    codes: Any,
    constants: Any,
    n_threads: int,
) -> None: ...
def kmeans_assign(
    *,
    x: Any,
    centers: Any,
    prepared: Any,
    code: str,
    n_coordinates: int,
    workspace: Any,
    labels: Any,
    distances: Any,
    codes: Any | None,
    constants: Any | None = ...,
    subset: Any | None,
    places: Any | None = ...,
    guessed: bool,
    near: Any | None,
    near_bounds: Any = ...,
    rest_bound: Any = ...,
    epochs: Any = ...,
    spent: Any = ...,
    epoch: int,
    margin: float,
    n_threads: int,
) -> int: ...
def kmeans_distances(*, x: Any, centers: Any, distances: Any) -> None: ...
def kmeans_snapshot(*, centers: Any, snapshot: Any, n_threads: int) -> float: ...
def kmeans_drift(
    *,
    centers: Any,
    previous: Any,
    snapshots: Any,
    snapshot_error: Any,
    known: Any,
    moved: Any,
    drift: Any,
    farthest: Any,
    farthest_moved: Any,
    n_threads: int,
) -> None: ...
def kmeans_reassign(
    *,
    x: Any,
    centers: Any,
    prepared: Any,
    code: str,
    n_coordinates: int,
    workspace: Any,
    labels: Any,
    distances: Any,
    moved: Any,
    drift: Any,
    farthest: Any,
    farthest_moved: Any,
    near: Any,
    near_bounds: Any,
    rest_bound: Any,
    epochs: Any,
    spent: Any,
    budget: int,
    pending: Any,
    n_threads: int,
) -> int: ...
def kmeans_move_workspace_size(*, n_rows: int, n_clusters: int) -> int: ...
def kmeans_move(
    *,
    x: Any,
    before: Any | None,
    after: Any,
    sample_weight: Any | None,
    scale: Any,
    workspace: Any,
    sums: Any,
    low: Any | None,
    counts: Any,
    n_threads: int,
) -> None: ...
def kmeans_ranges(*, x: Any, largest: Any, n_threads: int) -> None: ...
def kmeans_means(
    *,
    sums: Any,
    low: Any | None,
    counts: Any,
    weights: Any | None,
    step: Any,
    previous: Any,
    narrow: bool,
    centers: Any,
    shifts: Any,
    n_threads: int,
) -> None: ...
def kmeans_totals_workspace_size(*, n_rows: int) -> int: ...
def kmeans_totals(
    *,
    distances: Any,
    sample_weight: Any | None,
    before: Any | None,
    after: Any | None,
    workspace: Any,
    totals: Any,
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
