"""Integer sums of clusters, with one or two limbs of 64 bits, and the choice of their units.

Each feature has a power of two as its unit, and every number is rounded once to a multiple of the
unit. Sums of integers are exact, so neither the order of the rows nor the number of threads or
processes changes a bit of them. A sum of one limb is one int64 number. A sum of two limbs is
``high + low / 2 ** LOW_BITS``, in which the units of `low` are finer by the factor ``2 ** 44``.
"""

import logging
from typing import Any, NamedTuple

import numpy as np

from ktfast.kmeans.array_types import Float64, Int64
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.data.workspace import Workspace, to_host
from ktfast.kmeans.distributed.leader import led
from ktfast.ops.kmeans_sums import LOW_BITS, kmeans_costs, kmeans_means, kmeans_move, kmeans_ranges

logger = logging.getLogger(__name__)

# Most bits of a value in the first limb. float64 holds every integer of 50 bits exactly.
_BITS = 50
# At least half of a feature's nonzero numbers must keep this many bits, or all must be exact: for
# float32 centres, and for float64 centres.
_LEAST_BITS, _LEAST_BITS_FLOAT64 = 30, 53
_SAMPLE = 256
# The last bits of finer units leave the range of float64.
_LARGEST_EXPONENT = 970


class Units(NamedTuple):
    """The units of sums.

    Attributes
    ----------
    scale : array, float64 [d]
        Power of two by which each feature is multiplied before rounding to an integer.
    has_low : bool
        Whether the sums have a second limb.
    """

    scale: Float64
    has_low: bool


class LimbSums:
    """The integer sums [k, d] of the rows of clusters, on the device that processes the rows.

    Parameters
    ----------
    workspace : Workspace
        The device.
    units : Units
        Units of the sums.
    n_clusters : int
        Number of clusters k.
    """

    def __init__(self, workspace: Workspace, units: Units, n_clusters: int) -> None:
        self._workspace = workspace
        self._units = units
        self._scale = workspace.to_device(units.scale)
        step = 1 / units.scale
        self._step = step * 2.0**-LOW_BITS if units.has_low else step
        shape = n_clusters, len(units.scale)
        self._low: Any = None
        self._put(np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(n_clusters, int))

    def move(
        self, rows: Any, before: Any | None, after: Any, weight: Any | None, n_threads: int | None
    ) -> None:
        """Move rows [m, d] between the sums; the arguments are those of `kmeans_move`."""
        kmeans_move(
            rows,
            before,
            after,
            self._scale,
            self._high,
            self.counts,
            low=self._low,
            sample_weight=weight,
            n_threads=n_threads,
        )

    def values(self) -> Float64:
        """The sums, float64 [k, d] on the host, each rounded once."""
        high = to_host(self._high)
        if self._low is None:
            return high * self._step
        top = high.astype(np.float64)
        dropped = high - top.astype(np.int64)
        rest = (dropped << LOW_BITS) + to_host(self._low)
        values: Float64 = (top * 2.0**LOW_BITS + rest) * self._step
        return values

    def means(
        self, previous: Any, weights: Any | None, *, narrow: bool, n_threads: int | None
    ) -> tuple[Any, Any]:
        """Compute the centres and their squared movements; see `kmeans_means`."""
        return kmeans_means(
            self._high,
            self.counts,
            self._workspace.to_device(self._step),
            previous,
            low=self._low,
            weights=weights,
            narrow=narrow,
            n_threads=n_threads,
        )

    def costs(self, centers: Any, mean: Any) -> tuple[Float64, Float64]:
        """Compute what the clusters add to the inertia, on the host; see `kmeans_costs`."""
        costs, errors = kmeans_costs(
            self._high,
            self.counts,
            self._workspace.to_device(self._step),
            mean,
            centers,
            low=self._low,
        )
        return to_host(costs), to_host(errors)

    def table(self) -> Int64:
        """The limbs and the counts of the clusters, int64 [k, d + 1] or [k, 2 d + 1]."""
        limbs = [to_host(self._high), *([] if self._low is None else [to_host(self._low)])]
        return np.column_stack([*limbs, to_host(self.counts)])

    def with_table(self, table: Int64) -> "LimbSums":
        """Return sums in the same units with the content of a table of `table`, or of several."""
        other = LimbSums(self._workspace, self._units, 0)
        d = len(self._units.scale)
        high, low = table[:, :d], table[:, d:-1]
        if self._units.has_low:
            high, low = _carried(high, low)
        other._put(high, low, table[:, -1])
        return other

    def constant(self) -> Int64:
        """Sum over all clusters [m], which no move of a row from cluster to cluster changes."""
        table = self.table()
        d = len(self._units.scale)
        high, low = table[:, :d].sum(axis=0), table[:, d:-1]
        if self._units.has_low:
            # int64 does not hold the sum of the low limbs of more than 2^19 clusters.
            half = LOW_BITS // 2
            upper, lower = (low >> half).sum(axis=0), (low & ((1 << half) - 1)).sum(axis=0)
            upper, lower = upper + (lower >> half), lower & ((1 << half) - 1)
            high, low = high + (upper >> half), ((upper & ((1 << half) - 1)) << half) | lower
        return np.concatenate([high, low.ravel(), table[:, -1:].sum(axis=0)])

    def _put(self, high: Int64, low: Int64, counts: Int64) -> None:
        to_device = self._workspace.to_device
        self._high = to_device(np.ascontiguousarray(high))
        if self._units.has_low:
            self._low = to_device(np.ascontiguousarray(low))
        self.counts = to_device(np.ascontiguousarray(counts))


