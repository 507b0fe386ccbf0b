"""Teachers that somebody else wrote: what they may return, and how their failures are told."""

import logging
import sys

import numpy as np
import pytest
import torch

from ktfast.errors import ConfigError
from ktfast.features import foreign
from ktfast.features.foreign import checked, file_of, import_function
from ktfast.features.teachers import callable_teacher
from ktfast.features.torchvision_teacher import torchvision_crop, torchvision_teacher

IMAGES = torch.arange(4 * 16 * 16 * 3).reshape(4, 16, 16, 3).remainder(251).to(torch.uint8)
ROWS = IMAGES.float().flatten(1)[:, :6]
LAYER = torch.nn.Linear(6, 6, bias=False)
torch.nn.init.eye_(LAYER.weight)

JUST_WORK = {
    "gradients": lambda images: LAYER(ROWS),
    "float16": lambda images: ROWS.half(),
    "bfloat16": lambda images: ROWS.bfloat16(),
    "integers": lambda images: ROWS.to(torch.int64),
    "NumPy, float64": lambda images: ROWS.numpy().astype(np.float64),
    "NumPy, byte-swapped": lambda images: ROWS.numpy().astype(">f4"),
    "NumPy, read-only": lambda images: np.broadcast_to(ROWS.numpy(), (4, 6)),
    "NumPy, reversed": lambda images: ROWS.numpy()[:, ::-1].copy()[:, ::-1],
    "columns": lambda images: ROWS.T.contiguous().T,
    "pooled maps": lambda images: ROWS[:, :, None, None].to(memory_format=torch.channels_last),
    "parameter": lambda images: torch.nn.Parameter(ROWS.clone()),
}


@pytest.mark.parametrize("name", JUST_WORK)
def test_whatever_holds_one_row_per_image_just_works(name):
    found = checked(JUST_WORK[name], "mine:f")(IMAGES)
    assert (found.dtype, tuple(found.shape), found.requires_grad) == (torch.float32, (4, 6), False)
    assert found.is_contiguous()
    expected = ROWS.bfloat16().float() if name == "bfloat16" else ROWS
    assert torch.equal(found, expected)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda images: ROWS[:3], r"returned shape \(3, 6\), torch.float32, for 4 images"),
        (lambda images: ROWS[0], r"returned shape \(6,\)"),
        (lambda images: images, r"returned shape \(4, 16, 16, 3\).*expected real numbers \[4, d\]"),
        (lambda images: ROWS[:, :0], r"returned shape \(4, 0\)"),
        (lambda images: ROWS + 1j, r"returned shape .*complex64"),
        (lambda images: [ROWS], r"returned a list"),
        (lambda images: None, r"returned a NoneType"),
        (lambda images: np.array(["a"] * 4), r"returned a <U1 array"),
        (
            lambda images: {}["key"],
            r"fails on images uint8 \[4, 16, 16, 3\] \(KeyError: 'key', .*t",
        ),
    ],
)
def test_other_results_are_refused_by_name(function, message):
    with pytest.raises(ConfigError, match=f"'mine:f' {message}"):
        checked(function, "mine:f")(IMAGES)


def test_a_module_is_named_before_it_runs(tmp_path, monkeypatch, caplog):
    (tmp_path / "some_teacher.py").write_text(
        "import logging\nlogging.getLogger('ktfast.own').info('the module runs')\n"
        "def f(images):\n    return images.float().flatten(1)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert file_of("some_teacher:f") == str(tmp_path / "some_teacher.py")
    with caplog.at_level(logging.INFO, "ktfast"):
        for _ in range(2):
            assert callable_teacher("some_teacher:f")(IMAGES).shape == (4, 768)
    said = [record.message for record in caplog.records]
    place = tmp_path / "some_teacher.py"
    assert said == [
        f"features.source some_teacher:f runs code of the file {place}",
        "the module runs",
    ]
    monkeypatch.delitem(sys.modules, "some_teacher")


def test_looking_for_a_file_runs_no_code(tmp_path, monkeypatch):
    (tmp_path / "quiet").mkdir()
    (tmp_path / "quiet/__init__.py").write_text("raise SystemExit('ran')")
    (tmp_path / "quiet/inner.py").write_text("raise SystemExit('ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert file_of("quiet.inner:f") == str(tmp_path / "quiet/inner.py")
    assert file_of("nowhere.at.all:f") == ""
    assert foreign.is_function("quiet.inner:f")
    assert not foreign.is_function("torchvision:resnet18")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("f = 3", "is not callable"),
        ("g = 3", "has no attribute 'f'"),
        ("x = (", "SyntaxError"),
        ("raise KeyError('gpu')", r"KeyError: 'gpu', .*broken_teacher\.py line 1"),
    ],
)
def test_a_module_that_cannot_be_imported_is_one_sentence(tmp_path, monkeypatch, code, message):
    (tmp_path / "broken_teacher.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=message):
        import_function("broken_teacher:f")
    sys.modules.pop("broken_teacher", None)


def test_the_crop_follows_a_model_that_takes_one_size():
    assert torchvision_crop("vit_b_16", 255) == 224
    assert torchvision_crop("vit_b_16", 224) == 224
    assert torchvision_crop("resnet18", 255) == 255
    assert torchvision_crop("regnet_x_400mf", 255) == 255  # needs values, not shapes, to be built
    assert torchvision_crop("no_such_model", 255) == 255


def test_a_model_at_another_crop_is_one_sentence(tmp_path):
    from torchvision.models import get_model

    torch.save(get_model("vit_b_32").state_dict(), tmp_path / "vit.pth")
    teacher = torchvision_teacher("vit_b_32", tmp_path / "vit.pth", "cpu")
    assert teacher(torch.zeros(1, 224, 224, 3, dtype=torch.uint8)).shape == (1, 768)
    with pytest.raises(ConfigError, match=r"vit_b_32' fails.*Expected 224 but got 255.*crop"):
        teacher(torch.zeros(1, 255, 255, 3, dtype=torch.uint8))
