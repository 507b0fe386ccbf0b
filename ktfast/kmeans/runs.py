"""The runs of one fit from different initial centres. The best run is kept."""

import hashlib
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from ktfast.kmeans.array_types import Float64
from ktfast.kmeans.checkpoint import (
    Checkpoints,
    State,
    Stopped,
    random_state_of,
    restore_random_state,
)
from ktfast.kmeans.data.moments import Moments, moments_of
from ktfast.kmeans.data.passes import nearest_centers
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.data.workspace import to_host
from ktfast.kmeans.distributed.agreement import question_of
from ktfast.kmeans.lloyd import LloydResult, lloyd
from ktfast.kmeans.progress import Progress
from ktfast.kmeans.starts import start_centers


class Runs:
    """The runs of one fit.

    Parameters
    ----------
    estimator : KMeans
        The estimator, with checked parameters.
    rows : Rows
        The rows of this process.
    weight : array, float64 [n], optional
        Weights of the rows. None means that all weights are 1.
    moments : Moments
        Mean and variance of the rows of all processes.
    progress : Progress
        Observes the runs.
    bounds : Bounds or None
        Bounds of the cluster sizes. None means no bounds.
    """

    def __init__(
        self,
        estimator: Any,
        rows: Rows,
        weight: Float64 | None,
        moments: Moments,
        progress: Progress,
        bounds: Any,
    ) -> None:
        self._estimator = estimator
        self._rows = rows
        self._weight = weight
        self._moments = moments
        self._progress = progress
        self._bounds = bounds
        # As in scikit-learn, the tolerance follows from the variance without weights.
        has_own = estimator.tol > 0 and weight is not None
        self._tolerance = estimator.tol * (moments_of(rows) if has_own else moments).variance
        self._random_state = check_random_state(estimator.random_state)
        self._checkpoints = self._open_checkpoints()

    def best(self, X: Any, n_init: int) -> LloydResult:
        """Run Lloyd's algorithm `n_init` times; return the result with the lowest inertia.

        If a checkpoint exists, the runs continue from the checkpoint.
        """
        self._rows.expect_passes()
        checkpoints = self._checkpoints
        state = self._rows.ranks.decided(lambda: checkpoints.read() if checkpoints else None)
        if state is not None:
            self._continue(state)
        try:
            for number in range(0 if state is None else state.run, n_init):
                best = self._run(X, number, state)
                state = None
        finally:
            if checkpoints is not None:
                checkpoints.flush()
        return best

    def _continue(self, state: State) -> None:
        """Restore the random generator and the best earlier run of an interrupted fit."""
        if self._estimator.random_state is None:
            self._random_state = np.random.RandomState()  # leave NumPy's global generator unchanged
        restore_random_state(self._random_state, state.random)
        if state.best is not None:
            labels, _ = nearest_centers(self._rows, state.best.centers)
            centers = self._rows.workspace.to_device(state.best.centers)
            past = LloydResult(centers, labels, state.best.inertia, state.best.history)
            self._progress.keep(past)

    def _run(self, X: Any, number: int, state: State | None) -> LloydResult:
        """Do one run, or the rest of an interrupted run; return the best result so far."""
        estimator, rows, progress = self._estimator, self._rows, self._progress
        if state is None:
            start = start_centers(
                estimator, X, rows, self._weight, self._moments, self._random_state, progress
            )
        else:
            start = state.present.centers
        observe = self._observer(number)
        progress.begin()
        if self._bounds is not None:
            result = self._bounded_run(start)
        else:
            result = lloyd(
                rows,
                start,
                self._weight,
                mean=self._moments.mean,
                max_iter=estimator.max_iter,
                tolerance=self._tolerance,
                precision=estimator.precision,
                memory_budget=estimator.memory_budget,
                observe=observe,
                past=() if state is None else state.present.history,
                # A fit may continue from a checkpoint on another device.
                exact_history=self._checkpoints is not None,
            )
        progress.end(result, self._tolerance)
        return progress.keep(result)

    def _observer(self, number: int) -> Any:
        """Return the function that observes every iteration of a run."""
        progress, checkpoints = self._progress, self._checkpoints
        if checkpoints is None:
            return progress.observe
        random = random_state_of(self._random_state)
        best = progress.best and Stopped.of(progress.best, to_host(progress.best.centers))

        def observe(result: LloydResult) -> None:
            progress.observe(result)
            present = Stopped.of(result, to_host(result.centers))
            checkpoints.observe(State(number, random, present, best))

        return observe

    def _bounded_run(self, start: Float64) -> LloydResult:
        """Run Lloyd's algorithm once with bounded cluster sizes."""
        from ktfast.kmeans.bounded import bounded_lloyd  # not loaded by fits without bounds

        return bounded_lloyd(
            self._rows,
            start,
            self._bounds,
            max_iter=self._estimator.max_iter,
            tolerance=self._tolerance,
            observe=self._progress.observe,
        )

    def _open_checkpoints(self) -> Checkpoints | None:
        """Open the checkpoints of this fit on rank 0; None on other ranks."""
        estimator, rows = self._estimator, self._rows
        if estimator.checkpoint is None or not rows.ranks.leads:
            return None
        question = question_of(estimator, rows, is_weighted=self._weight is not None)
        if question["random_state"] == "a generator":
            keys = random_state_of(self._random_state)
            question["random_state"] = f"a generator at {keys['position']} of {_hash(keys['keys'])}"
        question["number of rows"] = rows.total
        question["variance of the rows"] = self._moments.variance
        question["mean of the rows"] = f"SHA-256 {_hash(self._moments.mean)}"
        return Checkpoints(estimator.checkpoint, estimator.checkpoint_seconds, question)


def _hash(array: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
