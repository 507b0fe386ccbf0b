"""The CPU's screen for nearest centres: how vectors are coded, and the calls that use the codes.

`kmeans_assign` is the one-shot use of it. `ktfast.KMeans` codes the rows of a fit once and keeps
what it learns of each row from one iteration to the next.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ktfast.native.modules import cpu
from ktfast.ops.vectors import row_blocks

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

CODES = ("float32", "bfloat16", "int8")
_CODE_BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
PANEL_WIDTH = 64
_COLUMN_WIDTH = 16
NEAR_CENTERS = 16
ROW_CONSTANTS = 7
_FARTHEST = 128
# Multiplications of one call and thread; at 30 GFLOP/s and more a call takes a third of a second.
_CALL_PRODUCTS = 5e9


def codes_for(precision: str) -> list[str]:
    """The codes that a screen of this precision may use on this processor, to choose from.

    Raises
    ------
    ValueError : only a GPU multiplies in it.
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
    """Codes that are no slower than wider ones at a SIMD level; all give the same labels.

    Instructions for bfloat16 are not enough: Intel's AVX-512 ones take four times as long as a
    multiply-add, for twice the products; AMD's and AMX are fast. So it is measured, in 10 ms.
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


class Screen:
    """How vectors are coded: shifted, perhaps taken to a basis, and rounded.

    Parameters
    ----------
    mean : float32 [d], subtracted from rows and centres.
    code : "float32", "bfloat16" or "int8".
    basis : float32 [d, m], nearly orthonormal columns: coordinates in it are coded instead of the
        features. The better it spans the data, the fewer centres pass. None: features are coded.
    n_threads : CPU threads.
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

    def prepare(self, centers: Float64) -> Float32:
        """Prepare centres [k, d] for the other calls."""
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
        )
        return prepared

    def empty_codes(self, n: int) -> "RowCodes":
        """Room for the codes of n rows."""
        width = cpu.kmeans_code_bytes(code=self.code, **self._sizes)
        return RowCodes(np.empty((n, width), np.int8), np.empty((n, ROW_CONSTANTS), np.float32))

    def encode(self, x: Any, codes: "RowCodes") -> None:
        """Code rows x [n, d]."""
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
        codes: "RowCodes | None" = None,
        subset: Int64 | None = None,
        guessed: bool = False,
        bounds: "DistanceBounds | None" = None,
        epoch: int = 0,
        margin: float = 0.0,
    ) -> int:
        """Write the nearest centre of every row of x, and the squared distance to it.

        Parameters
        ----------
        x : [n, d].
        centers, prepared : float64 [k, d] and what `prepare` made of them.
        labels, distances : int32 [n] and float64 [n], written to.
        codes : of the rows; None: made on the way. Needed with a basis.
        subset : increasing row numbers; only these are assigned. None: all.
        guessed : `labels` hold centres that are probably near.
        bounds : of the rows, written to.
        epoch, margin : see `DistanceBounds`.

        Returns
        -------
        how many centres passed the screen, and how many were compared, added up over the rows.
        """
        passed = 0
        for rows, block in row_blocks(x, self._call_rows(len(centers) * self._length)):
            part = None
            if subset is not None:
                first, last = np.searchsorted(subset, (rows.start, rows.stop))
                if first == last:
                    continue
                part = subset[first:last] - rows.start
            passed += cpu.kmeans_assign(
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
                guessed=guessed,
                epoch=epoch,
                margin=margin,
                n_threads=self.n_threads,
                **_bounds(bounds, rows),
            )
        return passed

    def reassign(
        self,
        x: Any,
        centers: Float64,
        prepared: Float32,
        labels: Int32,
        distances: Float64,
        *,
        drift: "Drift",
        bounds: "DistanceBounds",
        budget: int,
        pending: npt.NDArray[np.uint8],
    ) -> int:
        """Bring labels and distances of the last centres up to these centres, by way of bounds.

        Rows for which that would take more than `budget` distances are marked in `pending` (uint8
        [n]); `assign` must decide them. Returns how many distances were computed.
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
        """Screen a sample of rows, to learn what the screen is worth.

        Parameters
        ----------
        sample : [m, d].
        centers : float64 [k, d].
        labels : int32 [m], guesses; None: the screen does without.
        margin : of the bounds to note; None: none are noted.

        Notes
        -----
        How many centres pass is counted; what that costs is reckoned, because times of so little
        work are noisy.
        """
        m = len(sample)
        codes = None
        if self.n_coordinates:
            codes = self.empty_codes(m)
            self.encode(sample, codes)
        bounds = None if margin is None else DistanceBounds.empty(m)
        distances = np.empty(m)
        passed = self.assign(
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
        cycles = self.product_cost(len(centers)) + self.pair_cost * passed / m
        if bounds is None:
            return Trial(cycles, 0.0)
        reach = np.sqrt(distances) + 1e-30
        return Trial(cycles, float(np.median(bounds.rest_bound / reach)) - 1)

    def product_cost(self, n_clusters: int) -> float:
        """Clock cycles for screening a row: the product's words, and what follows them."""
        slots = -(-n_clusters // PANEL_WIDTH) * PANEL_WIDTH
        words = self._length * _CODE_BYTES[self.code] / 4
        # AVX2 takes two steps for a product of bytes.
        rates = {("int8", "avx2"): 12, ("int8", "amx"): 120, ("bfloat16", "amx"): 120}
        rate = rates.get((self.code, cpu.simd_level()), 16)
        return slots * (words / rate + 5 / 16) + self.n_features / 2

    @property
    def noting_cost(self) -> float:
        """Clock cycles that noting the bounds of a row takes besides screening it."""
        return 4400 + 1.5 * (NEAR_CENTERS + 4) * self.pair_cost

    @property
    def pair_cost(self) -> float:
        """Clock cycles for comparing a row with one centre."""
        return self.n_features / 12 + 25

    @property
    def _length(self) -> int:
        return self.n_coordinates or self.n_features

    def _call_rows(self, row_products: int) -> int:
        return max(1, int(_CALL_PRODUCTS * self.n_threads / max(1, row_products)))


class Trial(NamedTuple):
    """What a screen is worth.

    cycles : per row, roughly.
    slack : how much farther than the nearest centre the bounded rest of a row's centres is, as a
        share; the median.
    """

    cycles: float
    slack: float


class RowCodes(NamedTuple):
    """Codes of rows, and what is known of the rest of them."""

    codes: npt.NDArray[np.int8]
    constants: Float32

    def at(self, rows: slice) -> "RowCodes":
        """Those of some rows, sharing memory."""
        return RowCodes(self.codes[rows], self.constants[rows])


class DistanceBounds(NamedTuple):
    """What is known of each row's other centres, as of an epoch.

    near : int32 [n, 16], the nearest centres, -1 where there are fewer.
    near_bounds : float32 [n, 16], lower bounds of the distances to them.
    rest_bound : float32 [n], lower bound of the distances to all others.
    epochs : uint8 [n], the snapshot of the centres for which these hold.
    spent : uint16 [n], distances computed since then.

    The margin of `Screen.assign` says how much farther than the nearest, as a share of its squared
    distance, centres are looked for: the wider, the more useful the bound of the rest, and the more
    centres pass the screen.
    """

    near: Int32
    near_bounds: Float32
    rest_bound: Float32
    epochs: npt.NDArray[np.uint8]
    spent: npt.NDArray[np.uint16]

    @classmethod
    def empty(cls, n: int) -> "DistanceBounds":
        """Room for the bounds of n rows: 139 bytes each."""
        return cls(
            np.empty((n, NEAR_CENTERS), np.int32),
            np.empty((n, NEAR_CENTERS), np.float32),
            np.empty(n, np.float32),
            np.zeros(n, np.uint8),
            np.empty(n, np.uint16),
        )

    def at(self, rows: slice) -> "DistanceBounds":
        """Those of some rows, sharing memory."""
        return DistanceBounds(
            self.near[rows],
            self.near_bounds[rows],
            self.rest_bound[rows],
            self.epochs[rows],
            self.spent[rows],
        )


class Drift(NamedTuple):
    """How far centres have moved.

    moved : uint8 [k], since the last assignment or not.
    drift : float32 [epochs, k], distance to the snapshot of an epoch.
    farthest, farthest_moved : int32 [epochs, 128], the centres of largest drift, among all and
        among those that moved.
    """

    moved: npt.NDArray[np.uint8]
    drift: Float32
    farthest: Int32
    farthest_moved: Int32


def kmeans_drift(
    centers: Float64,
    previous: Float64,
    snapshots: Float32,
    snapshot_error: Float32,
    *,
    drift: Float32 | None = None,
    known: npt.NDArray[np.bool_] | None = None,
    n_threads: int,
) -> Drift:
    """Measure how far centres [k, d] are from the previous ones and from snapshots.

    Parameters
    ----------
    centers, previous : float64 [k, d].
    snapshots : float32 [epochs, k, d].
    snapshot_error : float32 [epochs], how far a rounded snapshot may be from the centre it was of.
    drift : float32 [epochs, k], written to and returned; None: a new array.
    known : bool [epochs], of which epochs `drift` holds what was written for the previous centres.
    """
    n_epochs, k = snapshots.shape[:2]
    if known is None:
        known = np.zeros(n_epochs, bool)
    found = Drift(
        np.empty(k, np.uint8),
        np.empty((n_epochs, k), np.float32) if drift is None else drift,
        np.empty((n_epochs, _FARTHEST), np.int32),
        np.empty((n_epochs, _FARTHEST), np.int32),
    )
    cpu.kmeans_drift(
        centers=centers,
        previous=previous,
        snapshots=snapshots,
        snapshot_error=snapshot_error,
        known=known.view(np.uint8),
        n_threads=n_threads,
        **found._asdict(),
    )
    return found


def _panels(basis: Float32) -> Float32:
    """Columns in groups of 16, each group feature by feature: float32 [groups / 4, 4, d, 16]."""
    d, m = basis.shape
    n_panels = -(-m // PANEL_WIDTH)
    padded = np.zeros((d, n_panels * PANEL_WIDTH), np.float32)
    padded[:, :m] = basis
    columns = padded.reshape(d, n_panels, PANEL_WIDTH // _COLUMN_WIDTH, _COLUMN_WIDTH)
    return np.ascontiguousarray(columns.transpose(1, 2, 0, 3))


def _bounds(bounds: DistanceBounds | None, rows: slice) -> dict[str, Any]:
    if bounds is None:
        return {"near": None}
    return bounds.at(rows)._asdict()
