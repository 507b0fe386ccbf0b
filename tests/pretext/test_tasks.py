"""The tasks of the registry: what they ask, that they are learnt, and their pictures."""

import math

import numpy as np
import pytest
import torch

from ktfast.config import PretextConfig, TrainingConfig
from ktfast.config.pretext_tasks import USED
from ktfast.errors import DataError, InputError
from ktfast.models import VGG16, AlexNet, initialize
from ktfast.pretext.held_out import held_out_measure
from ktfast.pretext.pictures import Example, Panel, Square, packed, unpacked
from ktfast.pretext.registry import PRETEXTS, build_pretext
from ktfast.training.loop import train
from support.one_thread import one_thread_and_a_seed  # noqa: F401
from support.photographs import MemoryFeed, squares

TINY = {"hidden": 32, "dropout": 0.0}
TILES = {"tile_size": 16, "tile_features": 32, "crop": 60, "jitter": 1}
OPTIONS = {
    "jigsaw++": {**TILES, "permutations": 4, "max_occluders": 1},
    "jigsaw": {**TILES, "permutations": 4},
    "context": TILES,
    "rotation": {"crop": 40},
}


def small(name, trunk=None, **more):
    options = PretextConfig(task=name, **{**TINY, **OPTIONS[name], **more})
    task = build_pretext(trunk or VGG16(0, width=0.125, batch_norm=True), options, seed=3)
    initialize(task.model)
    return task


def feed_of(name, n=16):
    return MemoryFeed(squares(n, OPTIONS[name]["crop"]), n)


def first_batch(name, n=16):
    return next(iter(feed_of(name, n).epoch(0)))


def test_every_task_of_the_configuration_is_registered():
    assert PRETEXTS.keys() == USED.keys() == OPTIONS.keys()


@pytest.mark.parametrize("name", OPTIONS)
def test_the_first_loss_and_accuracy_are_those_of_a_guess(name):
    task = small(name)
    answers = round(1 / task.chance)
    output = task.step(first_batch(name), 0)
    assert float(output.loss.detach()) == pytest.approx(math.log(answers), rel=0.02)
    assert "accuracy" in output.metrics


@pytest.mark.parametrize("name", OPTIONS)
def test_a_task_on_photographs_is_learnt_in_a_few_steps(name, tmp_path):
    """With the same random choices in every epoch, a small network learns 16 photographs."""
    feed, task = feed_of(name), small(name)
    step = task.step
    task.step = lambda batch, epoch: step(batch, 0)
    config = TrainingConfig(
        epochs=25.0, batch_size=16, learning_rate=0.02, warmup=0.1, schedule="cosine",
        checkpoint_minutes=60.0,
    )  # fmt: skip
    train(task, feed, config, tmp_path, name=name, seed=0, progress=False)
    assert held_out_measure(task, feed, epoch=0) > 2 * task.chance


@pytest.mark.parametrize("name", OPTIONS)
def test_the_choices_depend_on_the_photograph_and_the_epoch_only(name):
    task, batch = small(name), first_batch(name, 8)
    task.model.eval()
    with torch.inference_mode():
        whole = task.measure(batch, 5)
        # Occluders come from the batch; the other tasks treat each photograph on its own.
        if name != "jigsaw++":
            parts = [task.measure(batch.part(k, k + 4), 5) for k in (0, 4)]
            assert torch.equal(torch.cat(parts), whole)
        assert whole.shape == (8,)
        assert torch.equal(task.measure(batch, 5), whole)


@pytest.mark.parametrize("name", OPTIONS)
def test_pictures_say_what_they_show_and_come_back_from_the_disk(name):
    task, batch = small(name), first_batch(name, 5)
    examples = task.pictures(batch, 7)
    assert len(examples) == 5
    assert all(panel.alt for example in examples for panel in example.panels)
    for example, image in zip(examples, batch.images.numpy(), strict=True):
        np.testing.assert_array_equal(example.panels[0].pixels, image)
    arrays, texts = packed(examples)
    again = unpacked(arrays, texts)
    assert [example.caption for example in again] == [example.caption for example in examples]
    for one, other in zip(again, examples, strict=True):
        for panel, expected in zip(one.panels, other.panels, strict=True):
            np.testing.assert_array_equal(panel.pixels, expected.pixels)
            assert (panel.alt, panel.squares) == (expected.alt, expected.squares)
            assert panel.gaps == expected.gaps
    assert task.lead
    assert task.title


def test_examples_that_do_not_fit_are_refused():
    panel = Panel(np.zeros((4, 4, 3), np.uint8), "black", (Square(0, 0, 2, "1"),))
    with pytest.raises(InputError, match="at least one example"):
        packed([])
    with pytest.raises(InputError, match="what it shows"):
        packed([Example((Panel(panel.pixels, ""),), "c")])
    with pytest.raises(InputError, match="uint8"):
        packed([Example((Panel(panel.pixels.astype(float), "black"),), "c")])
    with pytest.raises(InputError, match="the same panels"):
        packed([Example((panel,), "c"), Example((panel, panel), "c")])
    arrays, texts = packed([Example((panel,), "c")])
    with pytest.raises(DataError, match="redo the stage pretext"):
        unpacked({}, texts)
    with pytest.raises(DataError, match="redo the stage pretext"):
        unpacked(arrays, [{"caption": "c"}])


