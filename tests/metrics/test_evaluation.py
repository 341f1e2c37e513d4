import dataclasses
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irjax.metrics import (
    Counts,
    PointPredictions,
    PointTruth,
    bootstrap_intervals,
    evaluate,
    evaluate_images,
    from_detections,
    protocol,
)
from irjax.metrics.inputs import integer_scale, predicted_mask, truth_mask
from irjax.ops.regions import find_regions
from irjax.types import Detections, Example

BOTH = ("irjax", "centroid")


def square(*corners, size=2, shape=(32, 32)):
    mask = np.zeros(shape, bool)
    for row, col in corners:
        mask[row : row + size, col : col + size] = True
    return mask


@st.composite
def scenes(draw, number=5):
    """A few images with random squares as truth and prediction."""
    corner = st.tuples(st.integers(0, 22), st.integers(0, 22))
    some = st.lists(corner, max_size=4)
    size = st.integers(1, 3)
    count = draw(st.integers(1, number))
    make = [lambda: square(*draw(some), size=draw(size), shape=(24, 24))] * 2
    return [make[0]() for _ in range(count)], [make[1]() for _ in range(count)]


@settings(deadline=None, max_examples=60)
@given(scenes(), st.randoms(use_true_random=False), st.integers(0, 5))
def test_results_do_not_depend_on_order_or_batches(scene, random, cut):
    predictions, truths = scene
    whole = {name: e.total for name, e in evaluate_images(predictions, truths, BOTH).items()}
    order = list(range(len(truths)))
    random.shuffle(order)
    shuffled = [predictions[i] for i in order], [truths[i] for i in order]
    assert {name: e.total for name, e in evaluate_images(*shuffled, BOTH).items()} == whole
    for name in BOTH:
        halves = [
            evaluate_images(predictions[part], truths[part], name)[name].total
            for part in (slice(0, cut), slice(cut, None))
        ]
        assert halves[0] + halves[1] == whole[name]


@settings(deadline=None, max_examples=60)
@given(scenes(number=3), st.floats(0, 23), st.floats(0, 23))
def test_a_further_false_detection_never_lowers_fa(scene, x, y):
    predictions, truths = scene
    points = [PointPredictions(find_regions(mask).centroids) for mask in predictions]
    more = [PointPredictions(np.concatenate([points[0].points, [(x, y)]])), *points[1:]]
    before, after = (evaluate(p, truths, "centroid")["centroid"] for p in (points, more))
    assert after["Fa"] >= before["Fa"] and after["Recall"] >= before["Recall"] or math.isnan(after["Recall"])
    # A region well away from every other, in a margin that both get.
    wide_truths, wide = ([np.pad(mask, ((0, 0), (0, 8))) for mask in masks] for masks in (truths, predictions))
    false = [wide[0].copy(), *wide[1:]]
    false[0][10:12, 29:31] = True
    before, after = (evaluate(p, wide_truths)["irjax"] for p in (wide, false))
    assert after["Fa"] == pytest.approx(before["Fa"] + 4 / sum(mask.size for mask in wide))


@settings(deadline=None, max_examples=60)
@given(scenes())
def test_optimal_is_never_below_greedy(scene):
    found = {}
    for method in ("optimal", "first", "nearest_in_order"):
        spec = dataclasses.replace(protocol("centroid"), name=method, matching=method)
        found[method] = evaluate(*scene, (spec,))[method]["TP"]
    assert found["optimal"] >= max(found["first"], found["nearest_in_order"])


@settings(deadline=None, max_examples=60)
@given(scenes())
def test_a_perfect_prediction(scene):
    truths = [*scene[1], square((3, 3))]
    for name, values in evaluate(truths, truths, BOTH).items():
        assert values["Precision"] == values["Recall"] == values["Pd"] == values["F1"] == 1 and values["Fa"] == 0
        assert values["FP"] == values["FN"] == 0
        if name == "irjax":
            assert values["IoU"] == values["nIoU"] == 1


def test_every_pairing_of_maps_and_points_agrees():
    truth, prediction = square((5, 5), (20, 20)), square((6, 6), (12, 25))
    points = PointPredictions(find_regions(prediction).centroids)
    targets = PointTruth(find_regions(truth).centroids, 32, 32)
    want = {"TP": 1, "FP": 1, "FN": 1, "Fa": 1 / 1024, "Precision": 0.5, "Recall": 0.5, "Pd": 0.5, "F1": 0.5}
    for predicted in (prediction, points):
        for true in (truth, targets, Example("a", np.zeros((32, 32), np.uint8), targets.points, truth)):
            assert evaluate([predicted], [true], "centroid")["centroid"] == want


