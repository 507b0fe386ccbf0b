"""The verdict of a settled comparison, and the section on measures without labels."""

import pytest

from ktfast.evaluation.headline import Headline
from ktfast.evaluation.results import EvaluationSummary
from ktfast.evaluation.unlabelled_result import Pair, UnlabelledMeasures
from ktfast.report import write_report
from ktfast.report.formats import percent
from ktfast.report.unlabelled import unlabelled_section
from ktfast.report.verdict import verdict
from support.fake_run import evaluation, make_run, result

MEASURES = UnlabelledMeasures(
    agreement=Pair(0.71, 0.52),
    pseudo_labels=Pair(0.634, 0.31),
    shared_neighbours=Pair(0.4, 0.2),
    effective_rank=Pair(41.7, None),
    layer="conv5",
    images=2000,
    voters=5784,
    neighbors=20,
)


def settled(transfer, random, **more):
    headline = Headline("knn", "conv5", {"transfer": transfer, "random": random, **more})
    # The linear probe says the opposite, and must not be used.
    linear = {"transfer": {"conv1": 0.1}, "random": {"conv1": 0.9}}
    return EvaluationSummary(linear=linear, headline=headline)


@pytest.mark.parametrize(
    ("transfer", "random", "outcome", "headline"),
    [
        ([0.8] * 10, [0.3] * 10, "ahead", "Transfer beats random weights by 50.0 ± 10.9 points"),
        ([0.3] * 10, [0.8] * 10, "behind", "it is 50.0 points behind"),
        ([0.4] * 10, [0.35] * 10, "even", "cannot be told apart (+5.0 points)"),
    ],
)
def test_the_settled_comparison_makes_the_headline(transfer, random, outcome, headline):
    found = verdict(settled(transfer, random), None, None, 120)
    assert found.outcome == outcome
    assert headline in found.headline
    assert "nearest neighbours at conv5" in found.sentences[0]
    assert "best on the test images" not in found.caveat


def test_other_models_stand_beside_the_settled_comparison():
    found = verdict(settled([0.8] * 3, [0.1] * 3, labels=[0.9, 0.8, 1.0]), None, None, 120)
    assert f"Training on the true labels gives {percent(0.9)}." in found.sentences


def test_a_settled_comparison_without_a_baseline_falls_back_to_the_probes():
    headline = Headline("knn", "conv5", {"transfer": [0.5]})
    found = verdict(EvaluationSummary(linear={}, headline=headline), None, None, 12)
    assert found.outcome == "open"


def test_a_run_without_probes_speaks_of_its_clusters(tmp_path):
    (tmp_path / "config.toml").write_text("seed = 1\n")
    result(tmp_path, "unlabelled", 3.0, None, MEASURES.to_json())
    result(tmp_path, "cluster", 1.0, None, {"n_clusters": 30, "used": 29})
    page = write_report(tmp_path).read_text()
    assert "Two seeds agree on the clusters with an index of 0.71" in page
    assert "0.71 (0.52 for an untrained network)" in page
    assert "Held-out pseudo-labels" in page
    assert f"untrained network {percent(0.31)}" in page
    assert "– images in 29 groups" in page
    assert "1 of 30 clusters have no image" in page
    assert "Normalised mutual information" not in page
    assert "Not evaluated" not in page


def test_probes_keep_the_headline_if_both_were_measured(tmp_path):
    folder = make_run(tmp_path / "run")
    result(folder, "unlabelled", 3.0, None, MEASURES.to_json())
    page = write_report(folder).read_text()
    assert "Two seeds agree on the clusters with an index of" not in page
    assert 'id="unlabelled"' in page
    assert "Linear probe" in page


def test_what_was_not_measured_is_a_dash():
    section = unlabelled_section(UnlabelledMeasures(agreement=Pair(0.5)))
    assert [(row.trained, row.untrained) for row in section.rows][:2] == [("0.50", "–"), ("–", "–")]
    assert section.facts == []
    assert unlabelled_section(None) is None


def test_a_summary_with_a_headline_survives_json():
    headline = {"measure": "linear", "layer": "conv1", "classes": {"transfer": [0.5]}}
    summary = EvaluationSummary.from_json({**evaluation(), "headline": headline})
    assert summary.headline == Headline("linear", "conv1", {"transfer": [0.5]})
    assert EvaluationSummary.from_json(summary.to_json()) == summary
