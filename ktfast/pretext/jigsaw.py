"""Tasks on tiles: Jigsaw++, plain Jigsaw and context prediction share a kernel and a network class.

- Jigsaw++ (Noroozi et al. 2018): name the permutation of nine tiles, some from another image.
- Jigsaw (Noroozi and Favaro 2016): name the permutation of nine tiles of one image.
- Context (Doersch et al. 2015): name the place of a tile beside the middle tile.
"""

import functools
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ktfast.images.feeds.base import Batch
from ktfast.models import Trunk
from ktfast.ops.permutations import permutation_set
from ktfast.pretext.network import JigsawNet
from ktfast.pretext.permutation_files import read_permutations
from ktfast.pretext.pictures import Example
from ktfast.pretext.protocol import Pretext
from ktfast.pretext.task import JigsawTask
from ktfast.pretext.tile_pictures import Arrays, puzzle_arrays, puzzle_examples
from ktfast.training.loop import StepOutput

_CUT = "cut from the photograph, with the number of the cell"


class TilePretext(Pretext):
    """A task on tiles, which the kernel `jigsaw_tiles` cuts and shuffles with permutations."""

    legend: Mapping[str, str] = {"square": _CUT}
    conv1_stride = 2
    # Options of the section `pretext` that the task passes on to `jigsaw_tiles`.
    _kernel_options: tuple[str, ...] = (
        "tile_size", "jitter", "chroma_shift", "gray_probability", "projection_probability",
        "statistics",
    )  # fmt: skip

    @classmethod
    def last_layer(cls, trunk: Trunk) -> str:
        """Name the last layer whose map of a tile is large enough."""
        return trunk.puzzle_layer

    @property
    @abstractmethod
    def permutations(self) -> npt.NDArray[np.uint8]:
        """The permutation set, uint8 [P, n_tiles]."""

    def tile_options(self) -> dict[str, Any]:
        """Select the options of `ktfast.ops.jigsaw_tiles`."""
        options = {name: getattr(self.options, name) for name in self._kernel_options}
        return {"max_occluders": 0, **options}

    @functools.cached_property
    def puzzles(self) -> JigsawTask:
        """The puzzles, and the losses of the network on them."""
        assert isinstance(self.model, JigsawNet)
        return JigsawTask(
            self.model,
            self.permutations,
            seed=self.seed,
            n_threads=self.n_threads,
            **self._losses(),
            **self.tile_options(),
        )

    def _losses(self) -> dict[str, Any]:
        """Options of `JigsawTask` that are not those of the kernel."""
        return {}

    def step(self, batch: Batch, epoch: int) -> StepOutput:
        """Loss of naming the permutation, and the share of puzzles named right."""
        return self.puzzles.step(batch, epoch)

    def measure(self, batch: Batch, epoch: int) -> Tensor:
        """Whether the network names the permutation of each image, bool [B]."""
        return self.puzzles.measure(batch, epoch)

    def pictures(self, batch: Batch, epoch: int) -> Sequence[Example]:
        """Photographs with the squares that were cut, and the tiles as the network sees them."""
        return self._laid_out(
            puzzle_arrays(
                batch.images,
                batch.sample_ids,
                self.permutations,
                seed=self.seed,
                epoch=epoch,
                **self.tile_options(),
            )
        )

    def _laid_out(self, arrays: Arrays) -> list[Example]:
        return puzzle_examples(arrays)


