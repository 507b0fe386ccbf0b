"""The table and the plot of `ktfast bench train`, and the sentences beside them."""

from pathlib import Path
from typing import Any

from ktfast.bench.core.table import Spread, facts_line, markdown, publish

NAME = "train"
COLUMNS = (
    "job", "side", "precision", "images / s", "ratio", "images / CPU-s", "CPU ratio",
    "share of peak", "peak memory",
)  # fmt: skip
METHOD = """\
The plain side is eager float32 NCHW with torchvision's and torch's layers; Pillow decodes the
original files in a DataLoader with one worker per thread. ktfast's side is its own training loop or
extraction from prepared shards, with every option on auto. Both sides do the same number of
operations per image; the benchmark counts the operations. Each side runs in a process of its own,
and the sides take turns. Figures are medians over the rounds with ranges in brackets. A round's
ratio divides ktfast's rate by the plain side's rate in the same round. CPU-seconds are those of all
threads and workers; other work on the machine changes CPU-seconds less than seconds. Share of peak
is the operations of products and convolutions per CPU-second (on a GPU per second), divided by
those of a large matrix product in the same precision, the best of all processes. Peak memory is
that of the process with its libraries and without workers; on a GPU it is what torch allocated."""


def report(record: dict[str, Any], out: Path) -> None:
    """Print the table, and save it with the measurements and the plot.

    Parameters
    ----------
    record : dict
        The measurement, from `ktfast.bench.train.command.measure`.
    out : Path
        Folder that receives the files.
    """
    publish(out, NAME, record, text(record), lambda path: _draw(record, path))


def text(record: dict[str, Any]) -> str:
    """The table in GitHub's Markdown, and the sentences beside it."""
    kind = "generated images" if record["generated"] else "images"
    return "\n\n".join(
        [
            "## Training and extraction",
            f"{record['images']} {kind} of {record['file_bytes'] / 1e3:.0f} KB; device "
            f"{record['device']}, threads: {record['threads']}, rounds: {record['rounds']}.\n"
            f"{facts_line(record['machine'])}",
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
    """How the row was measured, and the ratio that ktfast would have at the machine's peak."""
    bounds = f"; {row['bounds']}" if row["bounds"] else ""
    if row["side"] == "ktfast" and "cpu_ratio" in row:
        most = Spread(*row["cpu_ratio"]).median / row["share_of_peak"]
        bounds += f"; at the full peak the ratio of images / CPU-s would be {most:.2f}"
    return (
        f"- {row['job']}, {row['side']}: batches of {row['batch']}, "
        f"steps timed in each: {row['steps']}, "
        f"{row['image_gflops']:.2f} GFLOP an image, peak {row['peak_tflops']:.3f} TFLOP/s, network "
        f"run {row['way']}, images from {row['feed']}{bounds}"
    )


def _draw(record: dict[str, Any], path: Path) -> None:
    """Images per second of every row, in the table's order."""
    # Here, because figures can be had without matplotlib.
    from ktfast.bench.core.figure import OURS, PEER, Bar, bars

    def bar(row: dict[str, Any]) -> Bar:
        speed, ours = Spread(*row["images_per_second"]), row["side"] == "ktfast"
        ratio = f"  ({Spread(*row['ratio']).median:.2f}×)" if "ratio" in row else ""
        label = f"{row['job']}: {row['side']}"
        return Bar(label, speed, f"{speed.median:,.3g}{ratio}", OURS if ours else PEER, ours)

    bars(
        path,
        [bar(row) for row in record["rows"] if "problem" not in row],
        title=f"Training and extraction, {record['device']}, threads: {record['threads']}",
        xlabel="images per second (median, range; logarithmic), higher is better",
        legend={PEER: "plain script", OURS: "ktfast"},
        logarithmic=True,
    )
