"""Evaluation protocols against cases worked by hand and against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn import metrics
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from ktfast.errors import InputError
from ktfast.evaluation import clustering, paper
from ktfast.evaluation.accuracy import mean_per_class_accuracy, top1_accuracy
from ktfast.evaluation.knn import knn_accuracy
from ktfast.evaluation.linear import linear_probe, stratified_holdout
from ktfast.evaluation.low_label import labelled_share, low_label_probe
from ktfast.evaluation.pooling import conv_features, pooled_size
from ktfast.evaluation.softmax import fit_sgd


@pytest.fixture(scope="module")
def digits():
    """Real 8 x 8 digits: train x [1200, 64], y, test x [597, 64], y."""
    x, y = load_digits(return_X_y=True)
    x = x.astype(np.float32)
    return x[:1200], y[:1200], x[1200:], y[1200:]


def test_accuracies_worked_by_hand():
    labels, guess = np.array([0, 0, 0, 1, 3]), np.array([0, 0, 1, 1, 1])
    assert top1_accuracy(labels, guess) == 3 / 5
    # classes 0, 1 and 3 are present: 2/3, 1 and 0
    assert mean_per_class_accuracy(labels, guess) == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert mean_per_class_accuracy(labels, guess) == metrics.balanced_accuracy_score(labels, guess)


# -- pooling


@pytest.mark.parametrize(
    ("channels", "map_size", "values"),
    [(96, 55, 9600), (256, 27, 9216), (384, 13, 9600), (256, 13, 9216)],
)
def test_pooled_size_gives_the_published_values(channels, map_size, values):
    assert channels * pooled_size(channels, map_size) ** 2 == values


def test_pooled_size_is_capped_by_the_map_and_at_least_one():
    assert pooled_size(64, 4) == 4
    assert pooled_size(20_000, 4) == 1
    with pytest.raises(InputError, match="0 and 3"):
        pooled_size(0, 3)


class Halves(nn.Module):
    """Maps that can be computed by hand: the image itself, and the negative of it."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def features_all(self, x, layers):
        assert not self.training
        return {"same": x * self.weight, "minus": -x * self.weight}


class Feed:
    """Delivers the rows of `images` in a given order, two at a time."""

    def __init__(self, images, order):
        self.images, self.order, self.n = images, torch.tensor(order), len(images)

    def epoch(self, epoch, start=0):
        for rows in self.order.split(2):
            yield type("Batch", (), {"images": self.images[rows], "rows": rows})


def prepare(images):
    return images.permute(0, 3, 1, 2).float()


def test_conv_features_follow_the_source_rows_whatever_the_order():
    images = torch.randint(0, 256, (5, 4, 4, 3), dtype=torch.uint8)
    expected = prepare(images).flatten(1).numpy()
    model = Halves().train()
    for order in ([0, 1, 2, 3, 4], [3, 0, 4, 2, 1]):
        source = Feed(images, order)
        features = conv_features(model, source, ["same", "minus"], prepare=prepare)
        np.testing.assert_array_equal(features["same"], expected)
        np.testing.assert_array_equal(features["minus"], -expected)
    assert model.training


def test_conv_features_average_each_channel_to_the_grid():
    # 3 channels: a grid of at most 56; a 112 px map is averaged over 2 x 2 positions
    images = torch.randint(0, 256, (1, 112, 112, 3), dtype=torch.uint8)
    source = Feed(images, [0])
    features = conv_features(Halves(), source, ["same"], prepare=prepare, dtype="float16")
    grid = prepare(images)[0].reshape(3, 56, 2, 56, 2).mean((2, 4))
    assert features["same"].dtype == np.float16
    np.testing.assert_array_equal(features["same"][0], grid.half().flatten().numpy())


@pytest.mark.parametrize(("order", "words"), [([0, 1, 2, 1], "once"), ([0, 1], "2 of its 4")])
def test_conv_features_refuse_a_feed_that_loses_or_repeats_images(order, words):
    images = torch.zeros((4, 2, 2, 3), dtype=torch.uint8)
    with pytest.raises(InputError, match=words):
        conv_features(Halves(), Feed(images, order), ["same"], prepare=prepare)


