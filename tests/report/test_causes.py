"""What the report says about the cause if transfer is not better than random weights."""

from dataclasses import replace

import pytest

from ktfast.report import write_report
from ktfast.report.causes import probable_causes, with_causes
from ktfast.report.summaries import ClusterSummary, TrainingResult
from ktfast.report.verdict import Verdict, other_findings
from support.fake_run import evaluation, make_run, result

PRETEXT = TrainingResult(0.4, 0.01, neighbours=0.3, untrained_neighbours=0.2)
CLUSTERS = ClusterSummary(n_clusters=100, used=100, median=30)
TRANSFER = TrainingResult(0.6, None)
BEHIND = Verdict("behind", "Transfer did not beat random weights", ["First."])


@pytest.mark.parametrize(
    ("pretext", "clusters", "transfer", "words"),
    [
        (replace(PRETEXT, at_chance=True), CLUSTERS, TRANSFER, "task was not learnt"),
        (replace(PRETEXT, neighbours=0.2), CLUSTERS, TRANSFER, "no better than those of random"),
        (PRETEXT, replace(CLUSTERS, median=9), TRANSFER, "Half of the 100 clusters hold at most 9"),
        (PRETEXT, CLUSTERS, replace(TRANSFER, accuracy=0.029), "hardly learnt its pseudo-labels"),
    ],
)
def test_every_cause_is_named(pretext, clusters, transfer, words):
    found = probable_causes(pretext, clusters, transfer)
    assert len(found) == 1
    assert words in found[0]
    for outcome in ("behind", "even"):
        said = with_causes(replace(BEHIND, outcome=outcome), pretext, clusters, transfer).sentences
        assert said == ["First.", "This run shows a probable cause:", *found]


def test_a_run_that_shows_no_cause_says_so():
    assert probable_causes(PRETEXT, CLUSTERS, TRANSFER) == []
    assert probable_causes(None, None, None) == []
    said = with_causes(BEHIND, PRETEXT, CLUSTERS, TRANSFER).sentences
    assert said[-2].startswith(
        "The run shows no cause: the checks of the pretext task, of the size"
    )
    assert said[-1].startswith("Cluster another layer (features.layer), change cluster.n_clusters")
    (other,) = with_causes(BEHIND, None, None, TRANSFER).sentences[2:]
    assert other.startswith("Raise transfer.training.epochs; and compare several seeds")
    (unknown,) = with_causes(BEHIND, None, None, None).sentences[1:]
    assert unknown == other


@pytest.mark.parametrize("outcome", ["ahead", "open"])
def test_a_transfer_that_is_not_behind_needs_no_cause(outcome):
    found = replace(BEHIND, outcome=outcome)
    assert with_causes(found, replace(PRETEXT, at_chance=True), None, None) is found


def test_two_clusters_are_learnt_far_below_three_times_guessing():
    two = replace(CLUSTERS, n_clusters=2, used=2)
    assert probable_causes(None, two, replace(TRANSFER, accuracy=0.63)) == []
    assert len(probable_causes(None, two, replace(TRANSFER, accuracy=0.62))) == 1


def test_the_report_says_what_to_change_in_a_task_at_chance():
    stuck = TrainingResult.from_json(
        {"accuracy": 0.01, "chance": 0.01, "at_chance": True, "remedy": "Turn the knob"}
    )
    assert other_findings(None, stuck)[1].endswith("say little about Jigsaw++. Turn the knob.")
    earlier = replace(stuck, remedy="")  # an earlier version did not store the remedy
    assert other_findings(None, earlier)[1].endswith("log.txt says what helps.")


def test_the_page_of_a_run_behind_random_weights_names_the_cause(tmp_path):
    run = make_run(tmp_path)
    result(run, "pretext", 1.0, None, {"accuracy": 0.01, "chance": 0.01, "at_chance": True})
    figures = evaluation() | {"linear_held_out": {}}
    figures["linear"] = {"transfer": {"conv1": 0.1}, "random": {"conv1": 0.5}}
    result(run, "evaluate", 1.0, None, figures)
    page = write_report(run).read_text()
    assert "did not beat random weights" in page
    assert "The pretext task was not learnt" in page
