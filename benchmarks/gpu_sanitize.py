"""The kernels under compute-sanitizer, and bugs planted to prove that it would report them.

memcheck   accesses out of bounds            racecheck  unordered accesses to shared memory
initcheck  reads of what nobody wrote        synccheck  barriers that some threads do not reach
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gpu_results import Row

PLANTED = {
    "memcheck": "out_of_bounds",
    "racecheck": "race",
    "initcheck": "uninitialised",
    "synccheck": "divergent_barrier",
}
SOURCE = Path(__file__).with_name("planted_bugs.cu")
OURS = "ktfast::"  # stands in the name of every kernel of ours

_SUMMARY = re.compile(r"=+ (?:ERROR|RACECHECK) SUMMARY: (.*)")
_ERRORS = re.compile(r"(\d+) errors?\b")
_FINDING = re.compile(
    r"=+ (?:Invalid|Misaligned|Uninitialized|Barrier error|Error: |Race reported|Warp|Illegal)"
)


class Report(NamedTuple):
    """What a tool found."""

    summary: str
    """Its last line; empty if it did not come that far."""
    errors: int
    """By its own count."""
    findings: list[str]
    """Each with where it happened, as far as they were printed."""

    def naming(self, name: str) -> int:
        """How many findings name a kernel."""
        return sum(name in finding for finding in self.findings)


def command_of(tool: str, check: str, program: list[str]) -> list[str]:
    """The command that runs a program under a check; exit status 9: it found something."""
    options = ["--tool", check, "--error-exitcode", "9", "--print-limit", "0"]
    options += ["--show-backtrace", "no"]
    # torch asks the driver questions that it expects to fail.
    options += ["--report-api-errors", "no"] if check == "memcheck" else []
    return [tool, *options, *program]


def read_report(output: str) -> Report:
    """What stands in the output of a program that ran under a check."""
    summaries = _SUMMARY.findall(output)
    summary = summaries[-1].strip() if summaries else ""
    errors = _ERRORS.findall(summary)
    return Report(summary, int(errors[0]) if errors else 0, list(_findings(output)))


def _findings(output: str) -> Iterator[str]:
    finding: list[str] = []
    for line in output.splitlines():
        if not line.startswith("===="):
            continue
        if not re.match(r"=+ {4,}", line):  # not the continuation of a finding
            if finding:
                yield "\n".join(finding)
            finding = [line] if _FINDING.match(line) else []
        elif finding:
            finding.append(line)
    if finding:
        yield "\n".join(finding)


def planted_row(check: str, output: str, problem: str) -> Row:
    """Whether a check found the bug that was planted for it."""
    report = read_report(output)
    kernel = f"{PLANTED[check]}_kernel"
    found = report.errors > 0 and report.naming(kernel) > 0
    row: Row = {"check": check, "of": f"planted bug: {PLANTED[check]}", "found": found}
    row["summary"] = report.summary or f"no summary; {problem}"
    return row


def kernels_row(check: str, cases: int, output: str, problem: str) -> Row:
    """What a check found in ktfast's kernels.

    torch's own kernels may read memory that nobody wrote, and discard it: of initcheck's findings
    those in ktfast's kernels count as errors.
    """
    report = read_report(output)
    ours = report.naming(OURS)
    errors = ours if check == "initcheck" else report.errors
    row: Row = {"check": check, "of": "small comparisons", "cases": cases, "errors": errors}
    row |= {"elsewhere": report.errors - errors, "summary": report.summary}
    if not report.summary:
        row["error"] = problem or "the tool printed no summary"
    elif errors or (problem and not report.errors):
        row["error"] = next((f for f in report.findings if OURS in f), problem)
    return row