def test_undefined_is_nan():
    empty = np.zeros((8, 8), bool)
    values = evaluate([empty], [empty], BOTH)
    assert all(math.isnan(values["irjax"][name]) for name in ("IoU", "nIoU", "Pd", "Precision", "F1"))
    assert values["irjax"]["Fa"] == values["centroid"]["Fa"] == 0
    missed = evaluate([empty], [square((1, 1), shape=(8, 8))])["irjax"]
    assert missed["Pd"] == 0 and missed["F1"] == 0 and math.isnan(missed["Precision"])


def test_points_by_threshold():
    predictions = [PointPredictions([(1, 1), (9, 9)], [0.35, 0.2])]
    truths = [PointTruth([(1, 1)], 16, 16)]
    assert evaluate(predictions, truths, "centroid")["centroid"]["FP"] == 1
    assert evaluate(predictions, truths, "centroid", threshold=0.35)["centroid"]["TP"] == 1
    assert evaluate(predictions, truths, "centroid", threshold=0.36)["centroid"]["FN"] == 1


def test_threshold_of_maps():
    maps = [np.where(square((2, 2)), 0.3, 0.1).astype(np.float32)]
    truth = [square((2, 2))]
    assert evaluate(maps, truth, BOTH)["irjax"]["TP"] == 0
    assert {v["TP"] for v in evaluate(maps, truth, BOTH, threshold=0.2).values()} == {1}
    with pytest.raises(ValueError, match="probability"):
        evaluate(maps, truth, threshold=2)


def test_detections_and_sources_are_taken_as_they_are():
    detections = Detections(
        points=np.array([[[4, 5], [0, 0]], [[0, 0], [0, 0]]], np.float32),
        scores=np.array([[0.9, 0], [0, 0]], np.float32),
        valid=np.array([[True, False], [False, False]]),
    )
    image = np.zeros((16, 16), np.uint8)
    truths = [Example("a", image, np.array([[4, 4]], np.float32)), Example("b", image, np.zeros((0, 2), np.float32))]
    assert [len(p) for p in from_detections(detections)] == [1, 0]
    assert evaluate(detections, truths, "centroid")["centroid"]["F1"] == 1


def test_a_zero_pixel_is_a_pixel():
    # A published program drops points with x = 0 or y = 0.
    assert evaluate([PointPredictions([(0, 0)])], [PointTruth([(0, 0)], 8, 8)], "centroid")["centroid"]["TP"] == 1


@pytest.mark.parametrize(
    ("mask", "targets", "rule"),
    [
        (np.array([[0, 1]], np.uint8), 1, "as it is"),
        (np.array([[False, True]]), 1, "as it is"),
        (np.array([[0.0, 1.0]]), 1, "as it is"),
        (np.array([[127, 128]], np.uint8), 1, "gray, >= 128"),
        (np.array([[3, 127]], np.int64), 0, "gray, >= 128"),
    ],
)
def test_truth_masks(mask, targets, rule):
    got, applied = truth_mask(mask)
    assert got.sum() == targets and got.dtype == bool and applied == rule
    assert evaluate_images([got], [mask])["irjax"].mask_rules == {rule: 1}


@pytest.mark.parametrize("mask", [np.array([[0, 300]]), np.array([[-1, 0]]), np.array([[0.2, 1.0]]), np.zeros(4)])
def test_impossible_truth_masks(mask):
    with pytest.raises(ValueError, match="mask"):
        truth_mask(mask)


def test_integer_maps_are_read_by_their_whole_set():
    ones, gray = np.array([[0, 1]], np.uint8), np.array([[127, 128]], np.uint8)
    assert integer_scale([ones, ones]) == 1 and integer_scale([ones, gray]) == 255
    truth = [np.array([[0, 1]])] * 2
    assert evaluate([ones, ones], truth)["irjax"]["TP"] == 2
    assert evaluate([ones, gray], truth)["irjax"]["TP"] == 1
    assert predicted_mask(gray, 0.5).tolist() == [[False, True]]