def _carried(high: Int64, low: Int64) -> tuple[Int64, Int64]:
    """Move all but the last `LOW_BITS` bits of the low limbs to the high limbs."""
    return high + (low >> LOW_BITS), low & ((1 << LOW_BITS) - 1)


def units_of(rows: Rows, weight: Float64 | None) -> tuple[Units, Units | None] | None:
    """Choose the units of the sums of rows, and of the sums of their weights.

    Parameters
    ----------
    rows : Rows
        The data [n, d].
    weight : array, float64 [n], optional
        Weights of the rows. None means that all weights are 1.

    Returns
    -------
    units : (Units, Units or None), or None
        Units of the weighted rows, and of the weights if there are weights. None if even two limbs
        lose too many bits, because most numbers of a feature are tiny beside its largest number.
    """
    exponents = _exponents(rows)
    bits = _bits_of(rows.total)
    of_weights: Units | None = None
    if weight is not None:
        most, least = _range_of(rows, weight)
        of_weights = Units(_scales(bits, np.array([np.frexp(most)[1]])), has_low=True)
        if not least * of_weights.scale[0] * 2.0**LOW_BITS >= 2.0**_LEAST_BITS_FLOAT64:
            are_alike = least > most * 2.0**-LOW_BITS
            _warn(f"the smallest weight is tiny{'' if are_alike else ' beside the largest'}")
            return None
        exponents = exponents + np.frexp(most)[1]
    scale = _scales(bits, exponents)
    is_float32 = rows.center_dtype == "float32"
    least_bits = _LEAST_BITS if is_float32 else _LEAST_BITS_FLOAT64

    def choose(every: Rows, weights: Float64 | None) -> Units | None:
        numbers = np.arange(0, every.n, -(-every.n // _SAMPLE))
        sample = np.abs(every.take(numbers))
        if weights is not None:
            sample *= weights[numbers][:, None]
        if weights is None and is_float32 and _keeps(sample * scale, least_bits):
            return Units(scale, has_low=False)
        # The factors are apart, because their product may leave the range of float64.
        return Units(scale, True) if _keeps(sample * scale * 2.0**LOW_BITS, least_bits) else None

    of_rows = led(rows, weight, choose)
    if of_rows is None:
        _warn("most numbers of a feature are tiny beside its largest number")
        return None
    return of_rows, of_weights


def _bits_of(n: int) -> int:
    """Bits of a number in the first limb, of which int64 holds the sum of n."""
    return min(_BITS, 62 - int(n).bit_length())


def _warn(reason: str) -> None:
    logger.warning(
        "K-means adds up float64 numbers, which reads all rows in each iteration: %s", reason
    )


def _exponents(rows: Rows) -> Float64:
    """Exponents [d]: the magnitudes of each feature are below ``2 ** exponent``."""
    ranges = rows.workspace.to_device(np.zeros(rows.d))
    for _, part in rows.parts():
        kmeans_ranges(part, ranges, n_threads=rows.n_threads)
    largest = np.max(rows.ranks.gather_to_all(to_host(ranges)), axis=0)
    exponents: Float64 = np.frexp(largest)[1].astype(np.float64)
    return exponents


def _range_of(rows: Rows, weight: Float64) -> tuple[float, float]:
    """Largest and smallest positive weight of all processes."""
    positive = weight[weight > 0]
    own = float(positive.max(initial=0)), float(positive.min(initial=np.inf))
    largest, smallest = zip(*rows.ranks.gather_to_all(own), strict=True)
    return max(largest), min(smallest)


def _scales(bits: int, exponents: Any) -> Float64:
    """Powers of two [d] with which numbers below ``2 ** exponent`` have that many bits."""
    powers: Float64 = np.minimum(bits - np.asarray(exponents, np.float64), _LARGEST_EXPONENT)
    return np.exp2(powers)


def _keeps(units: Float64, least_bits: int) -> bool:
    """Whether half of each feature's nonzero numbers [m, d] have enough bits, or all are exact."""
    enough = 2 * (units >= 2.0**least_bits).sum(axis=0) >= (units > 0).sum(axis=0)
    exact = (units == np.rint(units)).all(axis=0)
    return bool((enough | exact).all())
