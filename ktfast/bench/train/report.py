"""The table and the plot of `ktfast bench train`, what is said beside them, where they go."""

from pathlib import Path
from typing import Any

import numpy as np

from ktfast.bench.core.harness import Spread, markdown, save

NAME = "train"
COLUMNS = (
    "job", "side", "precision", "images / s", "ratio", "images / CPU-s", "ratio of these",
    "share of peak", "peak memory",
)  # fmt: skip
METHOD = """\
Plain: eager float32 NCHW, torchvision's and torch's layers, Pillow in a DataLoader with as many
workers as threads, original files. ktfast: its own training loop or extraction, prepared shards,
everything on auto. Both do the same operations an image (counted), in processes of their own, in
turns; medians over the rounds, ranges in brackets; each round's ratio is to the plain side's turn.
CPU-seconds are those of all threads and workers, which other work on the machine changes less.
Share of peak: operations of products and convolutions a CPU-second (on a GPU a second), by those of
a large matrix product in the same precision, the best of all processes. Peak memory: on a CPU the
process with its libraries, without workers; on a GPU what torch allocated."""
_MEANING = {"plain": "plain script", "ktfast": "ktfast"}


def report(record: dict[str, Any], out: Path) -> None:
    """Print the table, and save it with the measurements and the plot.

    Parameters
    ----------
    record : what was measured; see `ktfast.bench.train.command.measure`.
    out : folder.
    """
    found = text(record)
    save(out, NAME, record, found)
    print(found)
    _bars(record, out / NAME)
    print(f"\nsaved in {out}: {', '.join(sorted(path.name for path in out.glob(NAME + '.*')))}")


def text(record: dict[str, Any]) -> str:
    """The table in GitHub's markdown, and what belongs beside it."""
    kind = "generated images" if record["generated"] else "images"
    return "\n\n".join(
        [
            "## Training and extraction",
            f"{record['images']} {kind} of {record['file_bytes'] / 1e3:.0f} KB; device "
            f"{record['device']}, threads: {record['threads']}, rounds: {record['rounds']}.\n"
            f"{'; '.join(f'{key} {value}' for key, value in record['machine'].items())}.",
            markdown(COLUMNS, [_cells(row) for row in record["rows"]]),
            "\n".join(_details(row) for row in record["rows"] if "problem" not in row),
            METHOD,
            f"Command: `{record['command']}`, {record['date']}.",
        ]
    )


def _cells(row: dict[str, Any]) -> list[str]:
    head = [row["job"], row["side"]]
    if "problem" in row:
        return [*head, row["problem"], *["-"] * (len(COLUMNS) - 3)]
    ratio, cpu_ratio = (
        Spread(*row[key]).text(2) if key in row else "-" for key in ("ratio", "cpu_ratio")
    )
    return [
        *head,
        row["precision"],
        _speed(row["images_per_second"]),
        ratio,
        _speed(row["images_per_cpu_second"]),
        cpu_ratio,
        f"{row['share_of_peak']:.0%}",
        f"{row['peak_gigabytes']:.1f} GB",
    ]


def _speed(values: Any) -> str:
    speed = Spread(*values)
    return speed.text(0 if speed.median >= 100 else 1 if speed.median >= 10 else 2)


def _details(row: dict[str, Any]) -> str:
    """How the row was measured, and what it could be compared with the plain side at most."""
    bounds = f"; {row['bounds']}" if row["bounds"] else ""
    if row["side"] == "ktfast" and "cpu_ratio" in row:
        most = Spread(*row["cpu_ratio"]).median / row["share_of_peak"]
        bounds += f"; at the whole peak the ratio of images / CPU-s would be {most:.2f}"
    return (
        f"- {row['job']}, {row['side']}: batches of {row['batch']}, "
        f"steps timed in each: {row['steps']}, "
        f"{row['image_gflops']:.2f} GFLOP an image, peak {row['peak_tflops']:.3f} TFLOP/s, run "
        f"{row['way']}, images from {row['feed']}{bounds}"
    )


def _bars(record: dict[str, Any], path: Path) -> None:
    """Images per second of every row on a logarithmic axis, in the table's order."""
    # Here, so that figures can be had where there is no matplotlib.
    from matplotlib.patches import Patch

    from ktfast.bench.core.figure import INK, OURS, PEER, figure

    rows = [row for row in record["rows"] if "problem" not in row][::-1]
    if not rows:
        return
    colors = {"plain": PEER, "ktfast": OURS}
    speeds, least, most = np.array([row["images_per_second"] for row in rows]).T
    height = 1.8 + 0.4 * len(rows)  # inches
    with figure(path, height) as axes:
        axes.barh(
            range(len(rows)), speeds, height=0.66, color=[colors[row["side"]] for row in rows],
            xerr=(speeds - least, most - speeds), error_kw={"ecolor": INK, "elinewidth": 1},
        )  # fmt: skip
        for place, row in enumerate(rows):
            ratio = f"  ({Spread(*row['ratio']).median:.2f}×)" if "ratio" in row else ""
            axes.annotate(
                f"{speeds[place]:,.3g}{ratio}", (most[place], place),
                xytext=(5, 0), textcoords="offset points", va="center", fontsize=9,
                weight="bold" if row["side"] == "ktfast" else "normal",
            )  # fmt: skip
        axes.set_yticks(range(len(rows)), [f"{row['job']}: {row['side']}" for row in rows])
        axes.grid(axis="y", visible=False)
        axes.set_xscale("log")
        axes.set(
            xlim=(speeds.min() / 2, 8 * most.max()),
            xlabel="images per second (median, range; logarithmic), higher is better",
            title=f"Training and extraction, {record['device']}, threads: {record['threads']}",
        )
        handles = [Patch(color=colors[side], label=name) for side, name in _MEANING.items()]
        axes.legend(
            handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.75 / height), ncols=2
        )
