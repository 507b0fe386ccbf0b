"""The profile of ktfast's kernels by Nsight Compute (ncu): the command, and the report as rows."""

import csv
import re
import statistics
from collections.abc import Iterator

from results import Row

SECTIONS = ("SpeedOfLight", "Occupancy", "LaunchStats")
LAUNCHES = 150  # largest number of profiled launches
# Columns of the metrics in the report; the launches of a kernel are averaged.
METRICS = {
    "Duration": "duration",
    "Compute (SM) Throughput": "compute_percent",
    "Memory Throughput": "memory_percent",
    "DRAM Throughput": "dram_percent",
    "L2 Cache Throughput": "l2_percent",
    "Achieved Occupancy": "occupancy_percent",
    "Theoretical Occupancy": "possible_percent",
    "Registers Per Thread": "registers",
    "Dynamic Shared Memory Per Block": "shared",
    "Grid Size": "blocks",
}


def command_of(tool: str, program: list[str]) -> list[str]:
    """The command that profiles ktfast's kernels in a program."""
    options = ["--csv", "--page", "details", "--launch-count", str(LAUNCHES)]
    # Without this option ncu locks the GPU's clocks for the length of the profile.
    options += ["--clock-control", "none"]
    options += ["--profile-from-start", "off"]  # the program starts the profile when it is warm
    options += ["--kernel-name-base", "demangled", "--kernel-name", "regex:ktfast::"]
    for name in SECTIONS:
        options += ["--section", name]
    return [tool, *options, *program]


def rows(output: str) -> Iterator[Row]:
    """One row per kernel from the output of ncu."""
    lines = output.splitlines()
    starts = [place for place, line in enumerate(lines) if line.startswith('"ID"')]
    if not starts:
        return
    kernels: dict[str, dict[str, list[tuple[float, str]]]] = {}
    launches: dict[str, set[str]] = {}
    for entry in csv.DictReader(line for line in lines[starts[0] :] if line.startswith('"')):
        name = short(entry["Kernel Name"])
        launches.setdefault(name, set()).add(entry["ID"])
        if (metric := entry["Metric Name"]) in METRICS:
            value = float(entry["Metric Value"].replace(",", ""))
            found = kernels.setdefault(name, {}).setdefault(METRICS[metric], [])
            found.append((value, entry["Metric Unit"]))
    for name, metrics in kernels.items():
        row: Row = {"kernel": name, "launches": len(launches[name])}
        for column, values in metrics.items():
            unit = values[0][1]
            suffix = f"_{unit.partition('/')[0]}" if column in ("duration", "shared") else ""
            row[column + suffix] = statistics.mean(value for value, _ in values)
        yield row


def short(declaration: str) -> str:
    """A kernel's name without return type, namespaces and arguments."""
    text = re.sub(r"(<unnamed>|\(anonymous namespace\))::", "", declaration)
    match = re.search(r"(\w+)(<.*>)?\(", text)
    return match[1] + re.sub(r"\b\w+::", "", match[2] or "") if match else text