def test_context_shows_the_middle_and_one_neighbour():
    task = small("context")
    tiles, labels, cells = task.puzzles.puzzles(first_batch("context", 64), 0)
    assert tiles.shape == (64, 2, 3, 16, 16)
    assert set(cells[:, 0].tolist()) == {4}
    assert set(labels.tolist()) == set(range(8))
    assert torch.equal(cells[:, 1], labels + (labels >= 4))
    caption = task.pictures(first_batch("context", 1), 0)[0].caption
    assert caption.startswith("the second tile lies ")


def test_plain_jigsaw_has_no_occluders_and_the_defaults_of_its_paper():
    found = small("jigsaw").puzzles.puzzles(first_batch("jigsaw", 64), 0)
    assert int(found.cells.min()) == 0
    options = PretextConfig(task="jigsaw")
    assert (options.permutations, options.gray_probability) == (1000, 0.3)
    assert options.projection_probability == 0
    assert PretextConfig(task="jigsaw", permutations=100).permutations == 100


def test_rotations_turned_back_are_the_upright_photograph():
    task = small("rotation")
    inputs, labels = task.questions(first_batch("rotation", 6), 2)
    assert inputs.shape == (6, 4, 3, 35, 35)  # the crop of 40 px less an eighth
    assert labels.tolist() == [[0, 1, 2, 3]] * 6
    for turns in range(4):
        back = torch.rot90(inputs[:, turns], -turns, (2, 3))
        assert torch.equal(back, inputs[:, 0])
    assert small("rotation", jitter=0).input_size == 40
    other, _ = task.questions(first_batch("rotation", 6), 3)
    assert not torch.equal(other, inputs)


def test_alexnet_has_the_stride_and_the_layers_of_the_task():
    assert PRETEXTS["rotation"].conv1_stride == 4
    assert {PRETEXTS[name].conv1_stride for name in ("jigsaw++", "jigsaw", "context")} == {2}
    assert small("rotation").trunk.layers[-1] == "pool5"
    assert small("context").trunk.layers[-1] == "conv4_3"
    trunk = AlexNet(0, width=0.125, conv1_stride=4)
    assert small("rotation", trunk, crop=80).model.classifier[-1].out_features == 4


class TestPermutationFiles:
    """Permutations of the user."""

    ROWS = ((0, 1, 2, 3), (3, 2, 1, 0), (1, 0, 3, 2))

    def task(self, path, **more):
        options = {"grid": 2, "tile_size": 16, "crop": 40, "jitter": 1, **more}
        options.pop("permutations", None)
        config = PretextConfig(task="jigsaw", permutation_file=path, **TINY, **options)
        return build_pretext(VGG16(0, width=0.125), config, seed=3)

    @pytest.mark.parametrize("first", [0, 1])
    def test_numbers_may_begin_at_one_and_stand_in_text(self, first, tmp_path):
        rows = np.array(self.ROWS) + first
        np.save(tmp_path / "a.npy", rows)
        (tmp_path / "a.txt").write_text("\n".join(", ".join(map(str, row)) for row in rows) + "\n")
        for name in ("a.npy", "a.txt"):
            task = self.task(tmp_path / name)
            assert task.permutations.tolist() == np.array(self.ROWS).tolist()
            assert task.chance == pytest.approx(1 / 3)
            assert task.model.n_permutations == 3

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([[0, 1, 2, 3], [0, 1, 2, 2]], "row 1 is .* does not hold each number from 0 to 3"),
            ([[0, 1, 2], [1, 0, 2]], r"shape \[2, 3\]; a puzzle of 2 x 2 cells"),
            ([[0, 1, 2, 3]], r"shape \[1, 4\]"),
            ([[0, 1, 2, 3], [0, 1, 2, 3]], "rows 0 and 1 differ in fewer than 1"),
            ([[0.5, 1, 2, 3]], "float64 values, not integers"),
        ],
    )
    def test_a_faulty_file_is_named(self, rows, message, tmp_path):
        np.save(tmp_path / "a.npy", np.array(rows))
        with pytest.raises(DataError, match=message) as error:
            self.task(tmp_path / "a.npy")
        assert "a.npy" in str(error.value)

    def test_rows_must_differ_by_more_than_the_occluders_hide(self, tmp_path):
        np.save(tmp_path / "a.npy", np.array([[0, 1, 2, 3], [1, 0, 2, 3]]))
        options = {"grid": 2, "tile_size": 16, "crop": 40, "max_occluders": 2}
        config = PretextConfig(permutation_file=tmp_path / "a.npy", **options)
        with pytest.raises(DataError, match="differ in fewer than 3 places"):
            build_pretext(VGG16(0, width=0.125), config, seed=0)

    def test_text_that_holds_no_numbers_is_refused(self, tmp_path):
        (tmp_path / "a.txt").write_text("one two\n")
        with pytest.raises(DataError, match=r"a\.txt cannot be read as a permutation set"):
            self.task(tmp_path / "a.txt")
        with pytest.raises(DataError, match=r"none\.npy"):
            self.task(tmp_path / "none.npy")