def test_conv_features_name_the_bytes_that_do_not_fit():
    feed = Feed(torch.zeros((10, 8, 8, 3), dtype=torch.uint8), range(10))
    with pytest.raises(InputError, match=r"take 15360 bytes in float32, more than .* = 1000"):
        conv_features(Halves(), feed, ["same", "minus"], prepare=prepare, memory_budget=1000)


def test_conv_features_refuse_what_is_not_finite():
    feed = Feed(torch.full((1, 2, 2, 3), 255, dtype=torch.uint8), [0])
    with pytest.raises(InputError, match="layer same"):
        conv_features(Halves(), feed, ["same"], prepare=lambda x: prepare(x) * 1e4,
                      dtype="float16")  # fmt: skip


# -- linear probe


def test_sgd_step_worked_by_hand():
    # Two classes, W = 0: softmax 1/2 each, so the slope of the scores is (-1/2, 1/2) for class 0.
    x, y = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
    options = {"learning_rate": 0.1, "epochs": 1, "batch_size": 4, "seed": 0}
    weights, bias = fit_sgd(x, y, torch.arange(1), n_classes=2, weight_decays=[0.0, 5.0], **options)
    for decay in (0, 1):  # the decay of zero weights is nothing
        np.testing.assert_allclose(weights[decay], [[0.1, -0.1], [0, 0]])
        np.testing.assert_allclose(bias[decay], [0.05, -0.05])


def test_sgd_over_several_decays_is_sgd_over_each(digits):
    x, y = torch.from_numpy(digits[0]) / 16, torch.from_numpy(digits[1])
    options = {"learning_rate": 0.1, "epochs": 3, "batch_size": 100, "seed": 4, "n_classes": 10}
    rows = torch.arange(len(x))
    both, both_bias = fit_sgd(x, y, rows, weight_decays=[0.1, 0.01], **options)
    for place, decay in enumerate([0.1, 0.01]):
        weights, bias = fit_sgd(x, y, rows, weight_decays=[decay], **options)
        torch.testing.assert_close(both[place], weights[0], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(both_bias[place], bias[0], atol=1e-5, rtol=1e-4)


def test_sgd_that_diverges_is_named():
    x, y = torch.eye(2), torch.tensor([0, 1])
    options = {"learning_rate": 1e38, "epochs": 30, "batch_size": 1, "seed": 0, "n_classes": 2}
    with pytest.raises(InputError, match="diverged at learning rate 1e"):
        fit_sgd(x, y, torch.arange(2), weight_decays=[1.0], **options)


def test_linear_probe_reaches_scikit_learn_on_digits(digits):
    x, y, test_x, test_y = digits
    mean, scale = x.mean(0), x.std(0)
    scale[scale == 0] = 1
    reference = LogisticRegression(C=1 / (len(x) * 1e-2), max_iter=1000).fit((x - mean) / scale, y)
    accuracy = reference.score((test_x - mean) / scale, test_y)
    result = linear_probe(x, y, test_x, test_y, n_classes=10, weight_decays=[1e-2])
    # SGD stops near the optimum: 1.5 points are 9 of the 597 digits
    assert result.top1 == pytest.approx(accuracy, abs=0.015)
    assert result.n_train == 1200
    assert (result.protocol["optimiser"], result.protocol["epochs"]) == ("sgd", 20)


def test_linear_probe_chooses_the_decay_on_training_rows_only(digits):
    x, y, test_x, test_y = digits
    options = {"n_classes": 10, "weight_decays": (1e-2, 100.0), "epochs": 10}
    result = linear_probe(x, y, test_x, test_y, **options)
    assert result.weight_decay == 1e-2
    assert set(result.holdout_mean_per_class) == {"0.01", "100"}
    other = linear_probe(x, y, test_x, np.roll(test_y, 1), **options)
    assert other.holdout_mean_per_class == result.holdout_mean_per_class
    assert other.top1 < 0.5 < result.top1


def test_linear_probe_repeats_itself_and_leaves_random_states_and_inputs_alone(digits):
    x, y, test_x, test_y = digits
    before = x.copy()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    runs = [linear_probe(x, y, test_x, test_y, n_classes=10, epochs=3, seed=1) for _ in range(2)]
    assert runs[0] == runs[1]
    assert torch.equal(torch.rand(1), expected)
    tensor = torch.from_numpy(x)
    linear_probe(tensor, y, torch.from_numpy(test_x), test_y, n_classes=10, epochs=1)
    np.testing.assert_array_equal(x, before)


def test_linear_probe_takes_half_precision_read_only_and_constant_features(digits):
    x, y, test_x, test_y = digits
    half = x.astype(np.float16)
    half[:, 0] = 7.1  # constant
    half.flags.writeable = False
    result = linear_probe(
        half, y, test_x.astype(np.float16), test_y, n_classes=10, weight_decays=[1e-2]
    )
    assert result.top1 > 0.85


def test_holdout_is_stratified_and_never_empties_a_class():
    labels = np.array([0] * 10 + [1] * 5 + [2])
    fit, held = stratified_holdout(labels, 0.2, seed=0)
    assert sorted([*fit, *held]) == list(range(16))
    assert np.bincount(labels[held], minlength=3).tolist() == [2, 1, 0]
    with pytest.raises(InputError, match="exactly one weight decay"):
        stratified_holdout(np.arange(5), 0.2, seed=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train_y": np.full(20, -1)}, "train_y must lie in 0..1"),
        ({"train_y": np.zeros(3, int)}, "vector of 20 labels"),
        ({"test_y": np.zeros(20)}, "test_y must hold integers"),
        ({"train_x": np.full((20, 3), np.nan)}, "NaN"),
        ({"test_x": np.full((20, 3), np.inf)}, "NaN or infinity"),
        ({"test_x": np.zeros((20, 4))}, r"test_x must be \[m, 3\]"),
        ({"train_x": np.zeros((20, 3), int)}, "train_x must hold float"),
        ({"weight_decays": ()}, "weight_decays"),
    ],
)
def test_linear_probe_says_what_is_wrong(change, words):
    generator = np.random.default_rng(0)
    good = {
        "train_x": generator.normal(size=(20, 3)),
        "train_y": np.arange(20) % 2,
        "test_x": generator.normal(size=(20, 3)),
        "test_y": np.arange(20) % 2,
    }
    with pytest.raises(InputError, match=words):
        linear_probe(**{**good, "n_classes": 2, **change})


