"""Fine-tuning on PASCAL VOC: networks on whole photographs, tasks, and the stage."""

import json
import math

import numpy as np
import pytest
import torch

from ktfast.cli.demo import PHOTOGRAPHS, write_views
from ktfast.cli.main import main
from ktfast.config import load_config
from ktfast.config.voc import VocDetectionConfig
from ktfast.errors import ConfigError, InputError
from ktfast.evaluation.average_precision import classification_precisions
from ktfast.images.augment import normalize_images, normalize_padded
from ktfast.images.feeds.base import Batch
from ktfast.models import build_trunk, initialize
from ktfast.models.data_init import fit_to_data, rescale_to_data
from ktfast.pipeline.run_folder import RunFolder
from ktfast.pipeline.steps.fine_tune_voc import _initialize, check_protocol
from ktfast.training.loop import train
from ktfast.voc.boxes import corrected, corrections, numbered, overlaps
from ktfast.voc.classification import MultiLabelTask, image_scores
from ktfast.voc.data import CLASSES, VocSet
from ktfast.voc.detection import DetectionTask, detect, detection_precisions
from ktfast.voc.feed import ViewFeed
from ktfast.voc.heads import FCN, FastRCNN
from ktfast.voc.proposals import Proposals
from ktfast.voc.segmentation import SegmentationTask, segment
from ktfast.voc.views import AreaCrops, Masked, Rescaled
from support.tiny_recipe import TINY
from support.toy_training import toy_config
from support.voc_folder import voc_folder


def trunk(name="alexnet", n_classes=3, **options):
    torch.manual_seed(0)
    defaults = {"width": 0.125, "image_size": 227 if name == "alexnet" else 224, "dropout": 0.0}
    model = build_trunk(name, n_classes=n_classes, **{**defaults, **options})
    initialize(model)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return voc_folder(tmp_path_factory.mktemp("voc") / "VOC2007")


@pytest.fixture(scope="module")
def photographs(folder):
    return VocSet(folder, "few")


# --- networks -------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "published"), [("alexnet", 18), ("vgg16", 19)])
def test_scores_lie_where_they_do_in_the_published_networks(name, published):
    """FCN-32s upsamples by kernels of 63 and 64 pixels, and cuts the image out at 18 and 19."""
    model = FCN(trunk(name), 21)
    size = 64 - (1 if float(model.center).is_integer() else 0)
    assert model.stride == 32
    assert (size - 1) / 2 - model.center == published


@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
@pytest.mark.parametrize("shape", [(1, 1), (33, 64), (375, 500), (501, 333)])
def test_every_pixel_lies_between_scores(name, shape):
    """Equal scores everywhere stay so: the weights of each pixel add up to one."""
    model = FCN(trunk(name), 2).eval()
    torch.nn.init.constant_(model.scores.bias, 3.0)
    with torch.inference_mode():
        logits = model(torch.zeros(1, 3, *shape))
    assert logits.shape == (1, 2, *shape)
    assert logits.numpy() == pytest.approx(3.0, abs=1e-5)


@pytest.mark.parametrize("variant", ["caffe", "torchvision"])
def test_the_classifier_becomes_convolutions(variant):
    original = trunk(variant=variant, image_size=99)
    images = torch.randn(2, 3, 99, 99)
    with torch.inference_mode():
        expected = original.eval().classifier[:-1](original.features(images).flatten(1))
        model = FCN(original, 4).eval()
        first = next(iter(model.features.convolutions().values()))
        first.padding = (0, 0) if variant == "caffe" else (2, 2)
        for module in model.features:
            if isinstance(module, torch.nn.MaxPool2d):
                module.ceil_mode = variant == "caffe"
        hidden = model.hidden(model.features(images))
    assert hidden.shape[-2:] == (1, 1)
    assert hidden.flatten(1).numpy() == pytest.approx(expected.numpy(), abs=1e-5)


