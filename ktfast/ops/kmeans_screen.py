"""The CPU's screen for nearest centres, and the calls of the compiled kernels that use the screen.

A screen compares codes: rows and centres that are stored in float32, bfloat16 or int8. For most
centres the comparison proves that they are not the nearest; the kernels compare the others exactly.
`csrc/kmeans_assign/README.md` derives the proof.

`ktfast.ops.kmeans_assign` makes a screen for one call. `ktfast.KMeans` codes the rows of a fit
once, and keeps bounds on each row's distances from one iteration to the next.
"""

import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ktfast.native.modules import cpu
from ktfast.ops.kmeans_drift import Drift
from ktfast.ops.kmeans_rows import NEAR_CENTERS, DistanceBounds, Grouped, RowCodes
from ktfast.ops.vectors import readable, row_blocks

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

CODES = ("float32", "bfloat16", "int8")
# The kernels hold centres in panels of 64 slots, and a panel in columns of 16 slots.
PANEL_WIDTH = cpu.KMEANS_PANEL_WIDTH
_COLUMN_WIDTH = cpu.KMEANS_COLUMN_WIDTH
# How many numbers the kernels keep beside the code of a row.
ROW_CONSTANTS = cpu.KMEANS_ROW_CONSTANTS
# A thread multiplies at most this many pairs of numbers in one call of a kernel. At 30 GFLOP/s or
# more a call then takes a third of a second at most, after which Ctrl-C takes effect.
_CALL_PRODUCTS = 5e9


def codes_for(precision: str) -> list[str]:
    """List the codes that a screen of one precision may use on this processor.

    Parameters
    ----------
    precision : {"exact", "fast", "float32", "bfloat16", "int8"}
        "exact" and "fast" allow every code that this processor multiplies fast. The other names
        allow the code of that name only.

    Returns
    -------
    list of str
        The allowed codes.

    Raises
    ------
    ValueError
        `precision` is "float16", which only a GPU can use.
    """
    if precision == "float16":
        raise ValueError(
            'precision "float16" needs arrays on a GPU; on a CPU use "bfloat16" or "exact"'
        )
    if precision in ("exact", "fast"):
        return list(_fast_codes(cpu.simd_level()))
    return [precision]


@functools.cache
def _fast_codes(level: str) -> tuple[str, ...]:
    """List the codes that are no slower than wider codes at a SIMD level.

    Every code gives the same labels. The speed of bfloat16 is measured, which takes 10 ms, because
    a processor may have the instructions and be slow: Intel's AVX-512 instruction for bfloat16
    takes four times as long as a multiply-add and computes twice as many products. The
    instructions of AMD and of AMX are fast.
    """
    codes = [code for code in CODES if cpu.kmeans_has_fast(code=code)]
    if "bfloat16" in codes:
        wide, narrow = (
            max(cpu.machine_peak(kind=kind, seconds=1e-4, n_threads=1) for _ in range(5))
            for kind in ("fp32", "bf16")
        )
        if narrow < wide:
            codes.remove("bfloat16")
    return tuple(codes)


@functools.cache
def _costs(code: str, _level: str) -> dict[str, float]:
    """Return the table of `csrc/kmeans_assign/cpu/costs.h` for a code at the SIMD level in use."""
    return cpu.kmeans_assign_costs(code=code)