# -- nearest neighbours


def test_knn_worked_by_hand():
    train = np.array([[1, 0], [1, 0.1], [0, 1], [-1, -1]], np.float32)
    labels = [0, 1, 1, 2]
    # The query points along row 0; uniform, rows 1 and 2 outvote it; weighted, row 0 wins.
    query = np.array([[1.0, 0.0]], np.float32)
    assert knn_accuracy(train, labels, query, [0], k=1).top1 == 1
    assert knn_accuracy(train, labels, query, [1], k=3, temperature=None).top1 == 1
    assert knn_accuracy(train[[0, 2, 2]], [0, 1, 1], query, [0], k=3, temperature=0.1).top1 == 1


def test_knn_agrees_with_scikit_learn_in_any_blocking(digits, monkeypatch):
    x, y, test_x, test_y = digits
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    unit_test = test_x / np.linalg.norm(test_x, axis=1, keepdims=True)
    other = KNeighborsClassifier(20, weights=lambda d: np.exp((1 - d**2 / 2) / 0.07))
    expected = other.fit(unit, y).predict(unit_test)
    result = knn_accuracy(x, y, test_x, test_y)
    assert result.top1 == pytest.approx(top1_accuracy(test_y, expected), abs=1e-9)
    assert result.mean_per_class == pytest.approx(mean_per_class_accuracy(test_y, expected))
    monkeypatch.setattr("ktfast.evaluation.knn._ROWS_PER_BLOCK", 7)
    monkeypatch.setattr("ktfast.evaluation.knn._QUERIES_PER_BLOCK", 100)
    assert knn_accuracy(x, y, test_x, test_y) == result


def test_knn_survives_tiny_temperatures_and_gaps_in_the_labels(digits):
    x, y, test_x, test_y = digits
    sharp = knn_accuracy(x, y * 1000, test_x, test_y * 1000, temperature=1e-6)
    assert sharp.top1 == knn_accuracy(x, y, test_x, test_y, k=1).top1


