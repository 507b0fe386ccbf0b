"""The section on the pretext task: examples with texts, and what is said of damaged files."""

import numpy as np
import pytest

from ktfast.durable import write_sealed
from ktfast.pretext.pictures import Example, Panel, Square, packed
from ktfast.report.pretext import pretext_section
from ktfast.report.reading import RunReader
from ktfast.report.summaries import TrainingResult
from support.fake_run import puzzle_arrays, result


@pytest.fixture
def run(tmp_path):
    """A run folder whose stage pretext stored two examples."""
    (tmp_path / "config.toml").write_text("seed = 1\n")
    result(tmp_path, "pretext", 1.0, None, {"psnr": 21.5, "measure": "psnr", "task": "Fill <in>"})
    squares = (Square(1, 2, 3, "a", marked=True),)
    panels = tuple(
        Panel(np.full((side, 9, 3), side, np.uint8), f"side {side}", squares, ((0, 1, 2, 3),))
        for side in (4, 6)
    )
    arrays, texts = packed([Example(panels, "first"), Example(panels, "second")])
    np.savez(tmp_path / "pretext/examples.npz", **arrays)
    about = {"title": "Fill <in>", "lead": "Left.", "legend": {"square": "cut", "other": "x"}}
    write_sealed(tmp_path / "pretext/examples.json", {**about, "examples": texts})
    return tmp_path


def test_examples_are_read_as_they_were_stored(run):
    section = pretext_section(RunReader(run))
    assert (section.title, section.lead, section.legend) == (
        "Fill <in>",
        "Left.",
        {"square": "cut"},
    )
    assert [example.caption for example in section.examples] == ["first", "second"]
    drawing = section.examples[1].drawings[1]
    assert (drawing.width, drawing.height, drawing.panel.alt) == (9, 6, "side 6")
    assert drawing.panel.squares == (Square(1, 2, 3, "a", marked=True),)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("examples.json", b"{"),
        ("examples.json", b"[]"),
        ("examples.npz", b"PK"),
        ("examples.npz", None),
    ],
)
def test_damage_becomes_a_note_or_no_example(run, name, content):
    path = run / "pretext" / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    reader = RunReader(run)
    section = pretext_section(reader)
    assert section.was_run
    assert section.examples == []
    assert len(reader.notes) == (content is not None)


@pytest.mark.parametrize("value", [{}, {"examples": []}, {"examples": [{"panels": [{}]}]}])
def test_texts_of_another_form_become_a_note(run, value):
    write_sealed(run / "pretext/examples.json", value)
    reader = RunReader(run)
    assert pretext_section(reader).examples == []
    assert len(reader.notes) == 1


def test_examples_of_a_version_with_one_task_are_shown(run):
    (run / "pretext/examples.json").unlink()
    np.savez(run / "pretext/examples.npz", **puzzle_arrays(3))
    section = pretext_section(RunReader(run))
    assert section.title == "Jigsaw++"
    assert len(section.examples) == 3
    assert set(section.legend) == {"square", "marked"}


def test_a_measure_that_is_no_accuracy():
    found = TrainingResult.from_json({"psnr": 21.5, "measure": "psnr", "task": "Fill in"})
    assert (found.accuracy, found.measure, found.value) == (None, "psnr", 21.5)
    old = TrainingResult.from_json({"accuracy": 0.5, "chance": 0.1})
    assert (old.task, old.measure, old.value) == ("Jigsaw++", "accuracy", 0.5)
