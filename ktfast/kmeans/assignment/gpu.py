"""The assignment passes of one fit on a GPU.

The codes of the rows (the rows in low precision, for the screen) are computed once and kept if they
fit the memory budget.
"""

from typing import Any

from ktfast.kmeans.array_types import Float64
from ktfast.kmeans.assignment.bounds import Inertia, InertiaOfSums
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.data.workspace import to_host
from ktfast.kmeans.sums import Sums
from ktfast.native.arrays import on_device
from ktfast.ops.kmeans_assign import PreparedCenters, kmeans_assign
from ktfast.ops.kmeans_tensor import TILE_ROWS, TensorCodes, TensorScreen

# Passes of a typical fit, for the choice of the code.
_PASSES = 20
# From this many features on, passes find bounds of the distances to the other centres. By counts of
# machine instructions, the bounds cost a pass 10 % at 256 features, 3 % at 1,024 and 1 % at 4,096
# (docs/how-to/gpu.md).
_LEAST_FEATURES = 1024


class GpuAssigner:
    """Compares every row with every centre, block by block if rows are streamed; see `Assigner`.

    Each block is assigned and then added to the sums while it is on the GPU, so an iteration reads
    streamed rows once. Labels alternate between two arrays, so the labels of the last call stay
    unchanged during the next call.

    Parameters
    ----------
    rows : Rows
        The data [n, d], on a GPU or streamed to a GPU.
    mean : array, float64 [d]
        Mean of the rows.
    sums : Sums
        Sums of the clusters, to which each block of rows is added after its assignment.
    precision : str
        See `ktfast.ops.kmeans_assign`. With "fast", only the last call gives exact labels.
    memory_budget : int or None
        Bytes of GPU memory. The codes of all rows are kept if they fit.
    bounds : bool, default False
        Whether a pass computes exact distances only for rows with several candidates. The other
        distances are upper bounds, which follow the moves of the centres from pass to pass. So do
        lower bounds of the distances to the other centres, if there are many features: a pass
        skips tiles of 128 rows that keep their labels by these bounds.
    """

    def __init__(
        self,
        rows: Rows,
        mean: Float64,
        sums: Sums,
        precision: str,
        memory_budget: int | None,
        *,
        bounds: bool = False,
    ) -> None:
        self.is_exact = precision != "fast"
        self.has_bounds = False
        self._wants_bounds = bounds and self.is_exact and sums.gives_costs
        self._inertia: InertiaOfSums | None = None
        self._former: Any = None  # the centres of the last call
        self._others: Any = None  # lower bounds of the distances to the other centres
        self._n_multiplied: Any = None  # [1] row tiles that the last call has multiplied
        self._n_tiles = 0
        self._rows = rows
        self._full_mean = mean
        self._mean = mean.astype("float32")
        self._sums = sums
        self._precision = precision
        self._memory_budget = memory_budget
        self._distances = rows.workspace.empty((rows.n,), "float64")
        self._labels: Any = None
        self._other_labels: Any = None
        self._code: str | None = None
        self._screen: TensorScreen | None = None
        self._call_rows = 0  # most rows of one call of the screen
        # Codes of each block by the number of its first row. None: each pass computes them again.
        self._codes: dict[int, TensorCodes] | None = None

    def assign(self, centers: Any, *, last: bool = False) -> tuple[Any, Any]:
        """See `Assigner`; the last call does not update the sums."""
        labels, before = self._other_labels, self._labels
        if labels is None:
            labels = self._rows.workspace.empty((self._rows.n,), "int32")
        given = PreparedCenters(centers)
        self._n_tiles = 0
        prepared: Any = None
        moves: Any = None
        for place, part in self._rows.parts():
            if len(part) == 0:
                continue
            if self._code is None:
                self._choose_screen(given, part)
            if self._screen is not None and prepared is None:
                prepared = self._screen.prepare(given.centers)
                self.has_bounds = self._inertia is not None and not last
                if self.has_bounds and self._former is not None:
                    moves = self._screen.moves(given.centers, self._former)
                if self._n_multiplied is not None:
                    with on_device(part):
                        self._n_multiplied[:] = 0
            with on_device(part):
                guessed = before is not None
                if guessed:
                    labels[place] = before[place]
                if self._screen is None:
                    out = labels[place], self._distances[place]
                    kmeans_assign(part, given, precision="float32", out=out)
                else:
                    options = {"guessed": guessed, "moves": moves, "last": last}
                    self._assign(self._screen, place, part, given, prepared, labels, **options)
                if not last:
                    self._sums.follow(place, part, labels)
        self._labels, self._other_labels = labels, before
        self._former = given.centers if self.has_bounds else None
        return labels, self._distances

    @property
    def skipped(self) -> float:
        """See `Assigner`: the share of the row tiles that the last call has skipped."""
        if self._n_multiplied is None or not self.has_bounds:
            return 0.0
        return 1 - int(to_host(self._n_multiplied)[0]) / max(1, self._n_tiles)

    def inertia(self, centers: Any) -> Inertia:
        """See `Assigner`."""
        assert self._inertia is not None
        return self._inertia.of(centers)

    def exact_distances(self, labels: Any, centers: Any) -> Any:
        """See `Assigner`."""
        assert self._screen is not None
        for place, part in self._rows.parts():
            self._screen.exact_distances(part, centers, labels[place], self._distances[place])
        return self._distances

    def _assign(
        self,
        screen: TensorScreen,
        place: slice,
        part: Any,
        centers: PreparedCenters,
        prepared: Any,
        labels: Any,
        *,
        guessed: bool,
        moves: Any,
        last: bool,
    ) -> None:
        """Assign a block of rows."""
        if self.has_bounds and not guessed and self._inertia is not None:
            self._inertia.add(screen, place, part)
        self._n_tiles += -(-len(part) // TILE_ROWS)
        screen.assign(
            part,
            centers.centers,
            prepared,
            labels[place],
            self._distances[place],
            codes=self._codes_of(screen, place, part),
            guessed=guessed,
            certify=self.is_exact or last,
            bounds=self.has_bounds,
            moves=moves,
            others=self._others[place] if self.has_bounds and self._others is not None else None,
            n_multiplied=self._n_multiplied,
            call_rows=self._call_rows,
        )

    def _choose_screen(self, centers: PreparedCenters, part: Any) -> None:
        """Choose the code by the first rows, and decide whether the codes of all rows are kept."""
        self._code = centers.tensor_code(part, self._precision, n_rows=self._rows.n, passes=_PASSES)
        if self._code == "float32":
            return
        self._screen = TensorScreen(self._mean, self._code, like=part)
        tile = self._screen.empty_codes(TILE_ROWS)
        row_bytes = (tile.codes.nbytes + tile.constants.nbytes) // TILE_ROWS
        n = self._rows.n + TILE_ROWS * len(self._rows.shards)  # each shard begins a tile
        plan = self._rows.memory_plan(self._memory_budget, centers.n_clusters)
        self._call_rows = plan.block
        if n * row_bytes <= plan.spare:
            self._codes = {}
        if self._wants_bounds:
            self._inertia = InertiaOfSums(self._rows, self._full_mean, self._sums)
            if self._rows.d >= _LEAST_FEATURES:
                self._others = self._rows.workspace.empty((self._rows.n,), "float64")
                self._n_multiplied = self._rows.workspace.empty((1,), "int64")

    def _codes_of(self, screen: TensorScreen, place: slice, part: Any) -> TensorCodes | None:
        """Return the kept codes of a block; the first pass computes them."""
        if self._codes is None:
            return None
        if place.start not in self._codes:
            self._codes[place.start] = screen.empty_codes(len(part))
            screen.encode(part, self._codes[place.start])
        return self._codes[place.start]
