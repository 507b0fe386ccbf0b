"""Write CSV tables that name files, so that other programs can join them by path."""

import csv
import io
import os
from collections.abc import Iterable, Sequence

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
