"""The network that solves the puzzle: one encoder shared by all tiles, then one classifier.

Context-free network of Noroozi and Favaro 2016 (AlexNet up to pool5) and its VGG-16 form of
Noroozi et al. 2018 (up to conv4_3, max-pooled to 4x4).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from ktfast.errors import ConfigError, InputError
from ktfast.models.trunk import Trunk

VGG_GRID = 4
"""Side of VGG's last map: what pool4 gives on a 64 px tile."""


class JigsawNet(nn.Module):
    """Logits over the permutations of a puzzle's tiles.

    Parameters
    ----------
    trunk : AlexNet (with conv1_stride=2) or VGG16. It is cut after `layer`: the network keeps no
        weights that the puzzle cannot train.
    n_permutations : size of the permutation set.
    n_tiles : tiles of a puzzle.
    layer : last layer of the trunk; None: pool5 for AlexNet, conv4_3 for VGG16.
    tile_size : side of a tile, pixels.
    tile_features : units of the fully connected layer that each tile passes.
    hidden : units of the fully connected layer that all tiles pass together.
    dropout : after both of them.

    Raises
    ------
    ConfigError : the layer is unknown, or the tiles are too small for it.
    """

    def __init__(
        self,
        trunk: Trunk,
        n_permutations: int,
        *,
        n_tiles: int = 9,
        layer: str | None = None,
        tile_size: int = 64,
        tile_features: int = 1024,
        hidden: int = 4096,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        trunk.truncate(layer or trunk.puzzle_layer)
        side = trunk.features.side(tile_size)
        if side < 1:
            raise ConfigError(
                f"tile_size {tile_size} is too small for layer {trunk.features.last}: it needs at"
                f" least {trunk.features.smallest()} px"
            )
        self.trunk = trunk
        self.n_tiles = n_tiles
        # A pooled layer is small already; a convolution's map is pooled to at most 4x4.
        pooled = trunk.features.last.startswith("pool")
        self.grid = side if pooled else min(side, VGG_GRID)
        flat = trunk.channels[trunk.features.last] * self.grid**2
        self.tile_encoder = nn.Sequential(
            nn.Linear(flat, tile_features), nn.ReLU(inplace=True), nn.Dropout(dropout)
        )
        self.classifier = nn.Sequential(
            nn.Linear(n_tiles * tile_features, hidden),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(hidden, n_permutations),
        )

    def forward(self, tiles: Tensor) -> Tensor:
        """Logits [B, n_permutations] of tiles [B, n_tiles, 3, t, t]."""
        if tiles.ndim != 5 or tiles.shape[1] != self.n_tiles:
            raise InputError(
                f"tiles must have shape [B, {self.n_tiles}, 3, t, t], got {tuple(tiles.shape)}"
            )
        puzzles = tiles.shape[0]
        maps = self._pool(self.trunk.features(tiles.flatten(0, 1)))
        encoded = self.tile_encoder(torch.flatten(maps, 1))
        logits: Tensor = self.classifier(encoded.view(puzzles, -1))
        return logits

    def _pool(self, maps: Tensor) -> Tensor:
        """Max-pool to grid x grid with equal windows that cover the map.

        Where grid divides the side this is ordinary pooling: pool4 on 64 px tiles. Unlike torch's
        adaptive pooling it has a deterministic gradient on a GPU.
        """
        side = maps.shape[-1]
        if side <= self.grid:
            return maps
        stride = side // self.grid
        return functional.max_pool2d(maps, side - (self.grid - 1) * stride, stride)
