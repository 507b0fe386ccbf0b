"""The Jigsaw++ task (Noroozi et al. 2018): the loss of naming the permutation of an image's tiles.

A task turns a batch of a feed into a loss. `ktfast.training.loop.train` trains any task.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ktfast.errors import InputError
from ktfast.images.feeds.base import Batch
from ktfast.ops import jigsaw_tiles
from ktfast.pretext.network import JigsawNet
from ktfast.training.classification import label_loss
from ktfast.training.loop import StepOutput

# Options of `jigsaw_tiles` that follow from the batch and the network.
_SET_BY_TASK = (
    "sample_ids", "epoch", "indices", "return_choices", "dtype", "channels_last", "out",
)  # fmt: skip


class JigsawTask:
    """Name the permutation that shuffled the tiles of an image (Jigsaw++).

    Parameters
    ----------
    model : JigsawNet
        Puzzle network.
    permutations : array, integers [P, n_tiles]
        Permutation set.
    seed : int
        Seed of every random choice of the puzzles.
    **options : Any
        Further options of `ktfast.ops.jigsaw_tiles`, such as tile_size.

    Raises
    ------
    InputError
        An option is given that the task takes from the batch or the network.
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
        # Memory of the tiles of the last step, by type, device and channels-last order.
        self._kept: dict[tuple[torch.dtype, torch.device, bool], Tensor] = {}
        for name in _SET_BY_TASK:
            if name in options:
                raise InputError(f"JigsawTask sets {name} itself; leave it out")

    def step(self, batch: Batch, epoch: int) -> StepOutput:
        """Cross-entropy and accuracy of a batch.

        A step writes its tiles over the tiles of the last step. Run the backward pass of a step
        before the next step; otherwise autograd raises a RuntimeError.
        """
        tiles, labels = self.puzzles(batch, epoch, reuse=True)
        return label_loss(self.model(tiles), labels)

    def puzzles(self, batch: Batch, epoch: int, *, reuse: bool = False) -> tuple[Tensor, Tensor]:
        """Cut a batch into puzzles in the type and memory order of the network.

        Parameters
        ----------
        batch : Batch
            Images. The images of a resident feed are read from its pool without a copy.
        epoch : int
            Epoch of the random choices.
        reuse : bool
            Write over the tiles of the last call with `reuse`, to avoid allocating memory.

        Returns
        -------
        tiles : Tensor [B, n_tiles, 3, t, t]
            Normalised tiles.
        labels : Tensor, int64 [B]
            Row of `permutations` that shuffled each image.
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
        # Keep only the largest memory: the last batch of an epoch may be smaller. Do not keep an
        # inference tensor: autograd would refuse it in a later training step.
        if reuse and len(tiles) > (0 if kept is None else len(kept)) and not tiles.is_inference():
            self._kept = {kind: tiles}
        return tiles, labels
