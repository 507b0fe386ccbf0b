"""The table and the plot of `ktfast bench feed`, what is said beside them, where they are saved."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.patches import Patch

from ktfast.bench.core.figure import INK, OURS, PALE, PEER, figure
from ktfast.bench.core.harness import markdown, save

NAME = "feed"
COLUMNS = ("images from", "feed", "images / CPU-s (range)", "ratio", "images / s", "levels off")
METHOD = """\
CPU-seconds are those of the whole process, all threads together; images / s is by the clock.
Every contestant delivers uint8 squares of the same images, in batches, from the page cache, in
random order; they take turns in every round, after one to warm up. Ratio: images / CPU-s by the
first row's. Levels off: mean difference of the pixels from the first row's (shards hold JPEG files
of the resized images; resampling rounds otherwise in every library). The DataLoader has no worker
processes, whose CPU time would go uncounted, nor their cost. Decoder alone: encoded files in
memory to RGB of full size. Copy alone: memcpy of the squares. Resident: after the first pass."""
_COLORS = {"peer": PEER, "ktfast": OURS, "ceiling": PALE}
_MEANING = {"peer": "training scripts", "ktfast": "ktfast", "ceiling": "a part of the work alone"}


def report(record: dict[str, Any], out: Path) -> None:
    """Print the table, and save it with the measurements and the plot.

    Parameters
    ----------
    record : what was measured; see `ktfast.bench.feed.command`.
    out : folder.
    """
    text = "\n\n".join(_parts(record))
    save(out, NAME, record, text)
    print(text)
    _bars(record, out / NAME)
    print(f"\nsaved in {out}: {', '.join(sorted(path.name for path in out.glob(NAME + '.*')))}")


def _parts(record: dict[str, Any]) -> list[str]:
    stored = ", ".join(
        f"{name} {size / 1e3:.0f} KB" for name, size in record["stored_bytes"].items()
    )
    return [
        "## Feeding images",
        f"{record['images']} images of {record['file_bytes'] / 1e3:.0f} KB ({stored} an image), "
        f"shorter side {record['short_side']} px, squares of {record['size']} px, batches of "
        f"{record['batch']}; decoding threads: {record['threads']}, rounds: {record['repeats']}.\n"
        f"{'; '.join(f'{key} {value}' for key, value in record['machine'].items())}.\n"
        f"Preparing (once): {record['prepare']:,.0f} images / CPU-s.",
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


def _bars(record: dict[str, Any], path: Path) -> None:
    """Images per CPU-second of every row on a logarithmic axis, in the table's order."""
    rows = [row for row in record["rows"] if "problem" not in row][::-1]
    speeds = np.array([row["images_per_cpu_second"] for row in rows])
    least, most = np.array([row["range"] for row in rows]).T
    height = 1.8 + 0.34 * len(rows)  # inches
    with figure(path, height) as axes:
        axes.barh(
            range(len(rows)), speeds, height=0.66, color=[_COLORS[row["role"]] for row in rows],
            xerr=(speeds - least, most - speeds), error_kw={"ecolor": INK, "elinewidth": 1},
        )  # fmt: skip
        for place, row in enumerate(rows):
            axes.annotate(
                f"{row['images_per_cpu_second']:,.0f}  ({row['ratio']:.1f}×)", (most[place], place),
                xytext=(5, 0), textcoords="offset points", va="center", fontsize=9,
                weight="bold" if row["role"] == "ktfast" else "normal",
            )  # fmt: skip
        axes.set_yticks(range(len(rows)), [f"{row['source']}: {row['name']}" for row in rows])
        axes.grid(axis="y", visible=False)
        axes.set_xscale("log")
        axes.set(
            xlim=(speeds.min() / 2, 8 * most.max()),
            xlabel="images per CPU-second (median, range; logarithmic), higher is better",
            title=f"Feeding squares of {record['size']} px, {record['file_bytes'] / 1e3:.0f} KB a "
            "file",
        )
        handles = [Patch(color=_COLORS[role], label=text) for role, text in _MEANING.items()]
        axes.legend(
            handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.75 / height), ncols=3
        )