@pytest.mark.parametrize("name", ["alexnet", "vgg16"])
def test_maps_of_the_detector_begin_over_the_image(name):
    """An object seen by one map pixel lies around 16 times its place."""
    model = FastRCNN(trunk(name), 2).eval()
    assert model.stride == 16
    with torch.inference_mode():
        maps = model.features(torch.zeros(1, 3, 160, 240))
        assert maps.shape[-2:] == (10, 15) if name == "vgg16" else (11, 16)
        image = torch.zeros(1, 3, 161, 241)
        image[..., 78:83, 158:163] = 60
        change = (model.features(image) - model.features(torch.zeros(1, 3, 161, 241))).abs().sum(1)
    y, x = divmod(int(change.argmax()), change.shape[-1])
    assert (abs(y - 5), abs(x - 10)) <= (1, 1)


def test_batch_norm_keeps_its_averages():
    for model in (FCN(trunk(batch_norm=True), 3), FastRCNN(trunk(batch_norm=True), 3)):
        norms = [m for m in model.train().modules() if isinstance(m, torch.nn.BatchNorm2d)]
        assert norms
        assert not any(module.training for module in norms)


def test_new_layers_are_fitted_to_data():
    """One after the other, on what the layers before make by then."""
    torch.manual_seed(0)
    dead = torch.nn.Linear(6, 5)
    torch.nn.init.zeros_(dead.weight[3])
    model = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(), torch.nn.Dropout(0.5), dead, torch.nn.ReLU(), torch.nn.Linear(5, 2),
    )  # fmt: skip
    images = 1e3 + torch.randn(64, 3, 9, 9)
    untouched = model[5].bias[3].item(), model[7].weight.clone()
    fit_to_data(model, [model[0], model[5]], lambda: model(images))
    assert model.training
    model.eval()
    with torch.inference_mode():
        maps, units = model[:1](images), model[:6](images)
    assert maps.mean((0, 2, 3)).numpy() == pytest.approx(0.1, abs=1e-3)
    assert maps.std((0, 2, 3)).numpy() == pytest.approx(1, rel=1e-2)
    alive = [0, 1, 2, 4]
    assert units[:, alive].mean(0).numpy() == pytest.approx(0.1, abs=1e-4)
    assert units[:, alive].std(0, correction=0).numpy() == pytest.approx(1, rel=1e-3)
    assert model[5].bias[3].item() == untouched[0]
    assert torch.equal(model[7].weight, untouched[1])


