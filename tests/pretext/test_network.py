"""The puzzle network: the paper's sizes, one encoder for all tiles, first weights."""

import math

import pytest
import torch
from torch.nn import functional

from ktfast.errors import ConfigError, InputError
from ktfast.images.augment import normalize_images
from ktfast.models import VGG16, AlexNet, initialize
from ktfast.pretext.network import JigsawNet
from support.one_thread import one_thread_and_a_seed  # noqa: F401
from support.photographs import squares
from support.tolerances import CONVOLUTION_ORDER


def photographs(n: int, side: int) -> torch.Tensor:
    return normalize_images(torch.from_numpy(squares(n, side)), "image")


def tiles_of_photographs(puzzles: int, side: int) -> torch.Tensor:
    return photographs(puzzles * 9, side).reshape(puzzles, 9, 3, side, side)


def test_vgg_puzzle_network_has_the_papers_sizes():
    with torch.device("meta"):
        net = JigsawNet(VGG16(0), 701)
    assert net.trunk.layers[-1] == "conv4_3"
    assert net.tile_encoder[0].weight.shape == (1024, 512 * 4 * 4)
    assert net.classifier[0].weight.shape == (4096, 9 * 1024)
    assert net.classifier[-1].weight.shape == (701, 4096)


def test_alexnet_puzzle_network_has_the_papers_sizes():
    with torch.device("meta"):
        net = JigsawNet(AlexNet(0, conv1_stride=2), 701)
    assert net.tile_encoder[0].weight.shape == (1024, 256 * 3 * 3)


def test_pooling_is_pool4_on_tiles_of_64_px():
    vgg = VGG16(0, width=0.125)
    tiles = photographs(3, 64)
    expected = vgg.features(tiles, "pool4")
    net = JigsawNet(vgg, 10, tile_features=8, hidden=8)
    assert torch.equal(net._pool(net.trunk.features(tiles)), expected)


@pytest.mark.parametrize(("tile", "grid"), [(8, 1), (16, 2), (24, 3), (32, 4), (48, 4), (72, 4)])
def test_other_tile_sizes_are_pooled_to_at_most_four(tile, grid):
    net = JigsawNet(VGG16(0, width=0.125), 10, tile_size=tile, tile_features=8, hidden=8)
    maps = net.trunk.features(photographs(2, tile))
    pooled = net._pool(maps)
    assert pooled.shape[-2:] == (grid, grid)
    # Every value of the map lies in a window, so that the largest value remains.
    assert torch.equal(pooled.amax((2, 3)), maps.amax((2, 3)))
    assert net(tiles_of_photographs(1, tile)).shape == (1, 10)


def test_tiles_share_one_encoder():
    net = JigsawNet(VGG16(0, width=0.125), 10, tile_size=32, tile_features=8, hidden=16).eval()
    tiles = tiles_of_photographs(2, 32)
    order = torch.randperm(9)
    encoded = []
    net.classifier.register_forward_pre_hook(lambda _, inputs: encoded.append(inputs[0]))
    net(tiles), net(tiles[:, order])
    first, second = (value.reshape(2, 9, 8) for value in encoded)
    torch.testing.assert_close(second, first[:, order], rtol=CONVOLUTION_ORDER, atol=1e-6)


def test_wrong_tiles_are_refused():
    net = JigsawNet(VGG16(0, width=0.125), 10, n_tiles=4, tile_size=16, tile_features=8, hidden=8)
    with pytest.raises(InputError, match=r"\[B, 4, 3, t, t\]"):
        net(torch.zeros(2, 9, 3, 16, 16))
    with pytest.raises(ConfigError, match="at least 25 px"):
        JigsawNet(AlexNet(0, conv1_stride=2), 10, tile_size=24)


def test_puzzle_starts_at_the_loss_of_a_guess():
    permutations = 701
    net = JigsawNet(VGG16(0, width=0.5), permutations, tile_features=512, hidden=2048)
    initialize(net)
    tiles, labels = tiles_of_photographs(8, 64), torch.randint(0, permutations, (8,))
    with torch.no_grad():
        loss = functional.cross_entropy(net.eval()(tiles), labels)
    assert float(loss) == pytest.approx(math.log(permutations), rel=0.01)


def test_first_weights_follow_the_rule():
    net = JigsawNet(VGG16(0, width=0.5, batch_norm=True), 100, tile_features=256, hidden=512)
    initialize(net)
    assert float(net.classifier[-1].weight.detach().std()) == pytest.approx(0.001, rel=0.02)
    assert float(net.tile_encoder[0].weight.detach().std()) == pytest.approx(
        math.sqrt(2 / (256 * 16)), rel=0.02
    )
    assert all(
        value.abs().max() == 0 for name, value in net.named_parameters() if name.endswith("bias")
    )
    torch.manual_seed(5)
    initialize(net)
    once = net.classifier[0].weight.clone()
    torch.manual_seed(5)
    initialize(net)
    assert torch.equal(net.classifier[0].weight, once)
