"""The held-out measure of Jigsaw++: the share of puzzles that the network solves."""

import torch

from ktfast.images.feeds.base import Feed
from ktfast.pretext.task import JigsawTask
from ktfast.training.classification import evaluating


@torch.inference_mode()
def jigsaw_accuracy(
    task: JigsawTask, feed: Feed, *, epoch: int, max_images: int | None = None
) -> float:
    """Share of puzzles, in [0, 1], whose permutation the network names.

    Parameters
    ----------
    task : JigsawTask
        Network and puzzles.
    feed : Feed
        Images. The function reads the feed's epoch 0 once.
    epoch : int
        Epoch of the puzzles' random choices. If training never reaches this epoch, the network
        has not seen the puzzles.
    max_images : int, optional
        Stop after the batch in which the number of images reaches this value.

    Returns
    -------
    accuracy : float
        Number of solved puzzles divided by the number of puzzles.
    """
    device = next(task.model.parameters()).device
    right, seen = torch.zeros((), dtype=torch.int64, device=device), 0
    with evaluating(task.model):
        for batch in feed.epoch(0):
            tiles, labels, _ = task.puzzles(batch, epoch)
            permutations, _ = task.model.split(task.model(tiles))
            right += (permutations.argmax(1) == labels).sum()
            seen += len(labels)
            if max_images is not None and seen >= max_images:
                break
    return int(right) / seen
