"""The table and the plot of `ktfast bench feed`, and the sentences beside them."""

from pathlib import Path
from typing import Any

from ktfast.bench.core.figure import OURS, PALE, PEER, Bar, bars
from ktfast.bench.core.table import Spread, facts_line, markdown, publish

NAME = "feed"
COLUMNS = ("images from", "feed", "images / CPU-s (range)", "ratio", "images / s", "levels off")
METHOD = """\
Every contestant delivers uint8 squares of the same images, in batches and in random order, from
files in the page cache. The contestants take turns in every round, after one round that warms up.
CPU-seconds are those of all threads of the process; images / s counts wall-clock time. Ratio is
images / CPU-s divided by the first row's. Levels off is the mean difference of the pixels from the
first row's: shards hold JPEG files of the resized images, and every library rounds differently when
it resizes. The torch feed decodes large JPEG files at reduced size. The DataLoader runs without
worker processes, because their CPU time would not be counted. A decoder alone turns encoded files
in memory into RGB images of full size. The copy alone is a memcpy of the squares. The resident feed
is measured after its first pass."""
_COLORS = {"peer": PEER, "ktfast": OURS, "ceiling": PALE}
_MEANING = {PEER: "training scripts", OURS: "ktfast", PALE: "a part of the work alone"}


def report(record: dict[str, Any], out: Path) -> None:
    """Print the table, and save it with the measurements and the plot.

    Parameters
    ----------
    record : dict
        The measurement, from `ktfast.bench.feed.command`.
    out : Path
        Folder that receives the files.
    """
    publish(out, NAME, record, "\n\n".join(_parts(record)), lambda path: _draw(record, path))


def _parts(record: dict[str, Any]) -> list[str]:
    stored = ", ".join(
        f"{name} {size / 1e3:.0f} KB" for name, size in record["stored_bytes"].items()
    )
    return [
        "## Feeding images",
        f"{record['images']} images of {record['file_bytes'] / 1e3:.0f} KB ({stored} an image), "
        f"shorter side {record['short_side']} px, squares of {record['size']} px, batches of "
        f"{record['batch']}; decoding threads: {record['threads']}, rounds: {record['repeats']}.\n"
        f"{facts_line(record['machine'])}\n"
        f"Preparing the shards, once: {record['prepare']:,.0f} images / CPU-s.",
        markdown(COLUMNS, [_cells(row) for row in record["rows"]]),
        METHOD,
        f"Command: `{record['command']}`, {record['date']}.",
    ]


def _cells(row: dict[str, Any]) -> list[str]:
    head = [row["source"], row["name"]]
    if "problem" in row:
        return [*head, row["problem"], "-", "-", "-"]
    least, most = row["range"]
    off = row["difference"]
    return [
        *head,
        f"{row['images_per_cpu_second']:,.0f} ({least:,.0f}-{most:,.0f})",
        f"{row['ratio']:.1f}",
        f"{row['images_per_second']:,.0f}",
        "-" if off is None else f"{off:.2f}",
    ]


def _draw(record: dict[str, Any], path: Path) -> None:
    """Images per CPU-second of every row, in the table's order."""
    rows = [
        Bar(
            f"{row['source']}: {row['name']}",
            Spread(row["images_per_cpu_second"], *row["range"]),
            f"{row['images_per_cpu_second']:,.0f}  ({row['ratio']:.1f}×)",
            _COLORS[row["role"]],
            row["role"] == "ktfast",
        )
        for row in record["rows"]
        if "problem" not in row
    ]
    bars(
        path,
        rows,
        title=f"Feeding squares of {record['size']} px, {record['file_bytes'] / 1e3:.0f} KB a file",
        xlabel="images per CPU-second (median, range; logarithmic), higher is better",
        legend=_MEANING,
        logarithmic=True,
    )
