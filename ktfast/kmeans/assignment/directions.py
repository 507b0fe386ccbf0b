"""Principal directions of the rows of a fit, found from a sample."""

import numpy as np

from ktfast.kmeans.array_types import Float32, Float64
from ktfast.kmeans.data.rows import Rows
from ktfast.ops.middle import spread_places

_BASIS_SAMPLE = 1024
# With at most this many features, the directions come from the covariance matrix itself.
_SQUARE_FEATURES = 256


def principal_directions(rows: Rows, mean: Float64, count: int) -> Float32:
    """Find orthonormal directions that span much of the rows' variance, most important first.

    Parameters
    ----------
    rows : Rows
        The data [n, d].
    mean : array, float64 [d]
        Mean of the rows.
    count : int
        Number of directions wanted.

    Returns
    -------
    directions : array, float32 [d, m]
        Columns of length one, m <= `count`. Any orthonormal columns give exact labels; better
        columns leave fewer candidates.

    Notes
    -----
    Randomised subspace iteration on a sample: Halko, Martinsson and Tropp, "Finding structure with
    randomness" (2011).
    """
    sample = (rows.take(spread_places(rows.n, _BASIS_SAMPLE)) - mean).astype(np.float32)
    count = min(count, *sample.shape)
    generator = np.random.default_rng(0)
    if rows.d <= _SQUARE_FEATURES:
        directions = np.linalg.eigh(sample.T @ sample)[1][:, ::-1][:, :count]
    else:
        directions = generator.normal(size=(rows.d, count)).astype(np.float32)
        for _ in range(2):
            directions = np.linalg.qr(sample.T @ (sample @ directions))[0]
        projected = sample @ directions
        directions = directions @ np.linalg.eigh(projected.T @ projected)[1][:, ::-1]
    # The float32 products leave the columns slightly off orthonormal.
    return np.asarray(np.linalg.qr(directions.astype(np.float64))[0], dtype=np.float32)
