"""The results of a session on a GPU, as JSON and as Markdown tables; session.py writes them."""

import dataclasses
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]


@dataclasses.dataclass
class Section:
    """The results of one part of the session."""

    name: str
    problem: str = ""  # empty if the part ran to its end
    rows: list[Row] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    ends: float = 0.0

    def left(self) -> float:
        """Seconds until the section's time is up."""
        return self.ends - time.monotonic()

    def failed(self) -> bool:
        return bool(self.problem) or any(map(row_failed, self.rows))


def row_failed(row: Row) -> bool:
    """Whether a row holds an error, a difference, or a planted bug that was not found."""
    if any(row.get(name) for name in ("error", "failed", "errors", "wrong")):
        return True
    if any(row.get(name) is False for name in ("same_again", "found")):
        return True
    return any(row.get(name, 1) < 1 for name in ("equal", "equal_distances"))


def add_shares(sections: list[Section]) -> None:
    """Add to every rate its share of the measured peak rate.

    The peak of bytes is a copy in the device's memory. The peak of operations is the matrix product
    that the row names in "peak".
    """
    rows = [row for section in sections for row in section.rows]
    ceilings = {row.get("engine"): row for row in rows if row.get("section") == "ceilings"}
    for row in rows:
        if row.get("section") == "ceilings":
            continue
        for rate, ceiling, share in (
            ("gb_per_s", "copy", "of_copy"),
            ("tflop_per_s", row.get("peak"), "of_peak"),
        ):
            peak = ceilings.get(ceiling, {}).get(rate)
            if peak and rate in row:
                row[share] = row[rate] / peak


def json_rows(output: str) -> Iterator[Row]:
    """The rows that measure.py printed, one line of JSON each."""
    for line in output.splitlines():
        if line.startswith('{"section"') and line.endswith("}"):
            yield json.loads(line)


def text_of(value: Any, column: str = "") -> str:
    """A cell: inertias have ten digits, because they are compared; other numbers have four."""
    if isinstance(value, float) and "inertia" in column:
        value = f"{value:.10g}"
    elif isinstance(value, float):
        value = f"{value:,.0f}" if 1e4 <= abs(value) < 1e9 else f"{value:.4g}"
    return "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")


def table(rows: list[Row]) -> Iterator[str]:
    """Rows as a Markdown table with a column for every key that occurs."""
    columns = list(dict.fromkeys(key for row in rows for key in row if key != "section"))
    yield "| " + " | ".join(name.replace("_", " ") for name in columns) + " |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield "| " + " | ".join(text_of(row.get(name), name) for name in columns) + " |"


def markdown(facts: dict[str, Any], sections: list[Section]) -> Iterator[str]:
    yield f"# ktfast on {facts['device']}\n"
    yield from (f"- {name}: {value}" for name, value in facts.items())
    yield "\n## Sections\n"
    yield from table(
        [
            {
                "part": section.name,
                "result": "failed" if section.failed() else "ok",
                "seconds": section.seconds,
                "problem": section.problem,
            }
            for section in sections
        ]
    )
    groups: dict[str, list[Row]] = {}
    for section in sections:
        for row in section.rows:
            groups.setdefault(row.get("section", section.name), []).append(row)
    for name, rows in groups.items():
        yield f"\n## {name}\n"
        yield from table(rows)


def write_results(out: Path, facts: dict[str, Any], sections: list[Section]) -> None:
    """Write both files. Each file is replaced at once, so that a stop leaves no half of it."""
    add_shares(sections)
    found = [
        {
            "name": section.name,
            "seconds": round(section.seconds, 1),
            "problem": section.problem,
            "failed": section.failed(),
            "rows": section.rows,
        }
        for section in sections
    ]
    for name, text in (
        ("gpu_session.json", json.dumps({"facts": facts, "sections": found}, indent=1)),
        ("gpu_session.md", "\n".join(markdown(facts, sections))),
    ):
        partial = out / (name + ".part")
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(out / name)
