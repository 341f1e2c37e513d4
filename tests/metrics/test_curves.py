import dataclasses
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irjax.metrics import PointPredictions, PointTruth, centroid_sweep, evaluate_images, protocol, sweep

THRESHOLDS = np.linspace(0.05, 0.95, 20)


def scenes(number, seed=0, clutter=20):
    random = np.random.default_rng(seed)
    truths, predictions = [], []
    for _ in range(number):
        points = random.uniform(0, 512, (random.integers(0, 6), 2))
        truths.append(PointTruth(points, 512, 512))
        found = np.concatenate([points + random.normal(0, 2, points.shape), random.uniform(0, 512, (clutter, 2))])
        predictions.append(PointPredictions(found, random.uniform(0, 1, len(found))))
    return predictions, truths


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.integers(0, 6))
def test_the_sweep_equals_matching_again_at_each_threshold(seed, clutter):
    random = np.random.default_rng(seed)
    truths = [PointTruth(random.uniform(0, 16, (random.integers(0, 5), 2)), 16, 16) for _ in range(3)]
    # Few distinct scores, so that ties occur within and between images.
    predictions = [
        PointPredictions(random.uniform(0, 16, (n, 2)), random.integers(1, 5, n) / 4)
        for n in random.integers(0, clutter + 1, 3)
    ]
    thresholds = np.array([0.1, 0.25, 0.5, 0.6, 1.0, 1.5])
    fast = centroid_sweep(predictions, truths, thresholds)
    for index, threshold in enumerate(thresholds):
        total = evaluate_images(predictions, truths, "centroid", threshold=threshold)["centroid"].total
        assert (fast.matched[index], fast.predictions[index]) == (total.matched, total.predictions)
        assert (fast.truths, fast.pixels) == (total.truths, total.pixels)
    general = sweep(predictions, truths, thresholds, "centroid")
    for field in dataclasses.fields(fast):
        np.testing.assert_array_equal(getattr(general, field.name), getattr(fast, field.name))


def test_a_weak_detection_does_not_take_a_target_from_a_strong_one():
    truths = [PointTruth([(10, 10)], 32, 32)]
    predictions = [PointPredictions([(10, 10), (12, 10)], [0.2, 0.9])]
    got = centroid_sweep(predictions, truths, [0.1, 0.5])
    assert got.matched.tolist() == [1, 1] and got.false_alarms.tolist() == [1, 0]


def test_400_images_and_20_thresholds_take_less_than_a_second():
    predictions, truths = scenes(400)
    start = time.perf_counter()
    centroid_sweep(predictions, truths, THRESHOLDS)
    assert time.perf_counter() - start < 1.0


def test_ties_in_f1_go_to_the_higher_threshold():
    truths = [PointTruth([(1, 1)], 8, 8)]
    best = centroid_sweep([PointPredictions([(1, 1)], [0.7])], truths, [0.2, 0.4, 0.6, 0.8]).best()
    assert (best.threshold, best.f1, best.tp, best.fp, best.fn, best.fa) == (0.6, 1.0, 1, 0, 0, 0.0)


def test_average_precision_by_hand():
    truths = [PointTruth([(0, 0), (50, 0)], 64, 64)]
    predictions = [PointPredictions([(0, 0), (20, 0), (50, 0)], [0.9, 0.8, 0.7])]
    curve = centroid_sweep(predictions, truths)
    assert curve.thresholds.tolist() == [0.7, 0.8, 0.9]
    assert curve.average_precision == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    perfect = centroid_sweep([PointPredictions(truths[0].points, [0.3, 0.4])], truths, [0.9])
    assert perfect.average_precision == 1.0 and math.isnan(perfect.precision[0])


def test_empty_sets():
    none = centroid_sweep([PointPredictions([])], [PointTruth([], 8, 8)], [0.5])
    assert math.isnan(none.average_precision) and math.isnan(none.best().f1) and none.fa[0] == 0
    nothing_found = centroid_sweep([PointPredictions([])], [PointTruth([(1, 1)], 8, 8)], [0.5])
    assert nothing_found.average_precision == 0 and nothing_found.best().f1 == 0
    assert len(centroid_sweep([], [])) == 1


def test_maps_are_cut_and_labelled_again_at_each_threshold():
    # One blob at 0.2 that falls apart into its two targets at 0.5.
    truth, scores = np.zeros((24, 24), bool), np.zeros((24, 24), np.float32)
    scores[10:13, 6:17] = 0.3
    for col in (6, 14):
        truth[10:13, col : col + 3] = True
        scores[10:13, col : col + 3] = 0.9
    got = sweep([scores], [truth], [0.2, 0.5, 0.95], "irjax")
    assert got.predictions.tolist() == [1, 2, 0] and got.matched.tolist() == [0, 2, 0]
    assert got.false_alarms.tolist() == [33, 0, 0] and got.best().threshold == 0.5
    by_centroid = sweep([scores], [truth], [0.2, 0.5, 0.95], protocol("centroid"))
    assert by_centroid.matched.tolist() == [1, 2, 0]


@pytest.mark.parametrize("change", [{"matching": "first"}, {"dropped_points": "axes"}])
def test_points_under_other_rules_are_matched_again_too(change):
    predictions, truths = scenes(4, clutter=40)
    predictions = [PointPredictions(np.round(p.points / 64) * 64, p.scores) for p in predictions]
    truths = [PointTruth(np.round(t.points / 64) * 64, 512, 512) for t in truths]
    spec = dataclasses.replace(protocol("centroid"), **change)
    got = sweep(predictions, truths, [0.2, 0.7], spec)
    for index, threshold in enumerate((0.2, 0.7)):
        total = evaluate_images(predictions, truths, spec, threshold=threshold)["centroid"].total
        assert (got.matched[index], got.predictions[index]) == (total.matched, total.predictions)
    plain = sweep(predictions, truths, [0.2, 0.7], "centroid")
    assert "dropped_points" not in change or (got.predictions < plain.predictions).all()


@pytest.mark.parametrize("thresholds", [[0.5, 0.4], [], [math.nan], [0.5, 0.5]])
def test_thresholds_are_checked(thresholds):
    with pytest.raises(ValueError, match="finite and rising"):
        centroid_sweep([], [], thresholds)


def test_numbers_of_images_are_checked():
    with pytest.raises(ValueError, match="1 predictions for 0 truths"):
        centroid_sweep([PointPredictions([])], [], [0.5])
