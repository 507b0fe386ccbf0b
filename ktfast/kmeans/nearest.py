"""The rows that a fitted estimator is asked about, and their nearest centres."""

from typing import Any

import numpy as np

from ktfast.kmeans.array_types import Float64
from ktfast.kmeans.data.moments import check_finite
from ktfast.kmeans.data.passes import all_below, nearest_centers
from ktfast.kmeans.data.rows import Rows
from ktfast.kmeans.inputs import stored_centers
from ktfast.kmeans.magnitude import check_magnitude, rows_in_range, unscaled


def fitted_rows(estimator: Any, rows: Rows, centers: Any) -> tuple[Rows, Float64]:
    """Bring rows and centres to one scale.

    Parameters
    ----------
    estimator : KMeans or HierarchicalKMeans
        The estimator. Its parameters say where and how the rows are processed.
    rows : Rows
        The rows [n, d].
    centers : array [k, d]
        Centres that a fit has found or that the user stored in the estimator.

    Returns
    -------
    rows : Rows
        The rows, or scaled copies if the centres are of extreme magnitude.
    centers : array, float64 [k, d]
        The centres in the scale of the rows.

    Raises
    ------
    InputError
        The centres are not finite, or have another number of features than the rows.
    """
    centers = stored_centers(estimator, rows, centers)
    rows = rows_in_range(estimator, rows, centers)
    return rows, np.ldexp(centers, rows.exponent)


def nearest_rows(estimator: Any, rows: Rows, centers: Any) -> tuple[Rows, Any, Any]:
    """Find the nearest centre of every row, and check the rows.

    Parameters
    ----------
    estimator : KMeans or HierarchicalKMeans
        The estimator. Its parameters say where and how the rows are processed.
    rows : Rows
        The rows [n, d].
    centers : array [k, d]
        Centres that a fit has found or that the user stored in the estimator.

    Returns
    -------
    rows : Rows
        The rows, or scaled copies if the centres are of extreme magnitude.
    labels : array, int32 [n]
        Number of the nearest centre, on the device that processes the rows.
    distances : array, float64 [n]
        Squared distance to this centre in the scale of the user's rows, on the same device.

    Raises
    ------
    InputError
        As for `fitted_rows`, or the rows contain NaN, infinity or values too large.
    """
    rows, centers = fitted_rows(estimator, rows, centers)
    labels, distances = nearest_centers(rows, centers)
    if not all_below(distances, np.inf):
        check_finite(rows)
        check_magnitude(rows)
    return rows, labels, unscaled(distances, -2 * rows.exponent)
