"""The kernels under compute-sanitizer's memcheck, which reports accesses out of bounds.

memcheck must also find a planted bug: otherwise a clean report proves nothing.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from results import Row

SOURCE = Path(__file__).with_name("planted_bug.cu")
PLANTED_KERNEL = "out_of_bounds_kernel"
OURS = "ktfast::"  # part of the name of every kernel of ktfast

_SUMMARY = re.compile(r"=+ ERROR SUMMARY: (.*)")
_ERRORS = re.compile(r"(\d+) errors?\b")
_FINDING = re.compile(r"=+ (?:Invalid|Misaligned|Error: |Warp|Illegal)")


class Report(NamedTuple):
    """What memcheck found in a program."""

    summary: str
    """The last line of the report; empty if memcheck did not reach it."""
    errors: int
    """Number of errors by memcheck's own count."""
    findings: list[str]
    """The printed findings with their places."""

    def naming(self, name: str) -> int:
        """The number of findings that name a kernel."""
        return sum(name in finding for finding in self.findings)


def command_of(tool: str, program: list[str]) -> list[str]:
    """The command that runs a program under memcheck; exit status 9 means a finding."""
    options = ["--tool", "memcheck", "--error-exitcode", "9", "--print-limit", "0"]
    # torch makes calls to the driver that it expects to fail.
    options += ["--show-backtrace", "no", "--report-api-errors", "no"]
    return [tool, *options, *program]


def read_report(output: str) -> Report:
    """The report in the output of a program that ran under memcheck."""
    summaries = _SUMMARY.findall(output)
    summary = summaries[-1].strip() if summaries else ""
    errors = _ERRORS.findall(summary)
    return Report(summary, int(errors[0]) if errors else 0, list(_findings(output)))


def _findings(output: str) -> Iterator[str]:
    finding: list[str] = []
    for line in output.splitlines():
        if not line.startswith("===="):
            continue
        if not re.match(r"=+ {4,}", line):  # indented lines continue a finding
            if finding:
                yield "\n".join(finding)
            finding = [line] if _FINDING.match(line) else []
        elif finding:
            finding.append(line)
    if finding:
        yield "\n".join(finding)


def planted_row(output: str, problem: str) -> Row:
    """Whether memcheck found the planted bug."""
    report = read_report(output)
    found = report.errors > 0 and report.naming(PLANTED_KERNEL) > 0
    return {"of": "planted bug", "found": found} | {
        "summary": report.summary or f"no summary; {problem}"
    }


def kernels_row(cases: int, output: str, problem: str) -> Row:
    """What memcheck found in the small comparisons."""
    report = read_report(output)
    row: Row = {"of": "small comparisons", "cases": cases, "errors": report.errors}
    row["summary"] = report.summary
    if not report.summary:
        row["error"] = problem or "memcheck printed no summary"
    elif report.errors or problem:
        row["error"] = next((f for f in report.findings if OURS in f), problem)
    return row
