"""The layer of a model is chosen by held-out training images; the test images choose nothing."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from ktfast.errors import InputError
from ktfast.evaluation import knn
from ktfast.evaluation.knn import knn_accuracy, knn_held_out
from ktfast.evaluation.layer_choice import choose_layers
from ktfast.evaluation.linear import HOLDOUT, linear_probe, stratified_holdout
from ktfast.evaluation.results import EvaluationSummary, ProbeRow


def test_the_test_images_choose_no_layer():
    accuracy = {"transfer": {"conv1": 0.5, "conv2": 0.9}, "random": {"conv1": 0.4, "conv2": 0.3}}
    held_out = {"transfer": {"conv1": 0.7, "conv2": 0.6}, "random": {"conv1": 0.1, "conv2": 0.2}}
    found = choose_layers(accuracy, held_out)
    assert found.chosen == {"transfer": ("conv1", 0.5), "random": ("conv2", 0.3)}
    assert not found.by_test
    assert found.get("labels") is None


@pytest.mark.parametrize("held_out", [{}, {"transfer": {"conv1": 0.7, "conv2": 0.6}}])
def test_rows_of_earlier_versions_are_chosen_by_the_test_images_and_say_so(held_out):
    accuracy = {"transfer": {"conv1": 0.5, "conv2": 0.9}, "random": {"conv1": 0.4}, "labels": {}}
    found = choose_layers(accuracy, held_out)
    assert found.chosen == {"transfer": ("conv2", 0.9), "random": ("conv1", 0.4)}
    assert found.by_test


def test_of_equal_layers_the_first_is_chosen():
    row = {"conv3": 0.5, "conv1": 0.5}
    assert choose_layers({"a": row}, {"a": row}).chosen == {"a": ("conv3", 0.5)}
    assert choose_layers({}, {}).chosen == {}


def digits(n=200):
    data = load_digits()
    return data.data[:n].astype(np.float32), data.target[:n].astype(np.int64)


def test_held_out_neighbours_are_all_training_rows_but_the_row_itself():
    x, y = digits()
    _, held = stratified_holdout(y, HOLDOUT, seed=3)
    hits: dict[int, list[bool]] = {}
    for row in held:
        others = np.delete(np.arange(len(x)), row)
        one = knn_accuracy(x[others], y[others], x[[row]], y[[row]], k=5)
        hits.setdefault(int(y[row]), []).append(one.top1 == 1.0)
    expected = np.mean([np.mean(found) for found in hits.values()])
    assert knn_held_out(x, y, k=5, seed=3) == pytest.approx(expected)


def test_a_row_never_votes_for_itself_in_any_blocking(monkeypatch):
    # Each row is the only one of its direction, so that its own vote would always win.
    x, y = np.eye(20, dtype=np.float32), np.arange(20) % 2
    for size in (3, 1024):
        monkeypatch.setattr("ktfast.evaluation.knn._ROWS_PER_BLOCK", size)
        monkeypatch.setattr("ktfast.evaluation.knn._QUERIES_PER_BLOCK", size + 1)
        own = knn_accuracy(x, y, x, y, k=1)
        others = knn_accuracy(x, y, x, y, k=1, own_rows=np.arange(20))
        assert own.top1 == 1.0
        assert others.top1 < 1.0
    with pytest.raises(InputError, match=r"1\.\.19"):
        knn_accuracy(x, y, x, y, k=20, own_rows=np.arange(20))


def test_few_rows_have_fewer_neighbours_and_many_rows_are_thinned(monkeypatch):
    x, y = digits(30)
    assert 0 <= knn_held_out(x, y, k=500, seed=0) <= 1
    monkeypatch.setattr(knn, "MOST_HELD_OUT", 4)
    asked = []
    monkeypatch.setattr(
        knn,
        "knn_accuracy",
        lambda x, y, test, labels, **_: asked.append(len(test)) or knn_accuracy(x, y, x, y, k=1),
    )
    knn_held_out(*digits(), k=5, seed=0)
    assert 1 <= asked[0] <= 4


def test_a_linear_probe_gives_the_held_out_accuracy_of_the_chosen_decay():
    x, y = digits()
    options = {"n_classes": 10, "epochs": 3}
    found = linear_probe(x, y, x, y, **options)
    assert found.held_out == max(found.holdout_mean_per_class.values())
    assert linear_probe(x, y, x, y, weight_decays=[0.01], **options).held_out is None


def test_stored_rows_of_earlier_versions_are_read():
    stored = {"linear": {"conv1": 0.5}, "linear_top1": {"conv1": 0.5}, "knn": {"conv1": 0.4}}
    stored |= {"low_label": [], "protocol": {}}
    row = ProbeRow.from_json(stored)
    assert row.linear_held_out == row.knn_held_out == {}
    again = ProbeRow.from_json(row.to_json() | {"linear_held_out": {"conv1": 0.6}})
    assert again.linear_held_out == {"conv1": 0.6}
    summary = EvaluationSummary(linear_held_out={"transfer": {"conv1": 0.6}})
    assert EvaluationSummary.from_json(summary.to_json()) == summary
    assert "knn_held_out" not in summary.to_json()
