"""The network that solves the puzzle: one encoder shared by all tiles, then one classifier.

With AlexNet up to pool5 this is the context-free network of Noroozi and Favaro 2016. With VGG-16
up to conv4_3, max-pooled to 4x4, this is the network of Noroozi et al. 2018.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ktfast.errors import ConfigError, InputError
from ktfast.models.trunk import Trunk

LARGEST_GRID = 4
"""Largest side of the map that a tile's encoder reads: the side of VGG's pool4 on a 64 px tile."""


class JigsawNet(nn.Module):
    """Logits over the permutations of a puzzle's tiles.

    Parameters
    ----------
    trunk : Trunk
        AlexNet (with conv1_stride=2) or VGG16. The network cuts the trunk in place after its
        `puzzle_layer`, because the puzzle trains no later weights.
    n_permutations : int
        Size of the permutation set.
    n_tiles : int
        Number of tiles of a puzzle.
    tile_size : int
        Side of a tile, pixels.
    tile_features : int
        Units of the fully connected layer that encodes each tile.
    hidden : int
        Units of the fully connected layer that joins all tiles.
    dropout : float
        Dropout probability after each of the two fully connected layers.
    names_cells : bool
        Also name the cell that each slot shows: n_tiles x n_tiles further logits of the last layer.
        `split` separates the further logits from those of the permutations.

    Raises
    ------
    ConfigError
        The tiles are too small for the trunk.
    """

    def __init__(
        self,
        trunk: Trunk,
        n_permutations: int,
        *,
        n_tiles: int = 9,
        tile_size: int = 64,
        tile_features: int = 1024,
        hidden: int = 4096,
        dropout: float = 0.5,
        names_cells: bool = False,
    ) -> None:
        super().__init__()
        trunk.truncate(trunk.puzzle_layer)
        side = trunk.features.side(tile_size)
        if side < 1:
            raise ConfigError(
                f"tile_size {tile_size} is too small for layer {trunk.features.last}: it needs at"
                f" least {trunk.features.smallest()} px"
            )
        self.trunk = trunk
        self.n_tiles = n_tiles
        self.n_permutations = n_permutations
        self.names_cells = names_cells
        # A trunk that ends in a pooling has a small map. The map of a convolution is pooled here.
        pooled = trunk.features.last.startswith("pool")
        self.grid = side if pooled else min(side, LARGEST_GRID)
        flat = trunk.channels[trunk.features.last] * self.grid**2
        self.tile_encoder = nn.Sequential(
            nn.Linear(flat, tile_features), nn.ReLU(inplace=True), nn.Dropout(dropout)
        )
        self.classifier = nn.Sequential(
            nn.Linear(n_tiles * tile_features, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, n_permutations + (n_tiles**2 if names_cells else 0)),
        )

    def forward(self, tiles: Tensor, orders: Tensor | None = None) -> Tensor:
        """Logits of puzzles: those of the permutations, then those of the cells.

        Parameters
        ----------
        tiles : Tensor [B, n_tiles, 3, t, t]
            Normalised tiles of B puzzles.
        orders : Tensor, int64 [B, K, n_tiles], optional
            Orders in which the classifier sees the tiles of each puzzle. Row k of a puzzle names
            the tiles of the k-th order. The trunk and the tile encoder run once per tile for all
            orders. None: the one order of `tiles`.

        Returns
        -------
        logits : Tensor [B, n_permutations (+ n_tiles**2)], or [B * K, ...] with orders
            Logits; the K orders of a puzzle stand one after another.
        """
        if tiles.ndim != 5 or tiles.shape[1] != self.n_tiles:
            raise InputError(
                f"tiles must have shape [B, {self.n_tiles}, 3, t, t], got {tuple(tiles.shape)}"
            )
        puzzles = tiles.shape[0]
        maps = self._pool(self.trunk.features(tiles.flatten(0, 1)))
        encoded = self.tile_encoder(torch.flatten(maps, 1)).view(puzzles, self.n_tiles, -1)
        if orders is not None:
            # A product with zeros and ones copies the values exactly. Its gradient adds in a fixed
            # order on a GPU; the gradient of indexing does not.
            chosen = functional.one_hot(orders.flatten(1), self.n_tiles).to(encoded.dtype)
            encoded = torch.bmm(chosen, encoded).view(-1, self.n_tiles, encoded.shape[2])
        logits: Tensor = self.classifier(encoded.flatten(1))
        return logits

    def split(self, logits: Tensor) -> tuple[Tensor, Tensor | None]:
        """Separate the logits of the permutations from the logits of the cells.

        Parameters
        ----------
        logits : Tensor [B, n_permutations or n_permutations + n_tiles**2]
            Output of the network.

        Returns
        -------
        permutations : Tensor [B, n_permutations]
            Logits of the permutations.
        cells : Tensor [B, n_tiles, n_tiles] or None
            Logits of the cells that each slot may show; None unless the network names cells.
        """
        if not self.names_cells:
            return logits, None
        cells = logits[:, self.n_permutations :].reshape(-1, self.n_tiles, self.n_tiles)
        return logits[:, : self.n_permutations], cells

    def _pool(self, maps: Tensor) -> Tensor:
        """Max-pool maps to grid x grid with windows of equal size that cover the whole map.

        If grid divides the side, this is ordinary pooling, such as pool4 on 64 px tiles. In
        contrast to torch's adaptive pooling, this pooling has a deterministic gradient on a GPU.
        """
        side = maps.shape[-1]
        if side <= self.grid:
            return maps
        stride = side // self.grid
        return functional.max_pool2d(maps, side - (self.grid - 1) * stride, stride)
