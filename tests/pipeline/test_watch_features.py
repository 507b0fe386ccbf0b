"""The measures of a pretext network's features, from the training to the report."""

import json
from types import SimpleNamespace

import numpy as np
import torch

from ktfast.config import load_config
from ktfast.models import VGG16, initialize
from ktfast.pipeline.steps.watch_features import judged_features, watch_features
from ktfast.report.plots import training_curves
from ktfast.report.summaries import MetricsRow, TrainingResult
from ktfast.report.verdict import other_findings
from support.photographs import squares

OPTIONS = {"pretext.crop": 48, "pretext.tile_size": 12, "pretext.feature_measures": 2, "threads": 1}


def watched(tmp_path, n, **options):
    pictures = squares(n, 48)
    images = SimpleNamespace(
        labels=np.full(n, -1),
        n=n,
        short_side=48,
        square=lambda row, short_side, size: pictures[row][:size, :size],
    )
    torch.manual_seed(0)
    trunk = VGG16(0, width=0.125, batch_norm=True)
    trunk.truncate(trunk.puzzle_layer)
    initialize(trunk)
    config = load_config("tiny_cpu", {**OPTIONS, **options})
    run = SimpleNamespace(config=config, metrics=tmp_path / "metrics.jsonl")
    return run, watch_features(run, trunk, images, tmp_path)


def test_images_without_classes_have_a_curve_too(tmp_path):
    run, watch = watched(tmp_path, 24)
    figures = [watch.measure(step) for step in range(11) if watch.due(step, 10)]
    assert [list(found) for found in figures] == [["agreement"]] * 3
    rows = [
        {"stage": "pretext", "step": 5 * k, "epoch": k, **found} for k, found in enumerate(figures)
    ]
    run.metrics.write_text("".join(json.dumps(row) + "\n" for row in rows))
    measures = judged_features(run, "pretext")
    assert measures["agreement"]["untrained"] == figures[0]["agreement"]
    assert list(tmp_path.iterdir()) == [run.metrics]  # no best weights without classes
    (plot,) = training_curves([MetricsRow.from_json(row) for row in rows], chance=None, name="x")
    assert "Agreement of two clusterings" in plot
    (sentence,) = other_findings(None, TrainingResult.from_json(measures))
    assert f"adjusted Rand index of {figures[2]['agreement']:.2f}, and those of random" in sentence


def test_features_can_stay_unwatched(tmp_path):
    assert watched(tmp_path, 24, **{"pretext.feature_measures": 0})[1] is None
    assert watched(tmp_path, 19)[1] is None  # too few for two clusters
