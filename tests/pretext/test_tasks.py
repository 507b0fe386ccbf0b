"""Tasks and their augmentation: every choice from (seed, epoch, sample id), real puzzles solved."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from ktfast.config import TrainingConfig
from ktfast.errors import InputError
from ktfast.images import augment
from ktfast.images.augment import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    center_crop,
    draw,
    normalize_images,
    random_crops,
)
from ktfast.images.feeds.base import Batch
from ktfast.models import VGG16, AlexNet, initialize
from ktfast.ops.permutations import permutation_set
from ktfast.pretext.network import JigsawNet
from ktfast.pretext.task import JigsawTask, jigsaw_accuracy
from ktfast.training.classification import ClassificationTask, classification_scores
from ktfast.training.loop import train
from support.photographs import MemoryFeed, squares


@pytest.fixture(autouse=True)
def _one_thread_and_a_seed():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    torch.set_num_threads(before)


def splitmix64(x: int) -> int:
    """The generator as published, on Python's integers."""
    mask = 2**64 - 1
    x = (x + 0x9E3779B97F4A7C15) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


# --- random choices -----------------------------------------------------------------------------


def test_splitmix64_is_the_published_one():
    # First output of the reference implementation for state 1234567.
    assert splitmix64(1234567) == 6457827717110365317


def test_draws_are_splitmix64_of_seed_epoch_id_and_number():
    ids = torch.tensor([0, 1, 2**63 - 1, 123456789012345678, -5])
    for seed, epoch, number in [(0, 0, 0), (7, 3, 2), (2**64 - 1, 2**31 - 1, 1)]:
        key = splitmix64(splitmix64(splitmix64(number) ^ epoch) ^ seed)
        bits = [splitmix64((int(i) % 2**64) ^ key) for i in ids]
        for n in (1, 2, 29, 2**31 - 1):
            expected = [(value >> 32) * n >> 32 for value in bits]
            assert draw(ids, n, seed=seed, epoch=epoch, number=number).tolist() == expected


def test_draws_are_uniform_and_independent():
    ids = torch.arange(60_000)
    first = draw(ids, 6, seed=1, epoch=0, number=0)
    for other in (
        draw(ids, 6, seed=1, epoch=0, number=1),
        draw(ids, 6, seed=1, epoch=1, number=0),
        draw(ids, 6, seed=1, epoch=1, number=1),
        draw(ids, 6, seed=2, epoch=0, number=0),
        draw(ids + 1, 6, seed=1, epoch=0, number=0),
    ):
        table = np.bincount((first * 6 + other).numpy(), minlength=36)
        # Chi-square with 35 degrees of freedom: 99.99 % lie below 74.
        assert ((table - 60_000 / 36) ** 2 / (60_000 / 36)).sum() < 74


def test_draws_of_neighbouring_epochs_share_nothing():
    ids = torch.arange(1000)
    seen = {
        tuple(draw(ids, 2**31, seed=0, epoch=epoch, number=number).tolist())
        for epoch in range(8)
        for number in range(3)
    }
    assert len(seen) == 8 * 3


@pytest.mark.parametrize("mirror", [True, False])
def test_crops_are_cut_where_the_draws_say(mirror):
    images = torch.from_numpy(squares(24, 20))
    ids = torch.arange(24) * 31
    crops = random_crops(images, ids, crop=13, mirror=mirror, seed=5, epoch=2)
    assert crops.shape == (24, 13, 13, 3)
    flips = 0
    for k, image in enumerate(images):
        top, left, flip = (
            int(draw(ids[k : k + 1], n, seed=5, epoch=2, number=number))
            for number, n in enumerate((8, 8, 2))
        )
        expected = image[top : top + 13, left : left + 13]
        if mirror and flip:
            expected, flips = expected.flip(1), flips + 1
        assert torch.equal(crops[k], expected)
    assert 0 < flips < 24 or not mirror


def test_crops_do_not_depend_on_the_batch():
    images, ids = torch.from_numpy(squares(10, 20)), torch.arange(10) + 100
    options = {"crop": 15, "mirror": True, "seed": 0, "epoch": 4}
    together = random_crops(images, ids, **options)
    order = torch.randperm(10)
    assert torch.equal(random_crops(images[order], ids[order], **options), together[order])
    assert torch.equal(random_crops(images[3:4], ids[3:4], **options), together[3:4])
    assert not torch.equal(random_crops(images, ids, **{**options, "epoch": 5}), together)


