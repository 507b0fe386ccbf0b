"""Puzzles of tiles: the loss of naming the permutation that shuffled an image's tiles.

Jigsaw++ (Noroozi et al. 2018), plain Jigsaw (Noroozi and Favaro 2016) and context prediction
(Doersch et al. 2015) share this code (`ktfast.pretext.jigsaw`).
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

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


class Puzzles(NamedTuple):
    """A batch of puzzles.

    Attributes
    ----------
    tiles : Tensor [B, n_tiles, 3, t, t]
        Normalised tiles.
    labels : Tensor, int64 [B]
        Row of the permutation set that shuffled each image.
    cells : Tensor, int64 [B, n_tiles]
        Cell of the image that each slot shows. A slot is a place of the puzzle. `OCCLUDED` if the
        slot shows another image.
    """

    tiles: Tensor
    labels: Tensor
    cells: Tensor


_ORDERS = 0x70757A7A
"""Makes the random numbers of the orders differ from others of the same seed and epoch."""

OCCLUDED = -1
"""Cell of an occluded slot in `Puzzles.cells`."""


class JigsawTask:
    """Name the permutation that shuffled the tiles of an image (Jigsaw++).

    A network that learns from the loss of the permutation alone can stay at chance for its whole
    training. Two options help; Noroozi et al. 2018 use neither.

    - `puzzles_per_image`: a step shows the tiles of each image in several orders. The trunk and the
      tile encoder, which take nearly all the time, run once per tile for all orders. The tiles and
      the occluders are the same in all orders of an image.
    - `cell_loss` adds the cross-entropy of the cell that each slot shows.

    Parameters
    ----------
    model : JigsawNet
        Puzzle network.
    permutations : array, integers [P, n_tiles]
        Permutation set.
    seed : int
        Seed of all random choices of the puzzles.
    cell_loss : float, default 0
        Weight of the loss of naming the cell of each slot. Above 0, the network must name cells.
    puzzles_per_image : int, default 1
        Number of permutations in which a step shows the tiles of each image.
    slots : int, optional
        Number of slots, counted from the first one, that the network sees. None: all.
    **options : Any
        Further options of `ktfast.ops.jigsaw_tiles`, such as tile_size.

    Raises
    ------
    InputError
        An option is given that the task takes from the batch or the network; `cell_loss` is given
        for a network that does not name cells; or `puzzles_per_image` is not between 1 and the
        number of permutations.
    """

    def __init__(
        self,
        model: JigsawNet,
        permutations: npt.NDArray[Any] | Tensor,
        *,
        seed: int,
        cell_loss: float = 0.0,
        puzzles_per_image: int = 1,
        slots: int | None = None,
        **options: Any,
    ) -> None:
        if cell_loss and not model.names_cells:
            raise InputError(
                f"cell_loss is {cell_loss:g}, but the network does not name cells; build JigsawNet"
                " with names_cells=True"
            )
        self.cell_loss = cell_loss
        self.model = model
        self.permutations = torch.as_tensor(np.asarray(permutations))
        if not 1 <= puzzles_per_image <= len(self.permutations):
            raise InputError(
                f"puzzles_per_image must lie between 1 and the number of permutations "
                f"({len(self.permutations)}), got {puzzles_per_image}"
            )
        self.puzzles_per_image = puzzles_per_image
        self.seed = seed
        self.slots = slots
        self.options = options
        # Memory of the tiles of the last step, by type, device and channels-last order.
        self._kept: dict[tuple[torch.dtype, torch.device, bool], Tensor] = {}
        for name in _SET_BY_TASK:
            if name in options:
                raise InputError(f"JigsawTask sets {name} itself; leave it out")

    def step(self, batch: Batch, epoch: int) -> StepOutput:
        """Loss of a batch, and the share of puzzles and of cells that the network names.

        A step writes its tiles over the tiles of the last step. Run the backward pass of a step
        before the next step; otherwise autograd raises a RuntimeError.
        """
        tiles, labels, cells = self.puzzles(batch, epoch, reuse=True)
        if self.puzzles_per_image == 1:
            logits = self.model(tiles)
        else:
            orders, labels = self._reordered(labels, epoch)
            logits = self.model(tiles, orders)
            cells = cells.unsqueeze(1).expand_as(orders).gather(2, orders).flatten(0, 1)
        permutations, named = self.model.split(logits)
        output = label_loss(permutations, labels)
        if named is None:
            return output
        shown = cells != OCCLUDED
        # The mean over all slots does not depend on how a batch is cut into micro-batches. The mean
        # over the slots that are not occluded would.
        loss = functional.cross_entropy(
            named.float().flatten(0, 1), cells.flatten(), ignore_index=OCCLUDED, reduction="sum"
        )
        right = ((named.detach().argmax(2) == cells) & shown).sum() / shown.sum()
        return StepOutput(
            output.loss + self.cell_loss * loss / cells.numel(),
            {**output.metrics, "cell_accuracy": right},
        )

    def _reordered(self, labels: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Show each puzzle of a batch in several orders.

        The first order is that of the puzzle. The permutation of every further order is that of
        the puzzle plus an offset that is drawn for the epoch. So the permutations of an image
        differ, each is equally likely, and they do not depend on the other images of the batch.

        Parameters
        ----------
        labels : Tensor, int64 [B]
            Permutation of each puzzle.
        epoch : int
            Epoch of the random choices.

        Returns
        -------
        orders : Tensor, int64 [B, K, n_tiles]
            Slots of the puzzle whose tiles the slots of each order show.
        labels : Tensor, int64 [B * K]
            Permutation of each order.
        """
        n = len(self.permutations)
        generator = np.random.default_rng([self.seed, epoch, _ORDERS])
        drawn = 1 + generator.choice(n - 1, self.puzzles_per_image - 1, replace=False)
        offsets = torch.tensor([0, *drawn], device=labels.device)
        shown = (labels.unsqueeze(1) + offsets) % n
        permutations = self.permutations.long()
        slot_of_cell = permutations.argsort(1)[labels]
        orders = slot_of_cell.unsqueeze(1).expand(-1, len(offsets), -1)
        return orders.gather(2, permutations[shown]), shown.flatten()

    def measure(self, batch: Batch, epoch: int) -> Tensor:
        """Whether the network names the permutation of each puzzle, bool [B]."""
        tiles, labels, _ = self.puzzles(batch, epoch)
        permutations, _ = self.model.split(self.model(tiles))
        return permutations.argmax(1) == labels

    def puzzles(self, batch: Batch, epoch: int, *, reuse: bool = False) -> Puzzles:
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
        puzzles : Puzzles
            Tiles, labels and cells.
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
        tiles, labels, choices = jigsaw_tiles(
            batch.pool,
            self.permutations,
            indices=batch.indices,
            sample_ids=batch.sample_ids.to(device, non_blocking=True),
            seed=self.seed,
            epoch=epoch,
            dtype=str(dtype).removeprefix("torch."),
            channels_last=channels_last,
            return_choices=True,
            out=None if kept is None or len(kept) < len(batch) else kept[: len(batch)],
            **self.options,
        )
        # Keep only the largest memory: the last batch of an epoch may be smaller. Do not keep an
        # inference tensor: autograd would refuse it in a later training step.
        if reuse and len(tiles) > (0 if kept is None else len(kept)) and not tiles.is_inference():
            self._kept = {kind: tiles}
        cells = choices.cells.long().masked_fill_(choices.occluded.bool(), OCCLUDED)
        return Puzzles(tiles[:, : self.slots], labels, cells[:, : self.slots])
