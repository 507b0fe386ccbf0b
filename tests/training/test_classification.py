"""Classification: each row has its label, scores equal those by hand, images are normalised."""

import pytest
import torch
from torch import nn

from ktfast.errors import InputError
from ktfast.images.augment import normalize_images
from ktfast.images.feeds.base import Batch
from ktfast.models import AlexNet
from ktfast.training.classification import ClassificationTask, classification_scores
from support.one_thread import one_thread_and_a_seed  # noqa: F401
from support.photographs import MemoryFeed, squares


def test_labels_go_by_row_and_are_checked():
    model = AlexNet(4, width=0.125, image_size=40)
    for wrong in ([0, 4], [-1, 2]):
        with pytest.raises(InputError, match=r"labels must lie in 0 \.\. 4 - 1"):
            ClassificationTask(model, torch.tensor(wrong), crop=40, seed=0)

    class Echo(nn.Module):
        """Gives the largest logit to the right class."""

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
    """Class 0: two of three images are right. Class 1 has no image. Class 2: no image is right."""
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
    assert model.training


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
