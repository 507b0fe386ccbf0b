"""Fine-tuning on PASCAL VOC of weights from files, in a run folder without any other stage."""

import json

import pytest
import torch

import ktfast
from ktfast.errors import ConfigError, DataError
from ktfast.models import build_target, initialize
from ktfast.pipeline.steps.networks import save_network
from ktfast.report import write_report
from support.voc_folder import voc_folder

SEEN = {"short_side": 256, "image_size": 64, "crop": 56, "normalization": "image"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("files")
    voc_folder(root / "VOC", n=4)
    torch.manual_seed(0)
    ours = build_target("alexnet", n_classes=3, width=0.0625, image_size=56)
    initialize(ours)
    save_network(ours, root / "ours.safetensors", SEEN)
    return root


def options(files, **more):
    return {
        "device": "cpu",
        "threads": 1,
        "evaluate.models": {"ours": str(files / "ours.safetensors")},
        "voc.models": ("ours",),
        **{f"voc.{protocol}.{key}": value for protocol in ("classification", "svm")
           for key, value in (("folder", str(files / "VOC")), ("train", "few"), ("test", "other"))},
        "voc.classification.training.epochs": 0.5,
        "voc.classification.training.batch_size": 4,
        "voc.classification.test_crops": 1,
        "voc.svm.costs": (0.1,),
        "voc.svm.shots": (1,),
        "voc.svm.samples": 2,
        **{name.replace("__", "."): value for name, value in more.items()},
    }  # fmt: skip


def test_files_are_fine_tuned_without_a_transfer(files, tmp_path):
    ktfast.run(options(files), tmp_path / "run", stages=["voc"])
    for protocol in ("classification", "svm"):
        stored = json.loads((tmp_path / f"run/voc/{protocol}/result.json").read_text())
        assert list(stored["summary"]["models"]) == ["ours"]
        assert 0 <= stored["summary"]["models"]["ours"]["score"] <= 1
    assert "ours" in write_report(tmp_path / "run").read_text()
    other = build_target("alexnet", n_classes=0, width=0.0625, image_size=56)
    save_network(other, tmp_path / "other.safetensors", SEEN)
    models = {"ours": str(tmp_path / "other.safetensors")}
    with pytest.raises(ConfigError, match=r"the weights in .*other\.safetensors"):
        ktfast.run(options(files, evaluate__models=models), tmp_path / "run", stages=["voc"])


def test_unknown_models_and_missing_files_are_refused(files, tmp_path):
    with pytest.raises(ConfigError, match=r"voc\.models: 'mine' is unknown; give transfer"):
        ktfast.run(options(files, voc__models=("mine",)), tmp_path / "run", stages=["voc"])
    absent = {"ours": str(files / "absent.pth")}
    with pytest.raises(DataError, match=r"absent\.pth does not exist"):
        ktfast.run(options(files, evaluate__models=absent), tmp_path / "run", stages=["voc"])
