"""What pyproject.toml and the workflows promise about the packages."""

import re
import sys
from pathlib import Path

import pytest

import ktfast

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
SECTIONS = ("Added", "Changed", "Fixed", "Performance")  # of a version in CHANGELOG.md
RELATIVE_LINK = re.compile(r"\]\((?!https?://)[^)]*\)")


def names(requirements):
    """The names of the packages, without versions and conditions."""
    return {re.match(r"[\w.-]+(\[[\w,-]+\])?", text)[0] for text in requirements}


def test_the_version_stands_in_one_place():
    assert "version" in PROJECT["dynamic"]
    [entry] = [e for e in PYPROJECT["tool"]["dynamic-metadata"] if e.get("field") == "version"]
    text = (ROOT / entry["input"]).read_text(encoding="utf-8")
    assert re.findall(r'^__version__ = "(.*)"$', text, re.MULTILINE) == [ktfast.__version__]


def test_the_page_of_a_package_index_has_no_relative_link():
    """Links to files of the checkout would lead nowhere there."""
    hook = PYPROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]
    readme = (ROOT / hook["fragments"][0]["path"]).read_text(encoding="utf-8")
    page = readme + "".join(fragment["text"] for fragment in hook["fragments"][1:])
    assert RELATIVE_LINK.search(page)
    for substitution in hook["substitutions"]:
        page = re.sub(substitution["pattern"], substitution["replacement"], page)
    assert RELATIVE_LINK.findall(page) == []
    assert "![" not in page
    assert page.count("](http") == readme.count("](http") > 0
    assert "On a GPU" in page  # the text of a link stays
    assert "source distribution contains the pages" in page  # where the linked pages are


def test_every_python_of_the_wheels_is_promised():
    built = re.findall(r"cp3(\d+)-", PYPROJECT["tool"]["cibuildwheel"]["build"])
    promised = [
        found[1]
        for text in PROJECT["classifiers"]
        if (found := re.fullmatch(r"Programming Language :: Python :: 3\.(\d+)", text))
    ]
    assert built == promised
    assert PROJECT["requires-python"] == f">=3.{min(map(int, built))}"


def test_free_threading_is_declared_by_wheels_classifier_and_modules():
    assert re.search(r"cp3\d+t-", PYPROJECT["tool"]["cibuildwheel"]["build"])
    assert any("Free Threading" in text for text in PROJECT["classifiers"])
    for module in ("cpu", "cuda"):
        source = ROOT / f"csrc/bindings/bind_{module}.cpp"
        assert "py::mod_gil_not_used()" in source.read_text(encoding="utf-8")


def test_the_changelog_describes_the_version_in_four_sections():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert any(part.startswith(f"[{ktfast.__version__}] - ") for part in versions)
    for part in versions:
        sections = re.findall(r"^### (.*)$", part, re.MULTILINE)
        assert sections == [name for name in SECTIONS if name in sections]
        assert not re.search(r"^####", part, re.MULTILINE)


def test_the_light_extra_is_the_whole_one_without_dali():
    assert "ktfast[train-cpu]" in names(EXTRAS["train"])
    assert names(EXTRAS["train"]) - names(EXTRAS["train-cpu"]) == {
        "ktfast[train-cpu]",
        "nvidia-dali-cuda130",
    }
    assert not any("nvidia" in name or "cu13" in name for name in names(EXTRAS["train-cpu"]))


def test_the_workflows_call_scripts_that_exist():
    folder = ROOT / ".github" / "workflows"
    if not folder.exists():
        pytest.skip("a source distribution has no workflows")
    assert "bash .ci/run" in (folder / "gate.yml").read_text(encoding="utf-8")
    assert (ROOT / ".ci" / "run").exists()
    check = PYPROJECT["tool"]["cibuildwheel"]["test-command"].removeprefix("python {project}/")
    assert (ROOT / check).exists()
    assert "cibuildwheel" in (folder / "wheels.yml").read_text(encoding="utf-8")
