"""A layer of any network as one row per image, and several teachers as one."""

import pytest
import torch

from ktfast.errors import ConfigError
from ktfast.features.ensemble import fit_part, join
from ktfast.features.layers import check_layer, network_teacher, rows_of

MAP = torch.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4).float()
TOKENS = torch.arange(2 * 5 * 3).reshape(2, 5, 3).float()
GRAY = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 5, 3), torch.nn.ReLU(inplace=True), torch.nn.Conv2d(5, 2, 3)
    )


def images(n=2, side=8):
    return torch.randint(0, 256, (n, side, side, 3), generator=torch.manual_seed(1)).byte()


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (MAP, MAP.unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5)).flatten(1)),
        (MAP.permute(0, 2, 3, 1), MAP.unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5)).flatten(1)),
        (MAP[:, :, :1, :1], MAP[:, :, 0, 0]),  # no value is repeated to fill 2 x 2 cells
        ((TOKENS, None), TOKENS.mean(1)),
        (TOKENS[:, 0], TOKENS[:, 0]),
    ],
)
def test_every_form_of_an_output_is_one_row_per_image(output, expected):
    found = rows_of(output, pool=2, pooling="max", class_token=False)
    assert torch.equal(found, expected)
    assert torch.equal(rows_of(TOKENS, pool=2, pooling="max", class_token=True), TOKENS[:, 0])


def test_a_layer_is_read_before_the_next_layer_changes_it_in_place():
    model, pixels = network(), (images().permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    teacher = network_teacher(model, "x:y@0", **GRAY, layer="0", pool=99, pooling="max")
    assert torch.allclose(teacher(images()), model[0](pixels).flatten(1), atol=1e-5)
    whole = network_teacher(model, "x:y", **GRAY, layer="", pool=1, pooling="max")
    assert torch.allclose(whole(images()), model(pixels).flatten(1), atol=1e-5)
    assert not any(module._forward_hooks for module in model)


def test_an_unknown_layer_is_refused_with_the_layers_that_exist():
    with pytest.raises(ConfigError, match=r"'x:y@3': the network has no layer '3'.* are 0, 1, 2"):
        check_layer(network(), "3", "x:y@3")
    deep = torch.nn.Sequential(*(torch.nn.Sequential(torch.nn.ReLU()) for _ in range(30)))
    with pytest.raises(ConfigError, match=r"did you mean 29.0\?.* 0, 1, .*20 layers inside"):
        check_layer(deep, "29.00", "x:y@29.00")
    model = network()
    model.spare = torch.nn.ReLU()
    model.forward = lambda pixels: model[0](pixels)
    with pytest.raises(ConfigError, match="never calls its layer '2'"):
        network_teacher(model, "x:y@2", **GRAY, layer="2", pool=1, pooling="max")(images())


def test_the_teachers_of_an_ensemble_have_equal_weight():
    """The squared distance is the mean of those of the teachers alone, whatever their scale."""
    shown = images(40)

    def small(given):
        return given.float().flatten(1)[:, :20]

    def large(given):
        return given.float().flatten(1)[:, 50:150] * 1000

    parts = [(t, fit_part(iter(t(shown).split(16)), 12, seed=0)) for t in (small, large)]
    rows = join(parts)(shown)
    assert rows.shape == (40, 24)
    assert torch.allclose(rows.square().sum(1), torch.ones(40), atol=1e-5)
    alone = [torch.cdist(t.apply_tensor(f(shown)), t.apply_tensor(f(shown))) for f, t in parts]
    expected = sum(distances.square() for distances in alone) / 2
    assert torch.allclose(torch.cdist(rows, rows).square(), expected, atol=1e-3)


def test_a_part_keeps_no_more_dimensions_than_it_has():
    rows = torch.randn(9, 30, generator=torch.manual_seed(0))
    assert fit_part(iter(rows.split(4)), 256, seed=0).dim == 9
    assert fit_part(iter(rows[:, :5].split(4)), 256, seed=0).dim == 5
    assert fit_part(iter(rows.split(4)), 3, seed=0).dim == 3
