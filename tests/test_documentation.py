"""The pages name files and command lines that exist, and the README stays short."""

import re
import shlex
from pathlib import Path

import pytest

from ktfast.cli.options import overrides, parse
from ktfast.config import load_config

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
PLACE = re.compile(r"`((?:ktfast|csrc|tests|benchmarks|docs|examples|\.ci)/[\w./-]*)`")

BLOCK = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"(?:^|[ /])ktfast ([^;&|>]+)")
PLACEHOLDERS = {"K": "8"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_files_exist(page):
    named = set(PLACE.findall(page.read_text(encoding="utf-8")))
    assert {place for place in named if not (ROOT / place).exists()} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_are_understood(page):
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            for command in COMMAND.findall(line.partition("  #")[0]):
                words = shlex.split(command.replace("$s", "0"), comments=True)
                options = parse([PLACEHOLDERS.get(word, word) for word in words])
                if hasattr(options, "config"):
                    recipe = options.config if options.config == Path("tiny_cpu") else None
                    load_config(recipe, overrides(options))


def test_the_readme_is_short():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) < 150
    assert max(len(line) for line in lines if not line.startswith("|")) <= 120
