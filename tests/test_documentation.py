"""The pages name files that exist, and the README stays short."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PLACE = re.compile(r"`((?:ktfast|csrc|tests|benchmarks|docs|examples|\.ci)/[\w./-]*)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_files_exist(page):
    named = set(PLACE.findall(page.read_text(encoding="utf-8")))
    assert {place for place in named if not (ROOT / place).exists()} == set()


def test_the_readme_is_short():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 150
    assert max(len(line) for line in lines if not line.startswith("|")) <= 120