@pytest.mark.parametrize(
    ("predictions", "truths", "protocols", "message"),
    [
        ([PointPredictions([(1, 1)])], [np.zeros((4, 4))], "irjax", "image 0.*'irjax' scores pixels.*'centroid'"),
        ([np.zeros((4, 4))], [PointTruth([], 4, 4)], "irjax", "'irjax' scores pixels"),
        ([np.zeros((4, 4))], [np.zeros((4, 5))], "irjax", "prediction is 4x4, the truth 4x5"),
        ([np.zeros((4, 4))], [PointTruth([], 4, 5)], "centroid", "prediction is 4x4, the image 4x5"),
        ([np.zeros((4, 4))], [], "irjax", "1 predictions for 0 truths"),
        (np.zeros((4, 4)), [np.zeros((4, 4))], "irjax", "predictions must be a sequence"),
        (None, [np.zeros((4, 4))], "irjax", "predictions must be a sequence"),
        ([np.full((4, 4), 7.0)], [np.zeros((4, 4))], "irjax", r"\[0, 1\], got 7.*logits=True"),
        ([np.full((4, 4), np.nan)], [np.zeros((4, 4))], "irjax", "finite"),
        ([np.full((4, 4), 300)], [np.zeros((4, 4))], "irjax", r"\[0, 255\]"),
        ([np.zeros((4, 4))], [np.zeros((4, 4))], ("irjax", "irjax"), "different names"),
        ([np.zeros((4, 4))], [np.zeros((4, 4))], "best", "unknown protocol 'best'; known: irjax, centroid"),
    ],
)
def test_what_cannot_be_scored_says_why(predictions, truths, protocols, message):
    with pytest.raises(ValueError, match=message):
        evaluate(predictions, truths, protocols)


def test_a_mask_is_needed_and_missing():
    example = Example("a", np.zeros((4, 4), np.uint8), np.zeros((0, 2)))
    with pytest.raises(ValueError, match="a: this protocol scores pixels and needs a mask"):
        evaluate([np.zeros((4, 4))], [example])


@pytest.mark.parametrize("points", [[(1, 2, 3)], [(1, math.nan)], [(math.inf, 0)]])
def test_points_are_checked(points):
    with pytest.raises(ValueError, match="points"):
        PointPredictions(points)
    with pytest.raises(ValueError, match="points"):
        PointTruth(points, 8, 8)


def test_scores_are_checked():
    with pytest.raises(ValueError, match="1 predicted points need as many scores, got 2"):
        PointPredictions([(1, 1)], [0.1, 0.2])
    with pytest.raises(ValueError, match="scores must be finite"):
        PointPredictions([(1, 1)], [math.nan])


def test_worst_images_first():
    truths = [square((3, 3)), square((3, 3), (20, 20)), square((3, 3)), np.zeros((32, 32), bool)]
    predictions = [truths[0], np.zeros((32, 32), bool), square((25, 25)), square((9, 9))]
    evaluation = evaluate_images(predictions, truths, names="abcd")["irjax"]
    assert [evaluation.names[i] for i in evaluation.worst_first()] == ["b", "c", "d", "a"]
    assert Counts.total(evaluation.rows) == evaluation.total


def test_bootstrap_is_seeded_covers_the_value_and_narrows():
    random = np.random.default_rng(0)
    rows = [Counts(images=1, pixels=100, truths=2, predictions=2, matched=int(m)) for m in random.integers(0, 3, 400)]
    spec = protocol("centroid")
    intervals = bootstrap_intervals(rows, spec, samples=400, seed=3)
    assert intervals == bootstrap_intervals(rows, spec, samples=400, seed=3)
    assert intervals != bootstrap_intervals(rows, spec, samples=400, seed=4)
    low, high = intervals["Recall"]
    matched = np.array([row.matched for row in rows])
    # The normal approximation of the mean of 400 images.
    mean, deviation = matched.mean() / 2, matched.std() / 2 / np.sqrt(400)
    assert low == pytest.approx(mean - 1.96 * deviation, abs=0.35 * deviation)
    assert high == pytest.approx(mean + 1.96 * deviation, abs=0.35 * deviation)
    short = bootstrap_intervals(rows[:25], spec, samples=400)["Recall"]
    assert short[1] - short[0] > high - low
    assert bootstrap_intervals(rows[:1], spec)["Recall"] == (matched[0] / 2,) * 2


def test_bootstrap_of_something_undefined():
    low, high = bootstrap_intervals([Counts(images=1, pixels=9)], protocol("centroid"))["Recall"]
    assert math.isnan(low) and math.isnan(high)
    with pytest.raises(ValueError, match="at least one image"):
        bootstrap_intervals([], protocol("centroid"))
    with pytest.raises(ValueError, match="level=1"):
        bootstrap_intervals([Counts()], protocol("centroid"), level=1)


def test_speed():
    """100 of the 1,000 images of 512x512 that may take 30 s; here a tenth of that time is allowed."""
    random = np.random.default_rng(0)
    masks, maps = [], []
    for _ in range(100):
        corners = random.integers(0, 500, (6, 2))
        masks.append(square(*corners[:3], size=4, shape=(512, 512)).astype(np.uint8) * 255)
        maps.append(np.where(square(*corners[1:], size=4, shape=(512, 512)), np.float32(0.9), np.float32(0.1)))
    start = time.process_time()
    evaluate_images(maps, masks, ("irjax", "basicirstd"))
    assert time.process_time() - start < 3.0
