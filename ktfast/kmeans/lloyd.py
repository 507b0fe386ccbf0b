"""Lloyd's algorithm: assign rows, update centres and relocate empty clusters, in iterations."""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from ktfast.errors import InputError
from ktfast.kmeans.array_types import Float64
from ktfast.kmeans.assignment.assigner import Assigner, make_assigner
from ktfast.kmeans.assignment.bounds import Inertia
from ktfast.kmeans.data.passes import inertia_and_moved, inertia_of
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.sums import make_sums


class LloydResult(NamedTuple):
    """The outcome of one run of Lloyd's algorithm.

    Attributes
    ----------
    centers : array, float64 [k, d]
        The centres, on the device that processes the rows.
    labels : array, int32 [n]
        Nearest of these centres for each row, on the same device.
    inertia : float
        Sum of the weighted squared distances to the nearest centres.
    history : list of dict
        Per iteration: inertia, moved, shift, relocated, skipped and seconds; see
        `KMeans.history_`.
    error : float
        Upper bound of the error of `inertia`. 0 if `inertia` is the sum of exact distances, as in
        the result of a run.
    """

    centers: Any
    labels: Any
    inertia: float
    history: list[dict[str, float]]
    error: float = 0.0


def lloyd(
    rows: Rows,
    centers: Float64,
    weight: Float64 | None,
    *,
    mean: Float64,
    max_iter: int,
    tolerance: float,
    precision: str = "exact",
    memory_budget: int | None = None,
    observe: Callable[[LloydResult], None] | None = None,
    past: Sequence[dict[str, float]] = (),
    exact_history: bool = False,
) -> LloydResult:
    """Run Lloyd's algorithm from the given centres.

    Parameters
    ----------
    rows : Rows
        The data [n, d].
    centers : array, float64 [k, d]
        Initial centres, rounded by `rows.rounded`.
    weight : array, float64 [n], optional
        Weights of the rows. None means that all weights are 1.
    mean : array, float64 [d]
        Mean of the rows.
    max_iter : int
        Largest number of iterations.
    tolerance : float
        The run ends when the squared movements of the centres sum to at most this value.
    precision : str, default "exact"
        See `ktfast.ops.kmeans_assign`.
    memory_budget : int, optional
        Bytes of GPU memory that the fit may use, see `ktfast.KMeans`.
    observe : callable, optional
        Called with the present result after each iteration.
    past : sequence of dict
        History of an interrupted run. If given, `centers` are the centres of its last entry.
    exact_history : bool, default False
        Whether the inertia of every iteration has the bits of a fit on a CPU. Otherwise a GPU may
        compute the inertia from the sums of the clusters, with a small error.

    Returns
    -------
    result : LloydResult
        The centres with the lowest inertia, and their own labels.

    Raises
    ------
    InputError
        The rows do not have the inertia of the interrupted run's last iteration.

    Notes
    -----
    Lloyd, "Least squares quantization in PCM" (1982).
    """
    history = list(past)
    repeats = len(history) > 0  # repeat the last iteration of `past`: only its centres are known
    result: LloydResult | None = None
    sums = make_sums(rows, len(centers), weight)
    assigner = make_assigner(
        rows,
        mean,
        len(centers),
        sums,
        precision=precision,
        memory_budget=memory_budget,
        bounds=not (exact_history or past),
    )
    current = rows.workspace.to_device(centers)
    while repeats or len(history) < max_iter:
        started = time.perf_counter()
        labels, distances = assigner.assign(current)
        before = None if result is None else result.labels
        inertia, moved = inertia_and_moved(rows, distances, weight, before, labels)
        moved = rows.total if result is None else moved
        known = assigner.inertia(current) if assigner.has_bounds else Inertia(inertia)
        present = LloydResult(current, labels, known.value, history, known.error)
        # Rounding alone can move rows without lowering the inertia: then keep the former result.
        if result is not None and moved > 0 and not _falls(rows, assigner, result, present):
            return _with_exact_labels(rows, assigner, weight, result)
        result = present._replace(labels=_kept(rows, labels))
        if assigner.has_bounds:
            distances = functools.partial(assigner.exact_distances, labels, current)
        current, shift, relocated = sums.centers(result.labels, distances, current)
        if repeats:
            _check_repeated(history[-1], known.value, shift)
        else:
            history.append(
                {
                    "inertia": known.value,
                    "moved": moved,
                    "shift": shift,
                    "relocated": relocated,
                    "skipped": _skipped(rows, assigner),
                    "seconds": time.perf_counter() - started,
                }
            )
            if observe is not None:
                observe(result)
        repeats = False
        if shift == 0:
            return _with_exact_labels(rows, assigner, weight, result)
        if shift <= tolerance and not relocated:
            break
    return _with_last_update(rows, assigner, current, weight, result)


def _falls(rows: Rows, assigner: Assigner, former: LloydResult, present: LloydResult) -> bool:
    """Whether the inertia falls; exact distances decide where the errors leave this open."""
    if not _is_clear(former, present):
        former, present = (_with_exact_inertia(rows, assigner, each) for each in (former, present))
    return present.inertia < former.inertia


def _is_clear(former: LloydResult, present: LloydResult) -> bool:
    """Whether the errors cannot change which of two inertias is the larger one."""
    errors = former.error + present.error
    return errors == 0 or abs(former.inertia - present.inertia) > errors


def _with_exact_inertia(rows: Rows, assigner: Assigner, result: LloydResult) -> LloydResult:
    """Compute the inertia of a run without weights from exact distances."""
    distances = assigner.exact_distances(result.labels, result.centers)
    return result._replace(inertia=inertia_of(rows, distances), error=0.0)


def _check_repeated(row: dict[str, float], inertia: float, shift: float) -> None:
    """Compare the repeated iteration with its entry in the history."""
    if (inertia, shift) != (row["inertia"], row["shift"]):
        raise InputError(
            f"the checkpoint belongs to other rows: its last iteration had inertia "
            f"{row['inertia']!r}, but these rows have {inertia!r}; give the same rows, or remove "
            "the checkpoint"
        )


def _skipped(rows: Rows, assigner: Assigner) -> float:
    """Share of the distances that the last pass skipped, over the rows of all processes."""
    if rows.ranks.size == 1:
        return assigner.skipped
    return sum(rows.ranks.gather_to_all(assigner.skipped * rows.n)) / rows.total


def _kept(rows: Rows, labels: Any) -> Any:
    """Labels that the next call of the assigner does not overwrite."""
    return labels if rows.on_gpu else labels.copy()


def _with_exact_labels(
    rows: Rows, assigner: Assigner, weight: Float64 | None, result: LloydResult
) -> LloydResult:
    """Replace labels and inertia by exact ones if the assigner has not computed exact ones."""
    if result.error > 0:
        return _with_exact_inertia(rows, assigner, result)
    if assigner.is_exact:
        return result
    labels, distances = assigner.assign(result.centers, last=True)
    return result._replace(labels=labels, inertia=inertia_of(rows, distances, weight))


def _with_last_update(
    rows: Rows, assigner: Assigner, centers: Any, weight: Float64 | None, result: Any
) -> LloydResult:
    """Replace the centres by those of the last update, unless this raises the exact inertia."""
    labels, distances = assigner.assign(centers, last=True)
    last = LloydResult(centers, labels, inertia_of(rows, distances, weight), result.history)
    if result.error > 0 and (last.inertia > result.inertia or not _is_clear(result, last)):
        result = _with_exact_inertia(rows, assigner, result)
    if last.inertia > result.inertia and assigner.is_exact:
        return LloydResult(*result)
    return last._replace(labels=_kept(rows, labels))
