"""Write CSV tables that name files, so that other programs can join them by path."""

import csv
import io
import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ktfast.durable import replacing


def write_csv(
    path: str | os.PathLike[str], columns: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """Write a CSV table with a header line, completely or not at all.

    The table is UTF-8. A file name keeps its bytes also if they are not UTF-8: read the table with
    ``errors="surrogateescape"`` (in pandas ``encoding_errors="surrogateescape"``), and each name is
    the name that `os.listdir` gives.

    Parameters
    ----------
    path : path
        The table.
    columns : sequence of str
        Names of the columns.
    rows : iterable of sequence
        The values of each row.
    """
    with replacing(path) as file:
        text = io.TextIOWrapper(file, "utf-8", "surrogateescape", newline="")
        plain = csv.writer(text, lineterminator="\n")
        quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
        plain.writerow(columns)
        for row in rows:
            # Before Python 3.13, the plain writer does not quote a name with a carriage return.
            has_return = any(isinstance(value, str) and "\r" in value for value in row)
            (quoted if has_return else plain).writerow(row)
        text.flush()
        text.detach()


def write_assignments(
    path: str | os.PathLike[str],
    paths: Iterable[str],
    clusters: npt.NDArray[np.integer[Any]],
    squared_distances: npt.NDArray[np.floating[Any]],
) -> None:
    """Write the cluster of each image as a CSV table with the columns path, cluster and distance.

    Parameters
    ----------
    path : path
        The table.
    paths : iterable of str
        Path of each image.
    clusters : array, int [n]
        Cluster of each image.
    squared_distances : array, float [n]
        Squared distance of each image's features to the centre of its cluster. The table holds the
        square root.
    """
    distances = (f"{distance:.9g}" for distance in np.sqrt(np.maximum(squared_distances, 0)))
    rows = zip(paths, clusters.tolist(), distances, strict=True)
    write_csv(path, ("path", "cluster", "distance"), rows)