@pytest.mark.parametrize(
    ("change", "words"),
    [({"k": 5}, "k must lie in 1..4"), ({"temperature": 0.0}, "temperature"),
     ({"test_x": np.zeros((1, 3), np.float32)}, "train_x and test_x"),
     ({"train_x": np.full((4, 2), np.nan, np.float32)}, "NaN")],
)  # fmt: skip
def test_knn_says_what_is_wrong(change, words):
    good = {
        "train_x": np.eye(4, 2, dtype=np.float32),
        "train_y": [0, 1, 0, 1],
        "test_x": np.ones((1, 2), np.float32),
        "test_y": [0],
        "k": 1,
    }
    with pytest.raises(InputError, match=words):
        knn_accuracy(**{**good, **change})


# -- clustering


def test_clustering_scores_worked_by_hand():
    # Cluster 0 holds a a b, cluster 1 holds b; one image has no class.
    labels, clusters = [0, 0, 1, 1, -1], [0, 0, 0, 1, 1]
    assert clustering.purity(labels, clusters) == 3 / 4
    # I = ln 2 - 3/4 H(1/3), H(classes) = ln 2, H(clusters) = H(1/4)
    third = -(np.log(1 / 3) / 3 + np.log(2 / 3) * 2 / 3)
    quarter = -(np.log(1 / 4) / 4 + np.log(3 / 4) * 3 / 4)
    information = np.log(2) - 0.75 * third
    nmi = clustering.normalized_mutual_information(labels, clusters)
    assert nmi == pytest.approx(information / ((np.log(2) + quarter) / 2))


def test_clustering_scores_agree_with_scikit_learn():
    generator = np.random.default_rng(0)
    labels, clusters = generator.integers(0, 7, 500), generator.integers(0, 30, 500)
    clusters[labels == 3] = 5
    nmi = clustering.normalized_mutual_information(labels, clusters)
    assert nmi == pytest.approx(metrics.normalized_mutual_info_score(labels, clusters))
    assert clustering.purity(labels, labels) == 1


def test_clustering_scores_refuse_what_cannot_be_compared():
    with pytest.raises(InputError, match="no image has a known class"):
        clustering.purity([-1, -1], [0, 1])
    with pytest.raises(InputError, match="equally long"):
        clustering.purity([0, 1], [0])
    with pytest.raises(InputError, match="vector of integers"):
        clustering.normalized_mutual_information([0.5], [0])


def test_published_rows_are_complete():
    rows = paper.IMAGENET_LINEAR + paper.IMAGENET_NONLINEAR
    assert all(len(row.accuracy) == len(paper.CONV_LAYERS) for row in rows)
    assert all(row.source in paper.SOURCES for row in rows)


# -- few labels


def test_labelled_share_takes_of_each_class_at_least_one():
    labels = np.repeat([0, 1, 2], [100, 4, 1])
    rows = labelled_share(labels, 0.1)
    assert np.bincount(labels[rows]).tolist() == [10, 1, 1]
    assert np.array_equal(rows, np.unique(rows))
    assert labelled_share(labels, 1).tolist() == list(range(105))
    assert labelled_share([], 0.5).size == 0
    for fraction in (0, -0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match="fraction"):
            labelled_share(labels, fraction)


def test_labelled_shares_are_nested_and_depend_on_the_seed_alone():
    labels = np.random.default_rng(0).integers(0, 7, 500)
    few, more = labelled_share(labels, 0.02, seed=3), labelled_share(labels, 0.3, seed=3)
    assert set(few) < set(more)
    assert np.array_equal(few, labelled_share(labels, 0.02, seed=3))
    assert not np.array_equal(few, labelled_share(labels, 0.02, seed=4))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_more_labels_tell_more_digits_apart(digits, dtype):
    x, y, test_x, test_y = digits
    found = [
        low_label_probe(
            x.astype(dtype), y, test_x.astype(dtype), test_y, n_classes=10, fraction=fraction
        )
        for fraction in (0.001, 0.02, 0.3)
    ]
    assert found[0].n_train == 10  # one image a class: nothing is left to choose the decay by
    assert found[0].holdout_mean_per_class == {}
    assert 0.4 < found[0].top1 < found[1].top1 < found[2].top1
    assert found[2].top1 > 0.88
