"""`ktfast bench feed` on a few photographs: the same pictures from all, every row measured."""

import importlib.util
import json

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torchvision")
pytest.importorskip("matplotlib")

from ktfast.bench.feed import command as feed
from ktfast.bench.feed import rows as feed_rows
from ktfast.bench.feed.report import COLUMNS
from ktfast.cli.main import main
from ktfast.errors import DataError, InputError

HAS_DALI = importlib.util.find_spec("nvidia") is not None and feed_rows.has_dali()


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for i, (height, width) in enumerate([(60, 90), (101, 75), (64, 64), (77, 130), (90, 61)]):
        coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8))
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(folder / f"{i}.jpg")
    return folder


def run(folder, out, *more):
    options = ["--size", "40", "--short-side", "48", "--batch", "2", "--repeats", "2"]
    return main(["bench", "feed", str(folder), "--out", str(out), *options, *more])


@pytest.fixture(scope="module")
def outcome(photographs, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    assert run(photographs, out) == 0
    return out


def test_every_row_is_measured(outcome):
    record = json.loads((outcome / "feed.json").read_text())
    rows = {(row["source"], row["name"]): row for row in record["rows"]}
    feeds = {("files", "ktfast, torch"), ("shards", "ktfast, torch"), ("memory", "copy alone")}
    peers = {("files", "DataLoader, PIL"), ("files", "DataLoader, torchvision v2")}
    assert feeds | peers | {("raw shards", "ktfast, torch"), ("memory", "ktfast, resident")} <= {
        *rows
    }
    for place in ("files", "shards"):
        assert (place, "decoder alone, Pillow") in rows
        assert ("problem" not in rows[place, "ktfast, DALI"]) == HAS_DALI
    measured = [row for row in rows.values() if "problem" not in row]
    for row in measured:
        least, most = row["range"]
        assert 0 < least <= row["images_per_cpu_second"] <= most
    assert record["images"] == 5
    assert record["rows"][0]["ratio"] == 1
    off = {key: row["difference"] for key, row in rows.items() if row.get("difference") is not None}
    assert off.pop(("files", "DataLoader, PIL")) == 0
    assert max(value for (place, _), value in off.items() if place == "files") < 0.5


def test_the_table_and_the_plot_are_saved(outcome):
    text = (outcome / "feed.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert table[0] == list(COLUMNS)
    assert all(len(cells) == len(COLUMNS) for cells in table)
    assert "5 images of" in text
    assert "ktfast bench feed" in text or "Command: `ktfast" in text
    assert {path.suffix for path in outcome.iterdir()} == {".json", ".md", ".png", ".svg"}


def test_a_missing_library_is_a_row(photographs, tmp_path, monkeypatch):
    monkeypatch.setattr(feed_rows, "has_dali", lambda: False)
    assert run(photographs, tmp_path, "--images", "3") == 0
    record = json.loads((tmp_path / "feed.json").read_text())
    missing = [row for row in record["rows"] if "problem" in row]
    assert {row["problem"] for row in missing} == {"missing: pip install nvidia-dali-cuda130"}
    assert len(missing) == 4
    assert record["images"] == 3
    assert "| missing: pip install" in (tmp_path / "feed.md").read_text()


def test_other_pictures_are_no_comparison(photographs, tmp_path, monkeypatch):
    """A crop that is one pixel off is noticed."""
    cut = feed_rows.functional.crop
    monkeypatch.setattr(
        feed_rows.functional, "crop", lambda image, top, *rest: cut(image, top + 1, *rest)
    )
    with pytest.raises(DataError, match=r"ktfast, .* is off by \d+\.\d+ levels; every"):
        feed.run(options(photographs, tmp_path))


def options(folder, out, **change):
    values = {"folder": folder, "size": 40, "short_side": 48, "images": 9, "batch": 2}
    values |= {"threads": 1, "repeats": 1, "out": out}
    return type("Options", (), values | change)


def test_impossible_options_are_refused(photographs, tmp_path, capsys):
    with pytest.raises(InputError, match="--short-side must be at least --size 64, got 48"):
        feed.run(options(photographs, tmp_path, size=64))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "junk.jpg").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"1 of the images cannot be decoded, the first is junk"):
        feed.run(options(tmp_path / "bad", tmp_path))
    with pytest.raises(SystemExit):
        run(photographs, tmp_path, "--threads", "0")
    assert "must be at least 1, got 0" in capsys.readouterr().err