class Screen:
    """A way to code vectors, and the kernels that find nearest centres with these codes.

    The screen subtracts a mean from rows and centres, optionally takes their coordinates in a
    basis, and rounds the numbers to a code.

    Parameters
    ----------
    mean : array, float32 [d]
        The vector to subtract from rows and centres. The screen excludes most centres if the vector
        is near the mean of the rows.
    code : {"float32", "bfloat16", "int8"}
        The type of the coded numbers.
    basis : array, float32 [d, m], optional
        Nearly orthonormal columns. With a basis the screen codes the m coordinates instead of the
        d features. The better the basis spans the data, the fewer candidates are left.
    n_threads : int
        How many CPU threads the kernels use.
    """

    def __init__(
        self, mean: Float32, code: str, basis: Float32 | None = None, *, n_threads: int
    ) -> None:
        self.mean = np.ascontiguousarray(mean, dtype=np.float32)
        self.code = code
        self.n_features = len(self.mean)
        self.n_coordinates = 0 if basis is None else basis.shape[1]
        self.n_threads = n_threads
        self._sizes = {"n_features": self.n_features, "n_coordinates": self.n_coordinates}
        size = cpu.kmeans_assign_workspace_size(**self._sizes, n_threads=n_threads)
        self._workspace = np.empty(size, np.float32)
        self._basis: dict[str, Any] = {}
        if basis is not None:
            exact = basis.astype(np.float64)
            error = np.linalg.norm(exact.T @ exact - np.eye(self.n_coordinates))
            self._basis = {"basis": _panels(basis), "basis_error": float(error)}

    def prepare(self, centers: Float64, grouped: Grouped | None = None) -> Float32:
        """Arrange and code centres for the other calls.

        Parameters
        ----------
        centers : array, float64 [k, d]
            The centres.
        grouped : Grouped, optional
            An order and places of the centres. `assign` can then skip whole groups of centres.

        Returns
        -------
        array, float32
            The prepared centres. Only screens with the same mean, code and basis can use them.
        """
        size = cpu.kmeans_prepared_size(n_clusters=len(centers), code=self.code, **self._sizes)
        prepared = np.empty(size, np.float32)
        cpu.kmeans_prepare(
            centers=centers,
            prepared=prepared,
            code=self.code,
            mean=self.mean,
            n_coordinates=self.n_coordinates,
            n_threads=self.n_threads,
            **self._basis,
            **({} if grouped is None else grouped._asdict()),
        )
        return prepared

    def empty_codes(self, n: int) -> RowCodes:
        """Allocate the codes of n rows."""
        width = cpu.kmeans_code_bytes(code=self.code, **self._sizes)
        return RowCodes(np.empty((n, width), np.int8), np.empty((n, ROW_CONSTANTS), np.float32))

    def encode(self, x: Any, codes: RowCodes) -> None:
        """Code rows.

        Parameters
        ----------
        x : array [n, d]
            The rows.
        codes : RowCodes
            The codes of n rows, which are written.
        """
        for rows, block in row_blocks(x, self._call_rows(max(1, self.n_coordinates))):
            cpu.kmeans_encode(
                x=block,
                code=self.code,
                mean=self.mean,
                n_coordinates=self.n_coordinates,
                workspace=self._workspace,
                codes=codes.codes[rows],
                constants=codes.constants[rows],
                n_threads=self.n_threads,
                **self._basis,
            )

    def assign(
        self,
        x: Any,
        centers: Float64,
        prepared: Float32,
        labels: Int32,
        distances: Float64,
        *,
        codes: RowCodes | None = None,
        subset: Int64 | None = None,
        places: Float32 | None = None,
        guessed: bool = False,
        bounds: DistanceBounds | None = None,
        epoch: int = 0,
        margin: float = 0.0,
    ) -> int:
        """Find every row's nearest centre with the screen.

        Parameters
        ----------
        x : array [n, d]
            The rows.
        centers : array, float64 [k, d]
            The centres.
        prepared : array, float32
            The result of `prepare` for these centres.
        labels : array, int32 [n]
            The numbers of the nearest centres, which are written.
        distances : array, float64 [n]
            The squared distances to the nearest centres, which are written.
        codes : RowCodes, optional
            The codes of the rows. None: the kernel codes the rows during the call. A screen with a
            basis needs the codes.
        subset : array, int64 [m], optional
            Row numbers. Only these rows are assigned, in this order if the kernels can read the
            memory of `x`.
        places : array, float32 [n, 9], optional
            The places of the rows, as in `Grouped`. Rows with guesses then skip groups of centres
            if the centres are grouped. Rows that follow each other should have guesses of one
            group.
        guessed : bool
            Whether `labels` hold centres that are probably near. A good guess lets the screen
            exclude more centres.
        bounds : DistanceBounds, optional
            The bounds of the rows, which are written.
        epoch : int
            The snapshot of the centres that the bounds refer to. The number is written to
            `bounds.epochs`.
        margin : float
            Centres up to (1 + margin) times the squared distance to the nearest centre become
            candidates; see `DistanceBounds`.

        Returns
        -------
        int
            How many candidates the screen left, plus how many centres were compared in float32 or
            exactly, added up over the rows.
        """
        compared = 0
        most = self._call_rows(len(centers) * self._length)
        for rows, block, part in _subset_blocks(x, subset, most):
            compared += cpu.kmeans_assign(
                x=block,
                centers=centers,
                prepared=prepared,
                code=self.code,
                n_coordinates=self.n_coordinates,
                workspace=self._workspace,
                labels=labels[rows],
                distances=distances[rows],
                codes=None if codes is None else codes.codes[rows],
                constants=None if codes is None else codes.constants[rows],
                subset=part,
                places=None if places is None else places[rows],
                guessed=guessed,
                epoch=epoch,
                margin=margin,
                n_threads=self.n_threads,
                **_bounds(bounds, rows),
            )
        return compared

    def reassign(
        self,
        x: Any,
        centers: Float64,
        prepared: Float32,
        labels: Int32,
        distances: Float64,
        *,
        drift: Drift,
        bounds: DistanceBounds,
        budget: int,
        pending: npt.NDArray[np.uint8],
    ) -> int:
        """Update labels and distances after the centres have moved, using distance bounds.

        A row is compared only with centres that may have become nearer than the row's own centre.

        Parameters
        ----------
        x : array [n, d]
            The rows.
        centers : array, float64 [k, d]
            The centres.
        prepared : array, float32
            The result of `prepare` for these centres.
        labels : array, int32 [n]
            The nearest of the previous centres, which are updated.
        distances : array, float64 [n]
            The squared distances to the previous centres, which are updated.
        drift : Drift
            How far the centres have moved.
        bounds : DistanceBounds
            The bounds of the rows. `bounds.spent` is increased.
        budget : int
            Largest number of distances that are computed for a row after its bounds were written.
            A row that needs more distances is left to `assign`, which takes no longer.
        pending : array, uint8 [n]
            Written: 1 for the rows that exceed the budget, else 0. `assign` must decide the rows
            marked with 1.

        Returns
        -------
        int
            How many distances were computed, added up over the rows.
        """
        pairs = 0
        for rows, block in row_blocks(x, self._call_rows(NEAR_CENTERS * self.n_features)):
            pairs += cpu.kmeans_reassign(
                x=block,
                centers=centers,
                prepared=prepared,
                code=self.code,
                n_coordinates=self.n_coordinates,
                workspace=self._workspace,
                labels=labels[rows],
                distances=distances[rows],
                budget=budget,
                pending=pending[rows],
                n_threads=self.n_threads,
                **drift._asdict(),
                **_bounds(bounds, rows),
            )
        return pairs

    def try_on(
        self,
        sample: Any,
        centers: Float64,
        labels: Int32 | None = None,
        margin: float | None = None,
    ) -> "Trial":
        """Screen a sample of rows and estimate what the screen costs per row.

        Parameters
        ----------
        sample : array [m, d]
            The sample.
        centers : array, float64 [k, d]
            The centres.
        labels : array, int32 [m], optional
            Guessed centres. Without them the sample is screened without guesses.
        margin : float, optional
            The margin of the distance bounds. Without a margin no bounds are recorded.

        Returns
        -------
        Trial
            The estimated cost, and how useful the bounds are.

        Notes
        -----
        The trial counts the candidates. The cost is computed from that number and from a table,
        because the time of so small a sample would be noisy.
        """
        m = len(sample)
        codes = None
        if self.n_coordinates:
            codes = self.empty_codes(m)
            self.encode(sample, codes)
        bounds = None if margin is None else DistanceBounds.empty(m)
        distances = np.empty(m)
        compared = self.assign(
            sample,
            centers,
            self.prepare(centers),
            np.zeros(m, np.int32) if labels is None else labels.copy(),
            distances,
            codes=codes,
            guessed=labels is not None,
            bounds=bounds,
            margin=margin or 0.0,
        )
        cycles = self.product_cost(len(centers)) + self.pair_cost * compared / m
        if bounds is None:
            return Trial(cycles, 0.0)
        reach = np.sqrt(distances) + 1e-30
        return Trial(cycles, float(np.median(bounds.rest_bound / reach)) - 1)

    def product_cost(self, n_clusters: int) -> float:
        """Estimate the clock cycles that screening a row takes, without its candidates."""
        slots = -(-n_clusters // PANEL_WIDTH) * PANEL_WIDTH
        table = self._costs
        per_slot = self._length / table["products_per_cycle"] + table["slot_cycles"]
        return slots * per_slot + self.n_features * table["feature_cycles"]

    @property
    def noting_cost(self) -> float:
        """Clock cycles that recording the bounds of a screened row takes."""
        return self._costs["bounds_cycles"] + self._costs["bounds_pairs"] * self.pair_cost

    @property
    def pair_cost(self) -> float:
        """Clock cycles that comparing a row with one centre takes."""
        table = self._costs
        return self.n_features / table["pair_features_per_cycle"] + table["pair_cycles"]

    @property
    def _costs(self) -> dict[str, float]:
        return _costs(self.code, cpu.simd_level())

    @property
    def _length(self) -> int:
        return self.n_coordinates or self.n_features

    def _call_rows(self, row_products: int) -> int:
        return max(1, int(_CALL_PRODUCTS * self.n_threads / max(1, row_products)))


class Trial(NamedTuple):
    """The cost and the use of a screen, estimated from a sample of rows.

    Attributes
    ----------
    cycles : float
        Estimated clock cycles per row.
    slack : float
        The distance that `rest_bound` proves for the farther centres, divided by the distance to
        the nearest centre, minus 1. The median of the sample.
    """

    cycles: float
    slack: float


def _subset_blocks(
    x: Any, subset: Int64 | None, most: int
) -> Iterator[tuple[slice, Any, Int64 | None]]:
    """Yield blocks of rows as `row_blocks` does, and the numbers of the subset in each block."""
    if subset is None:
        for rows, block in row_blocks(x, most):
            yield rows, block, None
    elif readable(x) and not isinstance(x, np.memmap):
        for first in range(0, len(subset), most):
            yield slice(0, len(x)), x, subset[first : first + most]
    else:
        for rows, block in row_blocks(x, most):
            part = subset[(subset >= rows.start) & (subset < rows.stop)]
            if len(part) > 0:
                yield rows, block, part - rows.start


def _panels(basis: Float32) -> Float32:
    """Arrange the columns of a basis in panels as the kernels read them: [panels, 4, d, 16]."""
    d, m = basis.shape
    n_panels = -(-m // PANEL_WIDTH)
    padded = np.zeros((d, n_panels * PANEL_WIDTH), np.float32)
    padded[:, :m] = basis
    columns = padded.reshape(d, n_panels, PANEL_WIDTH // _COLUMN_WIDTH, _COLUMN_WIDTH)
    return np.ascontiguousarray(columns.transpose(1, 2, 0, 3))


def _bounds(bounds: DistanceBounds | None, rows: slice) -> dict[str, Any]:
    """Return the kernels' keyword arguments for the bounds of some rows."""
    if bounds is None:
        return {"near": None}
    return bounds.at(rows)._asdict()
