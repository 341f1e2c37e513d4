"""What each setting of a protocol changes, on images small enough to count by hand."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irjax.metrics import PROTOCOLS, Curve, PointPredictions, PointTruth, evaluate, evaluate_images, protocol, sweep
from irjax.ops.resize import resize_mask, resize_square

REPLACE = dataclasses.replace
IRJAX = protocol("irjax")
# At native size, so that small images will do.
NATIVE = tuple(REPLACE(spec, canvas="native") for spec in PROTOCOLS.values())


def square(*corners, size=2, shape=(32, 32)):
    mask = np.zeros(shape, bool)
    for row, col in corners:
        mask[row : row + size, col : col + size] = True
    return mask


def one(prediction, truth, spec, /, **changes):
    spec = REPLACE(protocol(spec), **changes)
    return evaluate_images([prediction], [truth], spec)[spec.name]


def test_flaw_1_false_regions_as_large_as_a_hit():
    truth, prediction = square((4, 4)), square((4, 4), (20, 4), (20, 20))
    for name in ("irjax", "basicirstd", "lesps", "na_irstd", "pal"):
        assert one(prediction, truth, name).metrics()["Fa"] == 8 / 1024
    for name in ("sctransnet", "rpcanet"):
        assert one(prediction, truth, name).metrics()["Fa"] == 0
    for name in ("dnanet", "mshnet", "scale_loss"):
        assert one(prediction, truth, name, canvas="pad").metrics()["Fa"] == 0
    other = prediction | square((28, 28), size=3)
    assert one(other, truth, "sctransnet").metrics()["Fa"] == 9 / 1024


def test_flaw_2_the_published_thresholds_leave_logits_empty():
    logits = np.where(square((4, 4)), 20.0, -20.0)
    got = sweep([logits], [square((4, 4))], [0.5, 1 / (1 + math.exp(-25.5))], "sctransnet", logits=True)
    assert got.recall.tolist() == [1, 0]


def test_flaw_3_pd_does_not_decay_over_epochs():
    truth = [square((4, 4))]
    assert [evaluate(truth, truth, REPLACE(protocol("mshnet"), canvas="pad"))["mshnet"]["Pd"] for _ in "123"] == [1] * 3


def test_flaw_4_greedy_matching():
    truth, prediction = np.zeros((2, 20, 20), bool)
    truth[[10, 10], [10, 14]] = prediction[[9, 11], [12, 8]] = True
    assert [one(prediction, truth, name).total.matched for name in ("irjax", "basicirstd", "pal")] == [2, 1, 1]
    truths, points = PointTruth([(10, 0), (16, 0)], 20, 20), PointPredictions([(13, 0), (6, 0)])
    assert [one(points, truths, name).total.matched for name in ("centroid", "spire")] == [2, 1]


def test_flaw_5_each_rule_for_gray_truth():
    truth = np.zeros((12, 12), np.uint8)
    truth[2:4, 2:4], truth[2:4, 4], truth[8, 8:10] = 255, 150, 60
    prediction = square((2, 2), size=3, shape=(12, 12))
    want = {"split": (1, 6), "exact": (1, 4), "mixed": (1, 4), "peak": (1, 4), "positive": (2, 6)}
    for rule, (targets, both) in want.items():
        found = one(prediction, truth, "irjax", truth=rule)
        assert (found.total.truths, found.total.pixel_tp) == (targets, both)
        assert sum(found.mask_rules.values()) == 1 and next(iter(found.mask_rules)).startswith("gray, ")
    graded = one(prediction, truth, "irjax", truth="graded").total
    assert (graded.truths, graded.pixel_tp) == (3, 4 * 255 + 2 * 150)
    mixed = one(prediction, truth, "basicirstd")
    # Of 9 predicted pixels 4 are of level 255; 6 truth pixels are at least 128 and 8 above 0.
    assert mixed.metrics()["IoU"] == 4 / (9 + 6 - 4) and mixed.metrics()["pixAcc"] == 4 / 8


@pytest.mark.parametrize("full", [1, 255])
@pytest.mark.parametrize("spec", [spec for spec in NATIVE if spec.needs_maps], ids=lambda spec: spec.name)
def test_masks_of_two_levels_read_the_same_under_every_rule(spec, full):
    truth, prediction = square((4, 4), (20, 20)), square((5, 5), (9, 22))
    want = one(prediction, truth, spec).metrics()
    got = one(prediction, truth.astype(np.uint8) * full, spec).metrics()
    np.testing.assert_equal(got, want)


def test_flaw_6_a_flat_map_becomes_all_target():
    flat, truth = np.full((16, 16), 0.02), square((4, 4), shape=(16, 16))
    assert one(flat, truth, "irjax").total.predictions == 0
    assert one(flat, truth, "rpcanet").total.pixel_fp == 252
    overlap = one(flat, truth, "rpcanet_overlap").metrics()
    assert overlap["OverlapPd"] == 1 and overlap["Fa"] == 1
    assert one(np.zeros((16, 16)), truth, "rpcanet").total.predictions == 0


def test_flaw_7_dropped_points():
    truth, points = PointTruth([(0, 0), (0, 9)], 16, 16), PointPredictions([(0, 0), (0, 9)])
    assert [one(points, truth, "spire", dropped_points=d).total.matched for d in ("none", "origin", "axes")] == [
        2,
        1,
        0,
    ]
    assert one(points, truth, "centroid").total.matched == 2
    assert one(PointPredictions([]), truth, "spire").metrics()["Recall"] == 0


def test_flaw_7_false_alarms_on_images_without_targets():
    empty, false = PointTruth([], 16, 16), PointPredictions([(5, 5)])
    assert one(false, empty, "spire").total.predictions == 1
    assert one(false, empty, "spire", skip_without_truth=True).total.images == 0
    blank, map_ = np.zeros((16, 16), bool), square((5, 5), shape=(16, 16))
    assert one(map_, blank, "rpcanet_overlap").total.pixels == 0
    assert one(map_, blank, "rpcanet").metrics()["Fa"] == 4 / 256


def test_flaw_7_thresholds_without_matching_again():
    truth, points = [PointTruth([(10, 10)], 32, 32)], [PointPredictions([(10, 10), (12, 10)], [0.2, 0.9])]
    assert sweep(points, truth, [0.1, 0.5], "centroid").matched.tolist() == [1, 1]
    assert sweep(points, truth, [0.1, 0.5], "spire").matched.tolist() == [1, 0]
    # A dropped first point shifts the scores by one: the pair has the dropped point's score.
    points = [PointPredictions([(0, 0), (10, 10)], [0.3, 0.9])]
    assert sweep(points, truth, [0.1, 0.5], "spire").matched.tolist() == [1, 1]
    shifted = sweep(points, truth, [0.1, 0.5], "spire_masks")
    assert shifted.matched.tolist() == [1, 0] and shifted.predictions.tolist() == [2, 1]


def test_flaw_8_other_sizes_are_refused_with_both_sizes():
    for spec in PROTOCOLS:
        with pytest.raises(ValueError, match="image Misc_111: the prediction is 400x600, the truth 400x592"):
            evaluate_images([np.zeros((400, 600))], [np.zeros((400, 592))], spec, names=["Misc_111"])


def test_a_sweep_names_the_image_and_both_sizes():
    maps, masks = [np.zeros((4, 4)), np.zeros((4, 5))], [np.zeros((4, 4))] * 2
    for spec in ("irjax", "centroid", "spire", "spire_masks"):
        with pytest.raises(ValueError, match="image 1: the prediction is 4x5, the truth 4x4"):
            sweep(maps, masks, [0.5], spec)


def test_a_canvas_that_loses_a_gray_target_has_none():
    truth = np.zeros((64, 64), np.uint8)
    truth[1, 1], truth[1, 3] = 200, 90
    spec = REPLACE(protocol("rpcanet"), canvas="resize", canvas_size=8)
    assert resize_mask(truth, 8).max() == 0
    assert evaluate_images([np.zeros((64, 64))], [truth], spec)["rpcanet"].total.truths == 0


def test_flaw_9_a_small_canvas_loses_small_targets():
    truth = np.zeros((1, 512, 512), bool)
    truth[0, 100, 301:303] = truth[0, 201, 300:302] = True
    spec = protocol("dnanet")
    assert evaluate_images(truth, truth, spec)["dnanet"].total.truths < 2
    assert evaluate_images(truth, truth, REPLACE(spec, canvas="native"))["dnanet"].total.truths == 2


def test_a_padded_canvas_changes_only_the_number_of_pixels():
    truth, prediction = square((4, 4), shape=(24, 20)), square((5, 5), (15, 15), shape=(24, 20))
    native, pad = (one(prediction, truth, "dnanet", canvas=canvas).total for canvas in ("native", "pad"))
    assert REPLACE(native, pixels=256**2) == pad and native.pixels == 480
    with pytest.raises(ValueError, match="24x20 does not lie on the canvas of 20x20 of protocol 'mshnet'"):
        one(prediction, truth, "mshnet", canvas="pad", canvas_size=20)


def test_a_resized_canvas():
    truth = square((8, 8), (40, 40), size=8, shape=(64, 48))
    spec = REPLACE(protocol("dnanet"), canvas_size=32)
    total = evaluate_images([truth], [truth], spec)["dnanet"].total
    assert total.pixels == 32 * 32 and total.matched == total.truths == 2 and total.pixel_fp == total.pixel_fn == 0
    soft = np.where(truth, 0.9, 0.1)
    assert evaluate_images([soft], [truth], spec)["dnanet"].total.matched == 2
    # A map that the network gave at the canvas's size is as good as one that is resized.
    small = np.clip(resize_square(soft, 32), 0, 1)
    assert evaluate_images([small], [truth], spec)["dnanet"] == evaluate_images([soft], [truth], spec)["dnanet"]
    assert resize_mask(truth, 32).dtype == bool and small.shape == (32, 32) and 0.1 <= small.min() < small.max() <= 0.9
    with pytest.raises(ValueError, match="prediction is 31x32, the truth 64x48"):
        evaluate([small[1:]], [truth], spec)


def test_eight_bits_cut_the_map_first():
    truth = square((4, 4))
    # 0.501 * 255 = 127.755, which is saved as 127.
    assert one(np.where(truth, 0.501, 0), truth, "pal").total.matched == 0
    assert one(np.where(truth, 128 / 255, 0), truth, "pal").total.matched == 1
    assert one(np.where(truth, 128, 0).astype(np.uint8), truth, "pal").total.matched == 1


def test_weighted_centroids():
    scores = np.zeros((8, 16))
    scores[3, 4:8] = [0.9, 0.1, 0.1, 0.9]
    scores[3, 7] = 0.5
    geometric, weighted = PointTruth([(5.5, 3)], 8, 16), PointTruth([((3.6 + 0.5 + 0.6 + 3.5) / 1.6, 3)], 8, 16)
    spec = REPLACE(protocol("spire"), threshold=0.0, limit=1e-6)
    for truth, centroid in ((geometric, "geometric"), (weighted, "weighted")):
        other = "weighted" if centroid == "geometric" else "geometric"
        assert one(scores, truth, spec, centroid=centroid).total.matched == 1
        assert one(scores, truth, spec, centroid=other).total.matched == 0


def test_false_alarms_per_image_and_any_overlap():
    truth, prediction = square((4, 4), (20, 20)), square((5, 5), (11, 11), (26, 4))
    spec = REPLACE(IRJAX, metrics=("FalsePerImage", "OverlapPd", "Pd", "pixAcc"), limit=1.0)
    got = evaluate([prediction, truth], [truth, truth], spec)["irjax"]
    assert got == {"FalsePerImage": 1.5, "OverlapPd": 3 / 4, "Pd": 2 / 4, "pixAcc": 9 / 16}


@st.composite
def scenes(draw, number=4):
    """A few maps of squares with scores, and their masks."""
    corner = st.tuples(st.integers(0, 21), st.integers(0, 21))
    count, random = draw(st.integers(1, number)), np.random.default_rng(draw(st.integers(0, 2**31)))
    pairs = [[(draw(st.lists(corner, max_size=4)), draw(st.integers(1, 3))) for _ in range(2)] for _ in range(count)]
    masks, found = ([square(*at, size=size, shape=(24, 24)) for at, size in side] for side in zip(*pairs, strict=True))
    return [np.where(f, random.uniform(0.5, 1, f.shape), random.uniform(0, 0.5, f.shape)) for f in found], masks


@settings(deadline=None, max_examples=25)
@given(scenes(), st.randoms(use_true_random=False), st.integers(0, 4))
def test_no_protocol_depends_on_order_or_batches(scene, random, cut):
    maps, masks = scene
    whole = {name: e.total for name, e in evaluate_images(maps, masks, NATIVE).items()}
    order = list(range(len(masks)))
    random.shuffle(order)
    shuffled = evaluate_images([maps[i] for i in order], [masks[i] for i in order], NATIVE)
    assert {name: e.total for name, e in shuffled.items()} == whole
    first, second = (evaluate_images(maps[p], masks[p], NATIVE) for p in (slice(0, cut), slice(cut, None)))
    assert {name: first[name].total + second[name].total for name in whole} == whole
    # What the protocols share of an image does not depend on who comes first.
    alone = {spec.name: evaluate_images(maps, masks, spec)[spec.name].total for spec in NATIVE}
    assert alone == whole


@settings(deadline=None, max_examples=25)
@given(scenes(number=2))
def test_a_further_false_region_never_lowers_fa(scene):
    # By the protocols without flaw 1, 6 or a heat map that is one region. In a margin, away from every other region.
    names = ("irjax", "centroid", "basicirstd", "lesps", "na_irstd", "adsnet", "pal", "spire")
    maps, masks = ([np.pad(a, ((0, 0), (0, 8))) for a in arrays] for arrays in scene)
    more = [maps[0].copy(), *maps[1:]]
    more[0][10:12, 29:31] = 0.9
    before, after = evaluate(maps, masks, names), evaluate(more, masks, names)
    for name in names:
        one_more = 1 if protocol(name).false_alarm == "count" else 4
        assert after[name]["Fa"] == pytest.approx(before[name]["Fa"] + one_more / (len(maps) * 24 * 32))


@settings(deadline=None, max_examples=25)
@given(scenes())
def test_a_perfect_prediction_is_perfect_under_every_protocol(scene):
    # Without a target at (0, 0), which SPIRE drops.
    masks = [np.pad(mask, ((1, 0), (1, 0))) for mask in (*scene[1], square((3, 3), shape=(24, 24)))]
    for spec in (*NATIVE, *(REPLACE(protocol(n), canvas="pad") for n in ("dnanet", "acm"))):
        values = evaluate(masks, masks, spec)[spec.name]
        for name in ("IoU", "pixAcc", "PixelPrecision", "PixelRecall", "Precision", "Recall", "Pd", "OverlapPd", "F1"):
            assert values.get(name, 1) == 1, (spec.name, name)
        assert values.get("Fa", 0) == values.get("FP", 0) == values.get("FN", 0) == 0
        if "nIoU" in values and spec.empty == "skip":
            assert values["nIoU"] == 1


@settings(deadline=None, max_examples=10)
@given(scenes(number=2))
def test_a_sweep_is_an_evaluation_at_each_threshold(scene):
    maps, masks = scene
    levels = [0.25, 0.6, 0.9]
    for spec in NATIVE:
        if spec.sweep != "again":
            continue
        got = sweep(maps, masks, levels, spec)
        for index, level in enumerate(levels):
            evaluation = evaluate_images(maps, masks, spec, threshold=level)[spec.name]
            point, total = got.at(index), evaluation.total
            assert (point.tp, point.tp + point.fp, point.tp + point.fn) == (
                total.matched, total.predictions, total.truths)  # fmt: skip
            if "Fa" in spec.metrics:
                np.testing.assert_equal(point.fa, evaluation.metrics()["Fa"])


def test_own_curves_reach_the_counts():
    spec = REPLACE(IRJAX, name="own", curve=Curve((0.5,)), metrics=("IoU", "AUC"))
    truth = square((4, 4))
    assert evaluate([truth], [truth], spec)["own"] == {"IoU": 1, "AUC": 1}
