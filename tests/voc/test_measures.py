"""Average precision and mean intersection over union, by hand and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, jaccard_score

from ktfast.errors import InputError
from ktfast.evaluation.average_precision import (
    classification_precisions,
    curve_area,
    eleven_points,
)
from ktfast.voc.boxes import overlaps
from ktfast.voc.data import Objects
from ktfast.voc.detection import Detections, detection_precisions
from ktfast.voc.segmentation import Confusion


def test_eleven_points_by_hand():
    """Right, wrong, right of 2: precision 1 up to recall 0.5, then 2 / 3."""
    hits = np.array([True, False, True])
    assert eleven_points(hits, 2) == pytest.approx((6 * 1 + 5 * 2 / 3) / 11)
    assert curve_area(hits, 2) == pytest.approx((1 + 2 / 3) / 2)


def test_what_is_never_found_has_precision_zero():
    assert eleven_points(np.array([True]), 4) == pytest.approx(3 / 11)  # recalls 0, 0.1, 0.2
    assert eleven_points(np.zeros(0, bool), 4) == 0
    assert eleven_points(np.zeros(3, bool), 4) == 0


def test_area_is_that_of_scikit_learn(rng):
    scores, presence = (
        rng.normal(size=(200, 3)),
        rng.choice([-1, 0, 1], (200, 3), p=[0.7, 0.1, 0.2]),
    )
    found = classification_precisions(scores, presence)
    for k in range(3):
        counted = presence[:, k] != 0
        truth, own = presence[counted, k] > 0, scores[counted, k]
        assert found.area[k] == pytest.approx(average_precision_score(truth, own))
        hits = truth[np.argsort(-own)]
        assert curve_area(hits, int(hits.sum())) == pytest.approx(found.area[k])
    assert found.mean_area == pytest.approx(found.area.mean())


def test_a_class_without_a_positive_is_left_out():
    presence = np.array([[1, -1], [-1, 0]])
    found = classification_precisions(np.array([[2.0, 1.0], [1.0, 5.0]]), presence)
    assert found.eleven_points[0] == 1
    assert np.isnan(found.eleven_points[1])
    assert found.mean == 1
    assert np.isnan(classification_precisions(np.zeros((1, 1)), np.array([[-1]])).mean)


@pytest.mark.parametrize("scores", [np.zeros((2, 3)), np.array([[0.0, np.nan], [0, 0]])])
def test_bad_scores_are_refused(scores):
    with pytest.raises(InputError, match="must be"):
        classification_precisions(scores, np.ones((2, 2)))


def test_overlaps_by_hand():
    a = np.array([[0, 0, 10, 10], [3, 3, 3, 9]], np.float32)
    b = np.array([[5, 0, 15, 10], [0, 0, 10, 10], [20, 20, 30, 30]], np.float32)
    assert overlaps(a, b) == pytest.approx(np.array([[1 / 3, 1, 0], [0, 0, 0]]))


# --- detection ------------------------------------------------------------------------------------
def objects(*rows):
    """Objects of (label, difficult, left, top, right, bottom)."""
    return Objects(
        boxes=np.array([row[2:] for row in rows], np.float32).reshape(-1, 4),
        labels=np.array([row[0] for row in rows], np.int64),
        difficult=np.array([row[1] for row in rows], bool),
    )


def detections(*rows):
    """Detections of (label, score, left, top, right, bottom)."""
    return Detections(
        boxes=np.array([row[2:] for row in rows], np.float32).reshape(-1, 4),
        labels=np.array([row[0] for row in rows], np.int64),
        scores=np.array([row[1] for row in rows], np.float32),
    )


def test_detections_by_hand():
    truth = [objects((0, 0, 0, 0, 10, 10), (0, 1, 50, 50, 60, 60)), objects((0, 0, 0, 0, 10, 10))]
    found = [
        detections(
            (0, 0.9, 0, 0, 10, 10),  # right
            (0, 0.8, 0, 0, 10, 9),  # found already: wrong
            (0, 0.7, 50, 50, 60, 60),  # difficult: does not count
            (1, 0.6, 0, 0, 10, 10),  # another class
        ),
        detections((0, 0.5, 0, 5, 10, 15)),  # overlaps by a third: wrong
    ]
    precisions = detection_precisions(found, truth, 2)
    # Right, wrong, wrong of 2.
    assert precisions.eleven_points[0] == pytest.approx(6 / 11)
    assert precisions.area[0] == pytest.approx(1 / 2)
    assert np.isnan(precisions.eleven_points[1])
    assert precisions.mean == precisions.eleven_points[0]


def test_an_overlap_of_a_half_is_enough():
    truth = [objects((0, 0, 0, 0, 10, 10))]
    assert detection_precisions([detections((0, 1.0, 0, 0, 10, 5))], truth, 1).mean == 1
    assert detection_precisions([detections((0, 1.0, 0, 0, 10, 4.99))], truth, 1).mean == 0


def test_the_objects_themselves_are_found_and_nothing_else(rng):
    truth, found = [], []
    for _ in range(20):
        corner, size = rng.uniform(0, 50, (5, 2)), rng.uniform(5, 40, (5, 2))
        labels = rng.integers(0, 3, 5)
        boxes = np.concatenate([corner, corner + size], 1).astype(np.float32)
        truth.append(Objects(boxes, labels, np.zeros(5, bool)))
        found.append(Detections(boxes, labels, rng.uniform(size=5).astype(np.float32)))
    assert detection_precisions(found, truth, 3).mean == 1
    nothing = [detections() for _ in truth]
    assert detection_precisions(nothing, truth, 3).mean == 0
    assert np.isnan(detection_precisions(found, [objects() for _ in truth], 3).mean)


def test_images_without_detections_must_be_there_too():
    with pytest.raises(InputError, match="detections of 1 images, objects of 2"):
        detection_precisions([detections()], [objects(), objects()], 1)


# --- segmentation ---------------------------------------------------------------------------------
def test_intersection_over_union_by_hand():
    confusion = Confusion(4)
    confusion.add(np.array([[0, 0, 1, 255]], np.uint8), np.array([[0, 1, 1, 3]]))
    assert confusion.intersection_over_union()[:2] == pytest.approx([1 / 2, 1 / 2])
    assert np.isnan(confusion.intersection_over_union()[2:]).all()
    assert confusion.mean() == pytest.approx(1 / 2)
    assert confusion.pixel_accuracy() == pytest.approx(2 / 3)


def test_it_is_that_of_scikit_learn_over_all_images(rng):
    confusion = Confusion(5)
    images = [(rng.integers(0, 5, (9, 7)), rng.integers(0, 5, (9, 7))) for _ in range(6)]
    for truth, predicted in images:
        confusion.add(truth.astype(np.uint8), predicted)
    truth, predicted = (np.concatenate([pair[i].ravel() for pair in images]) for i in (0, 1))
    expected = jaccard_score(truth, predicted, average=None)
    assert confusion.intersection_over_union() == pytest.approx(expected)


def test_nothing_counted_is_no_figure():
    confusion = Confusion(2)
    confusion.add(np.full((2, 2), 255, np.uint8), np.zeros((2, 2), np.int64))
    assert np.isnan(confusion.mean())
    assert np.isnan(confusion.pixel_accuracy())


@pytest.mark.parametrize("predicted", [np.full((2, 2), 2), np.full((2, 2), -1), np.zeros((2, 3))])
def test_bad_segmentations_are_refused(predicted):
    with pytest.raises(InputError, match=r"predicted (must hold classes 0 .. 1|of \(2, 3\))"):
        Confusion(2).add(np.zeros((2, 2), np.uint8), predicted)
