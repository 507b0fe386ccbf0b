"""Detection and segmentation with convolutional networks of a library."""

import numpy as np
import pytest
import torch

from ktfast.config import load_config
from ktfast.errors import ConfigError
from ktfast.models import Student
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.fine_tune_voc import check_protocol
from ktfast.voc import student_heads
from ktfast.voc.data import VocSet
from ktfast.voc.detection import DetectionTask, detect
from ktfast.voc.feed import ViewFeed
from ktfast.voc.proposals import Proposals
from ktfast.voc.segmentation import SegmentationTask, segment
from ktfast.voc.student_heads import StudentFCN, StudentRCNN, map_stride
from ktfast.voc.views import Masked, Rescaled
from support.voc_folder import voc_folder

NAME = "torchvision:shufflenet_v2_x0_5"


def student(name=NAME):
    torch.manual_seed(0)
    return Student(name, 1, image_size=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return voc_folder(tmp_path_factory.mktemp("voc") / "VOC2007", n=3)


@pytest.mark.parametrize("name", ["resnet18", "swin_t"])
def test_networks_that_take_photographs_of_any_size_are_known(name):
    with torch.device("meta"):
        assert map_stride(Student(f"torchvision:{name}", 1, image_size=224)) == 32


@pytest.mark.parametrize(
    ("name", "reason"), [("vit_b_16", "one size only"), ("squeezenet1_1", "not proportional")]
)
@pytest.mark.parametrize("protocol", ["detection", "segmentation"])
def test_other_networks_are_refused_with_the_reason(name, reason, protocol, tmp_path):
    options = {"transfer.target": f"torchvision:{name}", "transfer.crop": 224}
    run = RunFolder(tmp_path, load_config(None, options))
    with pytest.raises(ConfigError, match=rf"voc\.{protocol} needs .* {reason}.*leave voc\."):
        check_protocol(run, protocol)
    check_protocol(run, "classification")


def all_learn(model):
    learning = [p for p in model.parameters() if p.requires_grad]
    return bool(learning) and all(p.grad is not None for p in learning)


def test_every_pixel_gets_a_class(folder):
    model = StudentFCN(student(), 21)
    masks = VocSet(folder, "few", "Segmentation")
    torch.nn.init.normal_(model.scores.weight, std=0.1)
    task = SegmentationTask(model)
    with ViewFeed(Masked(masks, seed=0, mirror=True), batch_size=3, shuffle=False) as feed:
        task.step(next(feed.epoch(0)), 0).loss.backward()
    assert all_learn(model)
    with ViewFeed(Masked(masks, seed=0, mirror=False), batch_size=1, shuffle=False) as feed:
        confusion = segment(model, feed, 21)
    counted = sum(int((masks.mask(row) != 255).sum()) for row in range(masks.n))
    assert confusion.counts.sum() == counted
    torch.nn.init.zeros_(model.scores.weight)
    torch.nn.init.constant_(model.scores.bias, 3.0)
    with torch.inference_mode():
        assert model(torch.zeros(1, 3, 70, 101)).numpy() == pytest.approx(3.0, abs=1e-5)


def test_regions_are_read_where_they_lie(folder, monkeypatch):
    monkeypatch.setattr(student_heads, "HIDDEN", 16)
    model = StudentRCNN(student(), 20).eval()
    assert model.stride == 32
    image = torch.zeros(1, 3, 160, 256)
    with torch.inference_mode():
        before = model.features(image)
        image[..., 76:84, 172:180] = 60
        change = (model.features(image) - before).abs().sum(1)
    y, x = divmod(int(change.argmax()), change.shape[-1])
    assert (abs(y - 2), abs(x - 5)) <= (1, 1)
    photographs = VocSet(folder, "few")
    view = Rescaled(photographs, short_sides=(100,), longest=200, seed=0, mirror=False)
    task = DetectionTask(model.train(), view, Proposals(photographs), regions=8)
    with ViewFeed(view, batch_size=3, shuffle=False) as feed:
        task.step(next(feed.epoch(0)), 0).loss.backward()
    assert all_learn(model)
    assert not any(m.training for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    with ViewFeed(view, batch_size=1, shuffle=False) as feed:
        found = detect(model, [feed], Proposals(photographs))
    assert len(found) == 3
    assert all(np.isfinite(each.scores).all() for each in found)
