"""Assignments of a fit on a GPU: codes made once, guesses from before, sums that follow at once."""

from typing import Any

from ktfast.kmeans.rows import Float64, Rows
from ktfast.kmeans.sums import Sums
from ktfast.native.arrays import on_device
from ktfast.ops.kmeans_assign import PreparedCenters, kmeans_assign
from ktfast.ops.kmeans_tensor import TILE_ROWS, TensorCodes, TensorScreen


class GpuAssigner:
    """Every row against every centre, block by block where rows are streamed.

    Each block is assigned and then added to the sums while it is on the GPU, so that an iteration
    reads streamed rows once. Labels alternate between two arrays: those of the last call stay as
    they are during the next.

    Parameters
    ----------
    rows : the data [n, d], on a GPU or streamed to it.
    mean : float64 [d], of the rows.
    sums : told of the labels of each block.
    precision : see `ktfast.ops.kmeans_assign`. "fast" labels are rounded but for the last call.
    memory_budget : bytes of the GPU's memory; codes of all rows are kept where they fit.

    Attributes
    ----------
    is_exact : whether labels and distances are exact before the last call, too.
    """

    skipped = 0.0

    def __init__(
        self, rows: Rows, mean: Float64, sums: Sums, precision: str, memory_budget: int | None
    ) -> None:
        self.is_exact = precision != "fast"
        self._rows = rows
        self._mean = mean.astype("float32")
        self._sums = sums
        self._precision = precision
        self._memory_budget = memory_budget
        self._distances = rows.empty((rows.n,), "float64")
        self._labels: Any = None
        self._others: Any = None
        self._code: str | None = None
        self._screen: TensorScreen | None = None
        self._call_rows = 0  # with a screen
        # Codes of the blocks by their first row, or None where they are made on the way.
        self._codes: dict[int, TensorCodes] | None = None

    def assign(self, centers: Any, *, last: bool = False) -> tuple[Any, Any]:
        """See `Assigner`; `last` says that the sums need not follow."""
        labels, before = self._others, self._labels
        if labels is None:
            labels = self._rows.empty((self._rows.n,), "int32")
        given = PreparedCenters(centers)
        prepared: Any = None
        for place, part in self._rows.parts():
            if len(part) == 0:
                continue
            if self._code is None:
                self._choose(given, part)
            if self._screen is not None and prepared is None:
                prepared = self._screen.prepare(given.centers)
            with on_device(part):
                if before is not None:
                    labels[place] = before[place]
                self._assign(place, part, given, prepared, labels, before is not None, last)
                if not last:
                    self._sums.follow(place, part, labels)
        self._labels, self._others = labels, before
        return labels, self._distances

    def _assign(
        self,
        place: slice,
        part: Any,
        centers: PreparedCenters,
        prepared: Any,
        labels: Any,
        guessed: bool,
        last: bool,
    ) -> None:
        """Assign a block of rows."""
        out = labels[place], self._distances[place]
        if self._screen is None:
            kmeans_assign(part, centers, precision="float32", out=out)
            return
        self._screen.assign(
            part,
            centers.centers,
            prepared,
            *out,
            codes=self._codes_of(self._screen, place, part),
            guessed=guessed,
            certify=self.is_exact or last,
            call_rows=self._call_rows,
        )

    def _choose(self, centers: PreparedCenters, part: Any) -> None:
        """What to multiply, by the first rows; and whether all codes find room."""
        self._code = centers.tensor_code(part, self._precision, n_rows=self._rows.n)
        if self._code == "float32":
            return
        self._screen = TensorScreen(self._mean, self._code, like=part)
        room = self._screen.empty_codes(TILE_ROWS)
        row_bytes = (room.codes.nbytes + room.constants.nbytes) // TILE_ROWS
        n = self._rows.n + TILE_ROWS * len(self._rows.shards)  # each begins a tile
        plan = self._rows.plan(self._memory_budget, centers.n_clusters)
        self._call_rows = plan.block
        if n * row_bytes <= plan.spare:
            self._codes = {}

    def _codes_of(self, screen: TensorScreen, place: slice, part: Any) -> TensorCodes | None:
        """Codes of a block, made the first time if all are kept."""
        if self._codes is None:
            return None
        if place.start not in self._codes:
            self._codes[place.start] = screen.empty_codes(len(part))
            screen.encode(part, self._codes[place.start])
        return self._codes[place.start]
