"""Types of the CUDA kernels.

`stream` is the address of the CUDA stream on which a call queues its kernels. The functions of
`_cpu` have `n_threads` instead.
"""

from typing import Any

architectures: str

def device_count() -> int: ...
def compute_capability(device: int) -> int: ...
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
    stream: int,
) -> None: ...
def kmeans_prepared_size(*, n_clusters: int, n_features: int) -> int: ...
def kmeans_prepare(*, centers: Any, prepared: Any, stream: int) -> None: ...
def kmeans_assign(
    *, x: Any, centers: Any, prepared: Any, labels: Any, distances: Any, stream: int
) -> None: ...
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
    stream: int,
) -> None: ...
def kmeans_ranges(*, x: Any, largest: Any, stream: int) -> None: ...
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
    stream: int,
) -> None: ...
def kmeans_costs(
    *,
    sums: Any,
    low: Any | None,
    counts: Any,
    step: Any,
    mean: Any,
    centers: Any,
    costs: Any,
    errors: Any,
    stream: int,
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
    stream: int,
) -> None: ...
def kmeans_tensor_prepared_size(*, n_clusters: int, n_features: int, code: str) -> int: ...
def kmeans_tensor_tile_bytes(*, n_features: int, code: str) -> int: ...
def kmeans_tensor_workspace_size(*, n_rows: int) -> int: ...
def kmeans_tensor_prepare(
    *, centers: Any, mean: Any, prepared: Any, code: str, stream: int
) -> None: ...
def kmeans_tensor_encode(
    *, x: Any, mean: Any, codes: Any, constants: Any, code: str, stream: int
) -> None: ...
def kmeans_tensor_assign(
    *,
    x: Any,
    centers: Any,
    prepared: Any,
    code: str,
    codes: Any,
    constants: Any,
    labels: Any,
    distances: Any,
    guessed: bool,
    certify: bool,
    bounds: bool,
    moves: Any | None,
    others: Any | None,
    path: str,
    workspace: Any,
    n_passed: Any | None,
    n_multiplied: Any | None,
    stream: int,
) -> None: ...
def kmeans_tensor_moves(*, centers: Any, previous: Any, moves: Any, stream: int) -> None: ...
def kmeans_tensor_distances(
    *, x: Any, centers: Any, labels: Any | None, distances: Any, stream: int
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
    stream: int,
) -> None: ...