@pytest.mark.parametrize("mirror", [True, False])
def test_a_gather_cuts_what_copies_cut(mirror):
    images, ids = torch.from_numpy(squares(24, 20)), torch.arange(24) * 7
    top, left = (draw(ids, 6, seed=0, epoch=0, number=number) for number in (0, 1))
    flipped = draw(ids, 2, seed=0, epoch=0, number=2).bool() & mirror
    copied = augment._copy_squares(images, top, left, flipped, 15)
    assert torch.equal(augment._gather_squares(images, top, left, flipped, 15), copied)


def test_crops_at_the_edges():
    images, ids = torch.from_numpy(squares(4, 20)), torch.arange(4)
    whole = random_crops(images, ids, crop=20, mirror=False, seed=0, epoch=0)
    assert torch.equal(whole, images)
    assert random_crops(images[:0], ids[:0], crop=5, mirror=True, seed=0, epoch=0).shape[0] == 0
    assert torch.equal(center_crop(images, 10), images[:, 5:15, 5:15])
    for crop in (0, 21):
        with pytest.raises(InputError, match=r"crop must lie in 1 \.\. 20 px"):
            random_crops(images, ids, crop=crop, mirror=True, seed=0, epoch=0)


def test_normalisation_by_hand():
    images = torch.from_numpy(squares(3, 16))
    pixels = images.double().permute(0, 3, 1, 2)
    mean, std = (torch.tensor(v).double()[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    ours = normalize_images(images, "imagenet")
    torch.testing.assert_close(ours.double(), (pixels - mean) / std, rtol=1e-5, atol=1e-5)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    ours = normalize_images(images, "image").double()
    mean, std = pixels.mean((1, 2, 3), True), pixels.std((1, 2, 3), correction=0, keepdim=True)
    torch.testing.assert_close(ours, (pixels - mean) / std, rtol=1e-5, atol=1e-5)
    with pytest.raises(InputError, match="'imagenet' or 'image'"):
        normalize_images(images, "pixels")


# --- classification -----------------------------------------------------------------------------


def test_labels_go_by_row_and_are_checked():
    model = AlexNet(4, width=0.125, image_size=40)
    for wrong in ([0, 4], [-1, 2]):
        with pytest.raises(InputError, match=r"labels must lie in 0 \.\. 4 - 1"):
            ClassificationTask(model, torch.tensor(wrong), crop=40, seed=0)

    class Echo(nn.Module):
        """Puts its logit on the class that the task must look for."""

        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return self.one * nn.functional.one_hot(wanted, 4).float() * 20

    images = torch.from_numpy(squares(3, 16))
    rows = torch.tensor([2, 0, 4])
    labels = torch.tensor([3, 1, 0, 2, 1])
    wanted = labels[rows]
    task = ClassificationTask(Echo(), labels, crop=12, seed=0)
    output = task.step(Batch(images, rows + 1000, rows), epoch=0)
    assert float(output.metrics["accuracy"]) == 1.0
    assert float(output.loss.detach()) < 1e-6


def test_scores_by_hand():
    """Class 0 has three images, two of them right; class 2 has one, wrong; class 1 has none."""
    images = squares(4, 20)
    feed = MemoryFeed(images, 3, shuffle=False)
    labels = torch.tensor([0, 0, 0, 2])
    answers = iter([torch.tensor([0, 1, 0]), torch.tensor([1])])

    class Fixed(nn.Linear):
        def forward(self, x):
            assert x.shape[1:] == (3, 16, 16)
            assert not self.training
            return nn.functional.one_hot(next(answers), 3).float()

    model = Fixed(1, 1).train()
    scores = classification_scores(model, feed, labels, crop=16)
    assert scores.top1 == 0.5
    assert scores.mean_per_class == pytest.approx((2 / 3 + 0) / 2)
    assert scores.n_images == 4
    assert model.training


# --- puzzles ------------------------------------------------------------------------------------


def puzzle_task(permutations: int = 6, **options) -> JigsawTask:
    model = JigsawNet(
        VGG16(0, width=0.125),
        permutations,
        n_tiles=4,
        tile_size=16,
        tile_features=32,
        hidden=64,
        dropout=0.0,
    )
    initialize(model)
    chosen = permutation_set(permutations, grid=2, min_distance=3)
    return JigsawTask(model, chosen, seed=3, tile_size=16, jitter=1, **options)


def test_puzzles_reach_the_network_in_its_memory_order_and_type():
    feed = MemoryFeed(squares(8, 40), 8)
    batch = next(iter(feed.epoch(0)))
    task = puzzle_task()
    tiles, labels = task.puzzles(batch, 0)
    assert tiles.shape == (8, 4, 3, 16, 16)
    assert labels.dtype == torch.int64
    assert tiles.is_contiguous()
    task.model.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        other, same = task.puzzles(batch, 0)
    assert other.dtype == torch.bfloat16
    assert other.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(same, labels)
    assert torch.equal(other, tiles.bfloat16())
    assert not torch.equal(task.puzzles(batch, 1)[1], labels)


def test_the_first_loss_is_that_of_a_guess():
    feed = MemoryFeed(squares(32, 40), 32)
    output = puzzle_task().step(next(iter(feed.epoch(0))), 0)
    assert float(output.loss.detach()) == pytest.approx(math.log(6), rel=0.01)


@pytest.mark.parametrize("how", ["imagenet", "image"])
def test_classifiers_see_images_normalised_as_asked(how):
    images, seen = squares(4, 16), []
    labels = torch.tensor([0, 1, 1, 0])

    class Watching(nn.Linear):
        def forward(self, x):
            seen.append(x)
            return super().forward(x.mean((2, 3)))

    model, feed = Watching(3, 2), MemoryFeed(images, 4, shuffle=False)
    task = ClassificationTask(model, labels, crop=16, seed=0, mirror=False, normalization=how)
    task.step(next(iter(feed.epoch(0))), 0)
    classification_scores(model, feed, labels, crop=16, normalization=how)
    wanted = normalize_images(torch.from_numpy(images), how)
    assert len(seen) == 2
    assert all(torch.equal(x, wanted) for x in seen)


def test_steps_share_the_memory_of_their_tiles():
    """Gradients are those of tiles in memory of their own, the last, short batch included."""
    batches = list(MemoryFeed(squares(20, 40), 8).epoch(0))
    assert [len(batch) for batch in batches] == [8, 8, 4]
    task, seen = puzzle_task(), []
    task.model.to(memory_format=torch.channels_last)
    task.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].data_ptr()))

    def gradients(loss):
        task.model.zero_grad()
        loss.backward()
        return [parameter.grad.clone() for parameter in task.model.parameters()]

    for batch in (batches[2], *batches):  # the memory grows once
        shared = gradients(task.step(batch, 0).loss)
        tiles, labels = task.puzzles(batch, 0)
        alone = gradients(nn.functional.cross_entropy(task.model(tiles), labels))
        assert all(torch.equal(*pair) for pair in zip(shared, alone, strict=True))
    steps, apart = seen[::2], seen[1::2]
    assert len(set(steps[1:])) == 1
    # The memory that was too small is free after the first batch, and may be anyone's.
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
    """One pass from the whole set to tiles: a batch is never gathered."""
    feed, task = MemoryFeed(squares(30, 40), 8), puzzle_task()
    gathered = list(feed.epoch(0))
    expected = [task.puzzles(batch, 0) for batch in gathered]
    monkeypatch.setattr(Batch, "images", property(lambda _: pytest.fail("gathered")))
    for batch, (tiles, labels) in zip(gathered, expected, strict=True):
        resident = replace(batch, pool=feed.images, indices=batch.rows)
        got, same = task.puzzles(resident, 0)
        assert torch.equal(got, tiles)
        assert torch.equal(same, labels)
        part = resident.part(1, 4).to(torch.device("cpu"))
        assert torch.equal(part.rows, batch.rows[1:4])
        loss = task.step(part, 0).loss
        assert torch.equal(loss, task.step(batch.part(1, 4), 0).loss)


class ResidentMemoryFeed(MemoryFeed):
    """Batches that name their images in the whole set."""

    def epoch(self, epoch, start=0):
        for batch in super().epoch(epoch, start):
            yield replace(batch, pool=self.images, indices=batch.rows)


def test_training_on_resident_images_gathers_none(tmp_path, monkeypatch):
    """From feed to loss, micro-batches included; the weights are those of gathered batches."""
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
    chance = jigsaw_accuracy(task, feed, epoch=0)
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
    assert jigsaw_accuracy(task, feed, epoch=0) > 0.9
    assert jigsaw_accuracy(task, feed, epoch=0, max_images=1) > 0.9
    assert task.model.training
