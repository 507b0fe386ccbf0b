"""The script that sets the tiny grids beside the paper's tables: its verdicts and its tables."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "paper_tables.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("paper_tables", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Made:
    """Accuracies by name of the row, in % by seed."""

    def __init__(self, **rows):
        self.rows = rows

    def values(self, row, measure, layer, images=""):
        return self.rows.get(row.run, {})


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        ((40, 41, 42), (30, 31, 33), "as in the paper"),
        ((30, 31, 33), (40, 41, 42), "**opposite**"),
        ((30, 41, 33), (40, 31, 32), "not decided"),
        ((40,), (30,), "+10.0, one seed: not decided"),
        ((40,), (), "–"),
    ],
)
def test_a_verdict_needs_an_interval_without_zero(script, ours, theirs, words):
    rows = script.Row("a", "first"), script.Row("b", "second")
    runs = Made(first=dict(enumerate(ours)), second=dict(enumerate(theirs)))
    assert words in script._verdict(runs, *rows, "linear")


def test_every_table_has_the_width_of_its_heading(script):
    lines = list(script.tables(Made(**{"hog-student-k200": {0: 12.0, 1: 14.0}})))
    table = []
    for line in [*lines, ""]:
        if line.startswith("|"):
            table.append(line.count("|"))
        else:
            assert len(set(table)) <= 1
            table = []
    assert any("| CC+HOG | 2 | 13.0 ± 1.4 |" in line and "16.8 27.4" in line for line in lines)