class Jigsaw(TilePretext):
    """Name the permutation that shuffled the tiles of an image (Noroozi and Favaro, ECCV 2016)."""

    title = "Jigsaw"
    lead = (
        "Left: the photograph and the squares that were cut from it. Right: the shuffled tiles as "
        "the network sees them, normalised. The network must recognise the permutation."
    )
    remedy = (
        "Raise pretext.puzzles_per_image, set pretext.cell_loss to 1, lower "
        "pretext.training.learning_rate or pretext.permutations, or raise "
        "pretext.training.epochs. pretext.stop_at_chance ends such a training"
    )

    @functools.cached_property
    def permutations(self) -> npt.NDArray[np.uint8]:
        """The permutation set, uint8 [P, grid * grid]: read from the user's file, else computed."""
        options = self.options
        if options.permutation_file is not None:
            return read_permutations(
                options.permutation_file, options.grid, min_distance=self._occluders() + 1
            )
        return permutation_set(
            options.permutations, grid=options.grid, min_distance=options.min_distance
        )

    def _occluders(self) -> int:
        """Largest number of tiles that another image replaces."""
        return 0

    @property
    def n_permutations(self) -> int:
        """Size of the permutation set. Reading the size does not compute the set."""
        from_file = self.options.permutation_file is not None
        return len(self.permutations) if from_file else self.options.permutations

    @property
    def chance(self) -> float:
        """Accuracy of guessing the permutation."""
        return 1 / self.n_permutations

    def build(self, trunk: Trunk) -> JigsawNet:
        """Build the puzzle network."""
        options = self.options
        return JigsawNet(
            trunk,
            self.n_permutations,
            n_tiles=options.grid**2,
            tile_size=options.tile_size,
            tile_features=options.tile_features,
            hidden=options.hidden,
            dropout=options.dropout,
            names_cells=options.cell_loss > 0,
        )

    def _losses(self) -> dict[str, Any]:
        options = self.options
        return {
            "cell_loss": options.cell_loss,
            "puzzles_per_image": options.puzzles_per_image,
        }

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Give the permutation set."""
        return {"permutations": self.permutations}


class JigsawPlusPlus(Jigsaw):
    """Jigsaw with occluders: some tiles come from another image (Noroozi et al., CVPR 2018)."""

    title = "Jigsaw++"
    legend: Mapping[str, str] = {"square": _CUT, "marked": "taken from another image (occluder)"}
    # An occluder comes from another image, so the task needs two images.
    fewest_images = 2
    _kernel_options = (*Jigsaw._kernel_options, "max_occluders", "donor_color")

    def _occluders(self) -> int:
        return self.options.max_occluders


_NEIGHBOURS = (
    "above left", "above", "above right", "left", "right", "below left", "below", "below right",
)  # fmt: skip
_MIDDLE, _CELLS = 4, 9


class Context(TilePretext):
    """Name the place of a tile beside the middle tile (Doersch, Gupta, Efros, ICCV 2015).

    The kernel shuffles all nine tiles with one of eight permutations. Each permutation puts the
    middle tile first and one of its eight neighbours second. The network sees only the first two
    tiles.
    """

    title = "Context prediction"
    lead = (
        "Left: the photograph and the two squares that were cut from it. Right: the two tiles as "
        "the network sees them, normalised. The network must name the place of the second tile "
        "beside the first one."
    )

    @functools.cached_property
    def permutations(self) -> npt.NDArray[np.uint8]:
        """Eight permutations: each begins with the middle cell and one of its neighbours."""
        neighbours = [cell for cell in range(_CELLS) if cell != _MIDDLE]
        rows = [
            [_MIDDLE, cell, *(other for other in neighbours if other != cell)]
            for cell in neighbours
        ]
        return np.array(rows, dtype=np.uint8)

    @property
    def chance(self) -> float:
        """Accuracy of guessing the neighbour."""
        return 1 / len(_NEIGHBOURS)

    def build(self, trunk: Trunk) -> JigsawNet:
        """Build the network: one encoder for both tiles, then one classifier."""
        options = self.options
        return JigsawNet(
            trunk,
            len(_NEIGHBOURS),
            n_tiles=2,
            tile_size=options.tile_size,
            tile_features=options.tile_features,
            hidden=options.hidden,
            dropout=options.dropout,
        )

    def _losses(self) -> dict[str, Any]:
        return {"slots": 2}

    def _laid_out(self, arrays: Arrays) -> list[Example]:
        return puzzle_examples(
            arrays,
            slots=2,
            caption=_neighbour_caption,
            alt="the two tiles that the network sees",
        )


def _neighbour_caption(arrays: Arrays, row: int) -> str:
    place = _NEIGHBOURS[int(arrays["labels"][row])]
    return f"the second tile lies {place}{'' if place in ('above', 'below') else ' of'} the first"
