"""The Jigsaw++ task: which permutation shuffled the tiles of an image, as a loss and as a score.

A task turns a batch of a feed into a loss; `ktfast.training.loop.train` does the rest.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ktfast.errors import InputError
from ktfast.images.feeds.base import Batch, Feed
from ktfast.ops import jigsaw_tiles
from ktfast.pretext.network import JigsawNet
from ktfast.training.classification import evaluating, label_loss
from ktfast.training.loop import StepOutput

# Options of `jigsaw_tiles` that are fixed by the batch and the network.
_SET_BY_TASK = (
    "sample_ids", "epoch", "indices", "return_choices", "dtype", "channels_last", "out",
)  # fmt: skip


class JigsawTask:
    """Which permutation was applied to the tiles of an image (Jigsaw++).

    Parameters
    ----------
    model : puzzle network.
    permutations : integers [P, n_tiles].
    seed : of every random choice of the puzzles.
    options : further options of `ktfast.ops.jigsaw_tiles`, such as tile_size.
    """

    def __init__(
        self,
        model: JigsawNet,
        permutations: npt.NDArray[Any] | Tensor,
        *,
        seed: int,
        **options: Any,
    ) -> None:
        self.model = model
        self.permutations = torch.as_tensor(np.asarray(permutations))
        self.seed = seed
        self.options = options
        self._kept: dict[tuple[torch.dtype, torch.device, bool], Tensor] = {}
        for name in _SET_BY_TASK:
            if name in options:
                raise InputError(f"JigsawTask sets {name} itself; leave it out")

    def step(self, batch: Batch, epoch: int) -> StepOutput:
        """Cross-entropy and accuracy of a batch.

        Its tiles take the memory of the step before, whose backward pass must be done by then:
        if it comes later, autograd raises.
        """
        tiles, labels = self.puzzles(batch, epoch, reuse=True)
        return label_loss(self.model(tiles), labels)

    def puzzles(self, batch: Batch, epoch: int, *, reuse: bool = False) -> tuple[Tensor, Tensor]:
        """The puzzles of a batch, as the network wants them.

        Parameters
        ----------
        batch : images; they are read where they lie, in a resident feed's pool too.
        epoch : of the random choices.
        reuse : write over the tiles of the last call with `reuse`.

        Returns
        -------
        tiles [B, n_tiles, 3, t, t] and labels int64 [B].
        """
        device = batch.pool.device
        self.permutations = self.permutations.to(device)
        dtype = torch.float32
        if torch.is_autocast_enabled(device.type):
            dtype = torch.get_autocast_dtype(device.type)
        first = next(iter(self.model.trunk.features.convolutions().values())).weight
        channels_last = first.is_contiguous(memory_format=torch.channels_last)
        kind = dtype, device, channels_last
        kept = self._kept.get(kind) if reuse else None
        tiles, labels = jigsaw_tiles(
            batch.pool,
            self.permutations,
            indices=batch.indices,
            sample_ids=batch.sample_ids.to(device, non_blocking=True),
            seed=self.seed,
            epoch=epoch,
            dtype=str(dtype).removeprefix("torch."),
            channels_last=channels_last,
            out=None if kept is None or len(kept) < len(batch) else kept[: len(batch)],
            **self.options,
        )
        if reuse and len(tiles) > (0 if kept is None else len(kept)) and not tiles.is_inference():
            self._kept = {kind: tiles}
        return tiles, labels


@torch.inference_mode()
def jigsaw_accuracy(
    task: JigsawTask, feed: Feed, *, epoch: int, max_images: int | None = None
) -> float:
    """Share of puzzles that the network solves.

    Parameters
    ----------
    task : network and puzzles.
    feed : images; its first epoch is read once.
    epoch : epoch of the puzzles' random choices; one that training never reaches is held out.
    max_images : stop after about this many images.
    """
    device = next(task.model.parameters()).device
    right, seen = torch.zeros((), dtype=torch.int64, device=device), 0
    with evaluating(task.model):
        for batch in feed.epoch(0):
            tiles, labels = task.puzzles(batch, epoch)
            right += (task.model(tiles).argmax(1) == labels).sum()
            seen += len(labels)
            if max_images is not None and seen >= max_images:
                break
    return int(right) / seen
