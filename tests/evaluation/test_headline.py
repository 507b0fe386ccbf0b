"""The comparison that is settled before the run: its noise by hand, and how it is stored."""

import math

import numpy as np
import pytest

from ktfast.errors import InputError
from ktfast.evaluation.headline import Headline, difference


def test_the_noise_over_classes_by_hand():
    """Differences 0.1, 0.3 and 0.2: mean 0.2, deviation 0.1, Student's t of 2 degrees 4.3027."""
    found = difference([0.6, 0.9, 0.5], [0.5, 0.6, 0.3], 30)
    assert found.gap == pytest.approx(0.2)
    assert found.class_noise == pytest.approx(4.3027 * 0.1 / math.sqrt(3), rel=1e-4)
    assert difference([0.5], [0.25], 8).class_noise == math.inf


def test_the_noise_over_images_by_hand():
    found = difference([0.75, 0.25], [0.5, 0.0], 8)
    assert (found.first, found.second) == (0.5, 0.25)
    assert found.noise == pytest.approx(1.96 * math.sqrt((0.25 + 0.1875) / 8))


def test_the_noise_covers_the_truth_in_95_of_100_draws():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0.2, 0.9, (2, 12))
    hits = 0
    for _ in range(400):
        first, second = rng.binomial(20, truth) / 20
        found = difference(first, second, 240)
        hits += abs(found.gap - (truth[0].mean() - truth[1].mean())) <= found.noise
    assert hits >= 0.95 * 400


def test_models_need_the_same_classes_and_images():
    with pytest.raises(InputError, match="got 2 and 1"):
        difference([0.5, 0.1], [0.5], 3)
    with pytest.raises(InputError, match="got 0 and 0"):
        difference([], [], 3)
    with pytest.raises(InputError, match="n_images must be positive"):
        difference([0.5], [0.5], 0)


def test_a_headline_survives_json():
    headline = Headline("knn", "conv5", {"transfer": [0.5, 1.0], "random": [0.0, 0.25]})
    assert Headline.from_json(headline.to_json()) == headline
    damaged = {"measure": "knn", "layer": "conv5", "classes": {"transfer": ["x"], "random": 3}}
    assert Headline.from_json(damaged) == Headline("knn", "conv5", {})
    for value in (None, {}, {"measure": "other", "layer": "conv5"}, {"measure": "knn"}):
        assert Headline.from_json(value) is None
