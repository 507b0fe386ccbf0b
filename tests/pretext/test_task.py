"""The puzzle task: tiles and labels, memory shared by steps, and puzzles that are learnt."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from ktfast.config import TrainingConfig
from ktfast.errors import InputError
from ktfast.images.feeds.base import Batch
from ktfast.models import VGG16, initialize
from ktfast.ops.permutations import permutation_set
from ktfast.pretext.held_out import held_out_measure
from ktfast.pretext.network import JigsawNet
from ktfast.pretext.task import OCCLUDED, JigsawTask
from ktfast.training.loop import train
from support.one_thread import one_thread_and_a_seed  # noqa: F401
from support.photographs import MemoryFeed, squares


def puzzle_task(permutations: int = 6, **options) -> JigsawTask:
    model = JigsawNet(
        VGG16(0, width=0.125),
        permutations,
        n_tiles=4,
        tile_size=16,
        tile_features=32,
        hidden=64,
        dropout=0.0,
        names_cells="cell_loss" in options,
    )
    initialize(model)
    chosen = permutation_set(permutations, grid=2, min_distance=3)
    return JigsawTask(model, chosen, seed=3, tile_size=16, jitter=1, **options)


def test_puzzles_reach_the_network_in_its_memory_order_and_type():
    feed = MemoryFeed(squares(8, 40), 8)
    batch = next(iter(feed.epoch(0)))
    task = puzzle_task()
    tiles, labels, _ = task.puzzles(batch, 0)
    assert tiles.shape == (8, 4, 3, 16, 16)
    assert labels.dtype == torch.int64
    assert tiles.is_contiguous()
    task.model.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        other, same, _ = task.puzzles(batch, 0)
    assert other.dtype == torch.bfloat16
    assert other.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(same, labels)
    assert torch.equal(other, tiles.bfloat16())
    assert not torch.equal(task.puzzles(batch, 1)[1], labels)


def test_the_first_loss_is_that_of_a_guess():
    feed = MemoryFeed(squares(32, 40), 32)
    output = puzzle_task().step(next(iter(feed.epoch(0))), 0)
    assert float(output.loss.detach()) == pytest.approx(math.log(6), rel=0.01)


def test_cells_are_those_of_the_permutation_and_occluded_slots_have_none():
    task = puzzle_task(max_occluders=2)
    found = task.puzzles(next(iter(MemoryFeed(squares(64, 40), 64).epoch(0))), 0)
    expected = task.permutations[found.labels].long()
    occluded = found.cells == OCCLUDED
    assert torch.equal(found.cells[~occluded], expected[~occluded])
    assert set(occluded.sum(1).tolist()) == {0, 1, 2}


def test_the_loss_of_the_cells_leaves_out_occluded_slots():
    task = puzzle_task(cell_loss=2.0, max_occluders=2)
    batch = next(iter(MemoryFeed(squares(16, 40), 16).epoch(0)))
    tiles, labels, cells = task.puzzles(batch, 0)
    permutations, named = task.model.split(task.model(tiles))
    assert permutations.shape == (16, 6)
    assert named.shape == (16, 4, 4)
    by_slot = torch.stack([
        -named[puzzle, slot].log_softmax(0)[cells[puzzle, slot]]
        for puzzle, slot in (cells != OCCLUDED).nonzero()
    ])  # fmt: skip
    expected = nn.functional.cross_entropy(permutations, labels) + 2 * by_slot.sum() / (16 * 4)
    output = task.step(batch, 0)
    assert float(output.loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert set(output.metrics) == {"accuracy", "cell_accuracy"}
    with pytest.raises(InputError, match="does not name cells"):
        JigsawTask(puzzle_task().model, task.permutations, seed=0, cell_loss=1.0)


def test_an_image_is_shown_in_several_orders():
    """The loss and the gradient are those of the tiles laid out anew and encoded once more."""
    task = puzzle_task(cell_loss=1.0, max_occluders=2, puzzles_per_image=4)
    batch = next(iter(MemoryFeed(squares(16, 40), 16).epoch(0)))
    tiles, labels, cells = task.puzzles(batch, 0)
    orders, shown = task._reordered(labels, 0)
    shown_in = shown.view(16, 4)
    assert torch.equal(shown_in[:, 0], labels)
    assert all(len(set(row)) == 4 for row in shown_in.tolist())
    laid_out = torch.stack([
        torch.stack([tiles[puzzle, order[slot]] for slot in range(4)])
        for puzzle in range(16)
        for order in orders[puzzle]
    ])  # fmt: skip
    permutations, named = task.model.split(task.model(laid_out))
    expected_cells = task.permutations[shown].long()
    hidden = cells.unsqueeze(1).expand_as(orders).gather(2, orders).flatten(0, 1) == OCCLUDED
    expected_cells[hidden] = OCCLUDED
    loss = nn.functional.cross_entropy(permutations, shown)
    by_cell = nn.functional.cross_entropy(
        named.flatten(0, 1), expected_cells.flatten(), ignore_index=OCCLUDED, reduction="sum"
    )
    expected = loss + by_cell / expected_cells.numel()
    output = task.step(batch, 0)
    torch.testing.assert_close(output.loss, expected, rtol=1e-5, atol=0)

    def gradients(loss):
        task.model.zero_grad()
        loss.backward()
        return [parameter.grad.clone() for parameter in task.model.parameters()]

    for pair in zip(gradients(output.loss), gradients(expected), strict=True):
        torch.testing.assert_close(*pair, rtol=1e-4, atol=1e-7)


def test_the_orders_of_an_image_do_not_depend_on_its_batch_and_change_with_the_epoch():
    task = puzzle_task(puzzles_per_image=3)
    labels = torch.tensor([4, 1, 5])
    together = task._reordered(labels, 7)
    alone = task._reordered(labels[1:2], 7)
    assert torch.equal(together[0][1:2], alone[0])
    assert torch.equal(together[1].view(3, 3)[1], alone[1])
    epochs = {tuple(task._reordered(labels[:1], epoch)[1].tolist()) for epoch in range(20)}
    assert len(epochs) > 5
    with pytest.raises(InputError, match="between 1 and the number of permutations"):
        puzzle_task(puzzles_per_image=7)


def test_steps_share_the_memory_of_their_tiles():
    """Gradients equal those of tiles in separate memory, also for the last, smaller batch."""
    batches = list(MemoryFeed(squares(20, 40), 8).epoch(0))
    assert [len(batch) for batch in batches] == [8, 8, 4]
    task, seen = puzzle_task(), []
    task.model.to(memory_format=torch.channels_last)
    task.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].data_ptr()))

    def gradients(loss):
        task.model.zero_grad()
        loss.backward()
        return [parameter.grad.clone() for parameter in task.model.parameters()]

    for batch in (batches[2], *batches):  # the first batch is small, so that the memory grows once
        shared = gradients(task.step(batch, 0).loss)
        tiles, labels, _ = task.puzzles(batch, 0)
        alone = gradients(nn.functional.cross_entropy(task.model(tiles), labels))
        assert all(torch.equal(*pair) for pair in zip(shared, alone, strict=True))
    steps, apart = seen[::2], seen[1::2]
    assert len(set(steps[1:])) == 1
    # The first batch's memory is free afterwards, and other tensors may use it.
    assert steps[0] != apart[0]
    assert not set(steps[1:]) & set(apart[1:])


def test_a_step_before_the_last_ones_backward_pass_is_noticed():
    batch = next(iter(MemoryFeed(squares(8, 40), 8).epoch(0)))
    task = puzzle_task()
    first = task.step(batch, 0)
    task.step(batch, 1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        first.loss.backward()
    with torch.inference_mode():
        task.step(batch, 0)
    task.step(batch, 0).loss.backward()


def test_puzzles_are_cut_where_resident_images_lie(monkeypatch):
    """The tiles of a resident feed are cut from the whole set, without a copy of the batch."""
    feed, task = MemoryFeed(squares(30, 40), 8), puzzle_task()
    gathered = list(feed.epoch(0))
    expected = [task.puzzles(batch, 0) for batch in gathered]
    monkeypatch.setattr(Batch, "images", property(lambda _: pytest.fail("gathered")))
    for batch, (tiles, labels, _) in zip(gathered, expected, strict=True):
        resident = replace(batch, pool=feed.images, indices=batch.rows)
        got, same, _ = task.puzzles(resident, 0)
        assert torch.equal(got, tiles)
        assert torch.equal(same, labels)
        part = resident.part(1, 4).to(torch.device("cpu"))
        assert torch.equal(part.rows, batch.rows[1:4])
        loss = task.step(part, 0).loss
        assert torch.equal(loss, task.step(batch.part(1, 4), 0).loss)


class ResidentMemoryFeed(MemoryFeed):
    """A feed whose batches refer to images of the whole set."""

    def epoch(self, epoch, start=0):
        for batch in super().epoch(epoch, start):
            yield replace(batch, pool=self.images, indices=batch.rows)


def test_training_on_resident_images_gathers_none(tmp_path, monkeypatch):
    """No batch is copied, micro-batches included, and the weights equal those of copied batches."""
    config = TrainingConfig(epochs=2.0, batch_size=8, accumulate=2, checkpoint_minutes=60.0)
    weights = []
    for kind in (MemoryFeed, ResidentMemoryFeed):
        torch.manual_seed(0)
        task = puzzle_task(max_occluders=0)
        if kind is ResidentMemoryFeed:
            monkeypatch.setattr(Batch, "images", property(lambda _: pytest.fail("gathered")))
        folder = tmp_path / kind.__name__
        train(task, kind(squares(20, 40), 8), config, folder, name="p", seed=0, progress=False)
        weights.append([parameter.detach().clone() for parameter in task.model.parameters()])
    assert all(torch.equal(*pair) for pair in zip(*weights, strict=True))


def test_options_that_the_task_sets_are_refused():
    with pytest.raises(InputError, match="JigsawTask sets epoch itself"):
        puzzle_task(epoch=1)


def test_a_few_puzzles_are_learnt_by_heart(tmp_path):
    feed = MemoryFeed(squares(16, 40), 16)
    task = puzzle_task(6, max_occluders=0, gray_probability=0.0)
    chance = held_out_measure(task, feed, epoch=0)
    puzzles = task.puzzles
    task.puzzles = lambda batch, epoch, **options: puzzles(batch, 0, **options)
    config = TrainingConfig(
        epochs=150.0,
        batch_size=16,
        learning_rate=0.01,
        warmup=0.1,
        schedule="cosine",
        checkpoint_minutes=60.0,
    )
    train(task, feed, config, tmp_path, name="puzzle", seed=0, progress=False)
    assert chance < 0.5
    assert held_out_measure(task, feed, epoch=0) > 0.9
    assert held_out_measure(task, feed, epoch=0, max_images=1) > 0.9
    assert task.model.training
