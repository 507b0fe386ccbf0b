"""A training that shows too few puzzles is reported before it begins."""

from PIL import Image

import ktfast
from ktfast.config.run import tomllib
from ktfast.pretext.effort import LEAST_VIEWS, too_few_puzzles
from support.photographs import squares
from support.tiny_recipe import TINY


def reckon(**changed):
    values = {"images": 1000, "epochs": 10.0, "permutations": 100, "cell_loss": 1.0}
    return too_few_puzzles(**{"puzzles_per_image": 1, **values, **changed})


def test_enough_puzzles_give_no_warning():
    assert reckon(epochs=LEAST_VIEWS / 10) is None


def test_the_warning_names_the_least_change_that_ends_it():
    found = reckon(images=500, epochs=2.0)
    assert "2 epochs of 500 images show each of the 100 permutations 10 times" in found
    assert "cell_loss" not in found
    puzzles = int(found.partition("puzzles_per_image to ")[2].split(",")[0])
    epochs = int(found.partition("training.epochs to ")[2].split(",")[0])
    permutations = int(found.partition("permutations to ")[2].split(",")[0])
    assert reckon(images=500, epochs=float(epochs)) is None
    assert reckon(images=500, epochs=epochs - 1.0) is not None
    assert reckon(images=500, epochs=2.0, puzzles_per_image=puzzles) is None
    assert reckon(images=500, epochs=2.0, puzzles_per_image=puzzles - 1) is not None
    assert reckon(images=500, epochs=2.0, permutations=permutations) is None
    assert reckon(images=500, epochs=2.0, permutations=permutations + 1) is not None


def test_a_loss_of_cells_is_proposed_if_there_is_none():
    assert "pretext.cell_loss = 1" in reckon(epochs=0.1, cell_loss=0.0)


def test_no_impossible_number_of_permutations_is_proposed():
    found = reckon(images=3, epochs=1.0)
    assert "lower pretext.permutations" not in found
    assert "puzzles_per_image" not in found


def test_a_run_warns_once_before_it_prepares_images(tmp_path, caplog):
    (tmp_path / "images").mkdir()
    for number, square in enumerate(squares(12, 96)):
        Image.fromarray(square).save(tmp_path / "images" / f"{number}.png")
    options = {"data.pretext": str(tmp_path / "images"), **tomllib.loads(TINY)}
    ktfast.run(options, tmp_path / "run", stages=["prepare"])
    messages = [record.message for record in caplog.records]
    found = [text for text in messages if "will hardly be learnt" in text]
    assert len(found) == 1
    assert "2 epochs of 12 images" in found[0]