def test_trained_layers_are_rescaled_and_compute_the_same():
    """Up to a positive factor, which layers that are fitted afterwards take out."""
    torch.manual_seed(0)
    model = trunk(variant="torchvision", n_classes=0, image_size=99).eval()
    convolutions = list(model.features.convolutions().values())
    with torch.no_grad():
        for number, layer in enumerate(convolutions):
            layer.weight.mul_(4.0 if number % 2 else 0.3)
            layer.bias.uniform_(-0.1, 0.1)
    images = torch.randn(4, 3, 99, 99)
    with torch.inference_mode():
        before = model(images)
    rescale_to_data(model, convolutions, lambda: model(images))
    outputs = []
    for layer in convolutions:
        layer.register_forward_hook(lambda _, __, output: outputs.append(output.clone()))
    with torch.inference_mode():
        after = model(images)
    assert [float(output.std()) for output in outputs] == pytest.approx([1.0] * 5, rel=1e-3)
    factor = float((after * before).sum() / before.square().sum())
    assert factor > 0
    assert (after / factor).numpy() == pytest.approx(before.numpy(), rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("name", ["random", "transfer"])
def test_all_layers_can_be_fitted_to_data(photographs, name, tmp_path):
    config = load_config(None, {"voc.data_init": "all", "device": "cpu", "threads": 1})
    run = RunFolder(tmp_path, config)
    view = AreaCrops(photographs, crop=99, area=(0.1, 0.5), seed=0, mirror=True)
    task = MultiLabelTask(trunk(n_classes=20, image_size=99), photographs.presence())
    first, last = (task.model.features[at].weight.clone() for at in (0, -3))
    with torch.no_grad():
        before = task.model.features[0].weight.flatten(1).norm(dim=1)
    _initialize(run, task, task.model.new_layers(), view, name, batch_size=4)
    after = task.model.features[0].weight.flatten(1).norm(dim=1)
    factors = (after / before).detach()
    assert not torch.equal(task.model.features[-3].weight, last)
    assert not torch.equal(task.model.features[0].weight, first)
    # A trained layer has one factor, so that it computes the same; a random one, one per unit.
    assert (float(factors.std()) > 1e-3) == (name == "random")


def test_batch_norm_and_libraries_have_no_layers_to_fit(tmp_path):
    for target in ({"transfer.target": "torchvision:resnet18"}, {"transfer.batch_norm": True}):
        config = load_config(None, {"voc.data_init": "all", **target})
        run = RunFolder(tmp_path, config)
        with pytest.raises(ConfigError, match=r"voc\.data_init is all"):
            check_protocol(run, "classification")
        check_protocol(run, "svm")


# --- tasks ----------------------------------------------------------------------------------------
def batch_of(feed):
    return next(feed.epoch(0))


def test_only_what_counts_is_learnt_in_classification():
    class Constant(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.logits = torch.nn.Parameter(torch.tensor([2.0, -1.0, 0.5]))

        def forward(self, x):
            return self.logits.expand(len(x), -1)

    presence = np.array([[1, 0, -1], [-1, -1, 0]], np.int8)
    task = MultiLabelTask(Constant(), presence)
    images = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    output = task.step(Batch(images, torch.arange(2), torch.arange(2)), 0)

    def loss(logit, positive):
        return np.log1p(np.exp(-logit if positive else logit))

    expected = loss(2.0, True) + loss(0.5, False) + loss(2.0, False) + loss(-1.0, False)
    assert float(output.loss.detach()) == pytest.approx(expected / 2, rel=1e-6)
    assert float(output.metrics["accuracy"]) == pytest.approx(2 / 4)


@pytest.mark.parametrize("kind", ["detection", "segmentation"])
def test_micro_batches_sum_to_the_batch(folder, photographs, kind):
    """Every photograph counts the same, padded or not."""
    if kind == "detection":
        view = Rescaled(photographs, short_sides=(130,), longest=300, seed=0, mirror=True)
        proposals = Proposals(photographs)
        task = DetectionTask(FastRCNN(trunk(), 20), view, proposals, regions=16)
    else:
        masks = VocSet(folder, "few", "Segmentation")
        view = Masked(masks, seed=0, mirror=True)
        task = SegmentationTask(FCN(trunk(), 21))
        torch.nn.init.normal_(task.model.scores.weight, std=0.1)
    with ViewFeed(view, batch_size=4, shuffle=False) as feed:
        batch = batch_of(feed)
    whole = float(task.step(batch, 0).loss.detach())
    parts = [float(task.step(batch.part(i, i + 1), 0).loss.detach()) for i in range(4)]
    assert np.mean(parts) == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize("kind", ["detection", "segmentation"])
def test_padding_does_not_change_how_a_photograph_is_normalised(photographs, kind):
    """Photographs are normalised by their own mean and deviation, alone and in a padded batch."""
    if kind == "detection":
        view = Rescaled(photographs, short_sides=(60, 110), longest=200, seed=0, mirror=True)
    else:
        view = Masked(photographs, seed=0, mirror=True)
    batches = {}
    for size in (1, 5):
        with ViewFeed(view, batch_size=size, shuffle=False) as feed:
            batches[size] = list(feed.epoch(0))
    assert len({tuple(size) for size in batches[5][0].sizes}) > 1
    padded = normalize_padded(batches[5][0].images[..., :3], batches[5][0].sizes, "image")
    for row, (height, width) in enumerate(batches[5][0].sizes):
        alone = normalize_images(batches[1][row].images[..., :3], "image")[0]
        assert alone.shape[1:] == (height, width)
        assert torch.equal(padded[row, :, :height, :width], alone)
        assert padded[row, :, height:].abs().sum() == padded[row, :, :, width:].abs().sum() == 0


@pytest.mark.parametrize(
    ("protocol", "options", "n", "steps"),
    [
        ("classification", {}, 5011, 80_000),
        ("detection", {}, 5011, 150_000),
        ("segmentation", {}, 1464, 100_000),
        ("segmentation", {"voc.segmentation.sbd": "sbd"}, 10_582, 100_000),
    ],
)
def test_the_published_sets_get_the_published_steps(protocol, options, n, steps):
    training = getattr(load_config("paper", options).voc, protocol).training
    batches = math.ceil(n / training.batch_size)
    assert math.ceil(training.epochs * batches - 1e-9) == steps


def test_epochs_that_were_given_stay_with_more_masks():
    options = {"voc.segmentation.sbd": "sbd", "voc.segmentation.training.epochs": 3}
    assert load_config("paper", options).voc.segmentation.training.epochs == 3


def test_corrections_are_undone(rng):
    corner, size = rng.uniform(0, 50, (9, 4)), rng.uniform(5, 40, (9, 4))
    a, b = (
        np.concatenate([corner[:, i : i + 2], corner[:, i : i + 2] + size[:, i : i + 2]], 1)
        for i in (0, 2)
    )
    a, b = a.astype(np.float32), b.astype(np.float32)
    moves = torch.from_numpy(corrections(a, b))[:, None]
    assert corrected(torch.from_numpy(a)[:, None], moves)[:, 0].numpy() == pytest.approx(
        b, abs=1e-3
    )
    assert (corrections(a, a) == 0).all()


def test_regions_are_drawn_as_asked(photographs):
    view = Rescaled(photographs, short_sides=(100,), longest=300, seed=0, mirror=True)
    task = DetectionTask(FastRCNN(trunk(), 20), view, Proposals(photographs), regions=64)
    for row in range(photographs.n):
        drawn, truth = task.draw(row, 2), photographs.objects[row]
        share = overlaps(drawn.boxes, truth.boxes).max(1)
        shows = drawn.labels > 0
        assert 1 <= shows.sum() <= 16
        assert len(drawn.labels) <= 64
        assert (share[shows] >= 0.5).all()
        assert ((share[~shows] >= 0.1) & (share[~shows] < 0.5)).all()
        assert (drawn.labels[shows] == 1 + truth.labels[0]).all()
        assert (drawn.objects[shows] == truth.boxes[0]).all()
        assert (drawn.objects[~shows] == drawn.boxes[~shows]).all()
        again, later = task.draw(row, 2), task.draw(row, 3)
        assert np.array_equal(again.boxes, drawn.boxes)
        assert not np.array_equal(later.boxes, drawn.boxes)


def test_a_photograph_without_objects_is_background(tmp_path):
    place = voc_folder(tmp_path / "VOC", 2)
    path = place / "Annotations/2007_000000.xml"
    path.write_text(path.read_text().replace("<difficult>0", "<difficult>1"))
    photographs = VocSet(place, "few")
    view = Rescaled(photographs, short_sides=(100,), longest=300, seed=0, mirror=False)
    task = DetectionTask(FastRCNN(trunk(), 20), view, Proposals(photographs), regions=8)
    assert task.draw(0, 0).labels.tolist() == [0] * 8
    with ViewFeed(view, batch_size=2, shuffle=False) as feed:
        assert torch.isfinite(task.step(batch_of(feed), 0).loss)


def test_regions_are_numbered():
    boxes = [np.ones((2, 4), np.float32), np.zeros((0, 4), np.float32), np.ones((1, 4), np.float32)]
    assert numbered(boxes)[:, 0].tolist() == [0, 0, 2]


def test_detection_wants_one_photograph_at_one_scale(photographs):
    view = Rescaled(photographs, short_sides=(100, 120), longest=300, seed=0, mirror=False)
    with (
        ViewFeed(view, batch_size=1, shuffle=False) as feed,
        pytest.raises(InputError, match="one photograph at a time"),
    ):
        detect(FastRCNN(trunk(), 20), [feed], Proposals(photographs))


# --- learning -------------------------------------------------------------------------------------
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_squares_are_learnt_by_all_three(folder, photographs, tmp_path, device):
    """Eight photographs with a red or a blue square: each protocol fits them."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    there = {"device": device, "progress": False, "seed": 0}
    common = {"warmup": 0.05, "schedule": "cosine", "clip_norm": 10.0, "log_every": 20}

    view = AreaCrops(photographs, crop=67, area=(0.9, 1.0), seed=0, mirror=True)
    task = MultiLabelTask(trunk(n_classes=20, image_size=67), photographs.presence())
    config = toy_config(epochs=40, batch_size=4, learning_rate=0.02, **common)
    with ViewFeed(view, batch_size=4, shuffle=True, device=device) as feed:
        train(task, feed, config, tmp_path / "a", name="a", **there)
    with ViewFeed(view, batch_size=8, shuffle=False, device=device) as feed:
        scores = image_scores(task.model, feed, crops=2)
    assert classification_precisions(scores, photographs.presence()).mean > 0.9

    masks = VocSet(folder, "few", "Segmentation")
    task = SegmentationTask(FCN(trunk(image_size=67), 21))
    config = toy_config(epochs=40, batch_size=4, learning_rate=0.02, **common)
    with ViewFeed(
        Masked(masks, seed=0, mirror=True), batch_size=4, shuffle=True, device=device
    ) as feed:
        train(task, feed, config, tmp_path / "b", name="b", **there)
    with ViewFeed(
        Masked(masks, seed=0, mirror=False), batch_size=1, shuffle=False, device=device
    ) as feed:
        confusion = segment(task.model, feed, 21)
    assert confusion.mean() > 0.5

    view = Rescaled(photographs, short_sides=(160,), longest=240, seed=0, mirror=True)
    task = DetectionTask(FastRCNN(trunk(image_size=67), 20), view, Proposals(photographs))
    config = toy_config(epochs=40, batch_size=2, learning_rate=0.01, **common)
    with ViewFeed(view, batch_size=2, shuffle=True, device=device) as feed:
        train(task, feed, config, tmp_path / "c", name="c", **there)
    views = [
        Rescaled(photographs, short_sides=(side,), longest=240, seed=0, mirror=False)
        for side in (120, 160)
    ]
    feeds = [ViewFeed(view, batch_size=1, shuffle=False, device=device) for view in views]
    for several in (feeds[1:], feeds):
        found = detect(task.model, several, task.proposals)
        assert detection_precisions(found, photographs.objects, 20).mean > 0.5
    for feed in feeds:
        feed.close()


# --- the stage ------------------------------------------------------------------------------------
VOC = """
[voc]
models = ["transfer", "random", "labels"]

[voc.classification]
test_crops = 2
training = { epochs = 2, batch_size = 4, log_every = 1 }

[voc.detection]
short_sides = [100, 130]
longest = 200
tests = ["training", "single"]
regions = 8
training = { epochs = 1, log_every = 1 }

[voc.segmentation]
training = { epochs = 1, batch_size = 4, accumulate = 2, log_every = 1 }

[voc.svm]
costs = [0.01, 0.1]
shots = [1, 2, 90]
samples = 2
"""
PROTOCOLS = ("classification", "detection", "segmentation", "svm")


def options(folder, protocol):
    return [f"--voc.{protocol}.folder={folder}", f"--voc.{protocol}.train=few",
            f"--voc.{protocol}.test=other"]  # fmt: skip


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """A run of every stage, on every protocol."""
    place = tmp_path_factory.mktemp("run")
    write_views(place / "photographs", {"train": 5, "test": 2}, PHOTOGRAPHS[:14])
    recipe = TINY.replace("probe_epochs = 2", 'probe_epochs = 1\nbaselines = ["random"]') + VOC
    (place / "tiny.toml").write_text(recipe)
    arguments = [
        *("run", "--run", str(place / "run"), "--config", str(place / "tiny.toml")),
        *("--data.pretext", str(place / "photographs/train")),
        *("--data.test", str(place / "photographs/test")),
        *(option for protocol in PROTOCOLS for option in options(folder, protocol)),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ktfast.config.voc.PUBLISHED_SCALES", {"single": ((90,), 120)})
        assert main(arguments) == 0
    return place / "run"


def result(run, protocol):
    return json.loads((run / "voc" / protocol / "result.json").read_text())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_model_has_a_row(run, protocol):
    summary = result(run, protocol)["summary"]
    assert list(summary["models"]) == ["transfer", "random", "labels"]
    for row in summary["models"].values():
        assert 0 <= row["score"] <= 1
        names = ("background", *CLASSES) if protocol == "segmentation" else CLASSES
        assert tuple(row["classes"]) == names
    assert summary["images"] == {"train": 8, "test": 8}
    assert not list((run / "voc" / protocol).glob("training-*"))
    steps = {"classification": 4, "detection": 4, "segmentation": 2, "svm": None}[protocol]
    assert {row["steps"] for row in summary["models"].values()} == {steps}


def test_a_detector_is_tested_at_several_scales(run):
    row = result(run, "detection")["summary"]["models"]["transfer"]
    assert row["protocol"]["short_sides"] == [100, 130]
    assert list(row["tests"]) == ["single"]
    assert row["tests"]["single"]["protocol"]["short_sides"] == [90]
    assert row["tests"]["single"]["steps"] == row["steps"]
    page = (run / "report.html").read_text()
    for test in ("scales of the training", "single scale"):
        assert f"det. mAP, 11 points, {test}" in page
        assert f"Detection, {test}, by class" in page
    published = VocDetectionConfig(tests=("single", "multi")).test_scales
    assert published == {
        "single": ((600,), 1000), "multi": ((480, 576, 688, 864, 1200), 2000)
    }  # fmt: skip


def test_the_machines_see_few_photographs_too(run):
    row = result(run, "svm")["summary"]["models"]["transfer"]
    assert [(k, len(samples)) for k, samples in row["shots"].items()] == [("1", 2), ("2", 2)]
    assert row["protocol"]["layer"] == "conv5"
    page = (run / "report.html").read_text()
    assert "Support vector machines with few photographs of each class" in page
    assert "SVM mAP, area" in page


def test_fine_tuning_begins_with_the_models_convolutions(run, folder):
    """Of the same data and seeds, only the weights they begin with differ."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    first = {row["stage"]: row["loss"] for row in rows if row["step"] == 1}
    losses = [first[f"voc_classification_{name}"] for name in ("transfer", "random", "labels")]
    assert len(set(losses)) == 3


def test_only_the_protocol_that_changed_is_done_again(run, capsys):
    before = {p: p.stat().st_mtime_ns for p in (run / "voc").rglob("result.json")}
    assert main(["voc", "--run", str(run)]) == 0
    assert before == {p: p.stat().st_mtime_ns for p in (run / "voc").rglob("result.json")}
    assert main(["voc", "--run", str(run), "--classification.test_crops", "3"]) == 2
    assert "test_crops was 2, is now 3" in capsys.readouterr().err
    assert before == {p: p.stat().st_mtime_ns for p in (run / "voc").rglob("result.json")}


def test_without_a_folder_the_stage_is_refused(run, capsys):
    names = PROTOCOLS
    assert main(["voc", "--run", str(run), *(f"--{name}.folder=" for name in names)]) == 2
    assert "no PASCAL VOC folder is set: give voc.classification.folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--voc.detection.test=nowhere"], "nowhere.txt does not exist"),
        (["--voc.detection.train_proposals=none.mat"], "none.mat does not exist"),
        (["--data.test="], "'labels' is a baseline of the evaluation"),
    ],
)
def test_what_would_fail_later_is_refused_early(run, tmp_path, capsys, arguments, message):
    place = tmp_path / "run"
    own = ["run", "--run", str(place), "--config", str(run / "config.toml"), *arguments]
    assert main(own) == 2
    assert message in capsys.readouterr().err
    assert not (place / "pretext").exists()
