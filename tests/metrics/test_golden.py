"""What a right implementation gives for predictions of published programs. All recorded ones: test_golden_table.py."""

import dataclasses
import json

import numpy as np
import pytest

from irjax.metrics import (
    ScoreHistogram,
    distinct_scores,
    evaluate,
    evaluate_images,
    protocol,
    score_histogram,
)
from irjax.metrics.evaluation import count_masks
from irjax.metrics.inputs import truth_mask
from irjax.ops.regions import find_regions

IRJAX, CENTROID = protocol("irjax"), protocol("centroid")


@pytest.fixture(scope="module")
def golden(shared):
    with np.load(shared / "golden" / "metrics_golden.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return arrays, json.loads((shared / "golden" / "metrics_golden.json").read_text())


def whole(arrays, kind):
    return [*arrays[f"{kind}_A"], *arrays[f"{kind}_B"]]


def image(arrays, number, spec, **changes):
    spec = dataclasses.replace(spec, **changes)
    return count_masks(spec, arrays["prob_A"][number] > 0.5, arrays["mask_A"][number] > 0)


def test_1_unmatched_regions_are_found_by_themselves_not_by_their_area(golden):
    counts = image(golden[0], 4, IRJAX)
    assert (counts.false_region_pixels, counts.area_set_pixels, counts.matched, counts.truths) == (8, 0, 1, 1)


def test_2_greedy_traps(golden):
    assert [image(golden[0], 8, IRJAX, matching=m).matched for m in ("optimal", "first")] == [2, 1]
    assert [image(golden[0], 9, CENTROID, matching=m).matched for m in ("optimal", "nearest_in_order")] == [2, 1]


def test_3_limits(golden):
    limits = ((3.0, False), (3.0, True), (5.0, True))
    assert [image(golden[0], 5, IRJAX, limit=at, inclusive=i).matched for at, i in limits] == [1, 2, 3]


def test_4_touching_targets(golden):
    eight, four = (image(golden[0], 6, IRJAX, connectivity=c) for c in (8, 4))
    assert (eight.truths, eight.matched, four.truths, four.matched) == (1, 1, 2, 2)


def test_5_merged_blob(golden):
    counts = image(golden[0], 7, IRJAX)
    assert (counts.matched, counts.truths - counts.matched, counts.predictions - counts.matched) == (1, 1, 0)
    values = evaluate(golden[0]["prob_A"][7:8], golden[0]["mask_A"][7:8])["irjax"]
    assert values["IoU"] == 18 / 21 and counts.overlapped == 2


def test_6_border(golden):
    counts = image(golden[0], 10, IRJAX)
    assert (counts.matched, counts.truths) == (2, 3)
    assert image(golden[0], 10, protocol("spire")).matched == 1


def test_7_empty_images(golden):
    perfect_and_empty = [np.eye(4, dtype=bool), np.zeros((4, 4), bool)]
    got = {}
    for empty in ("zero", "one", "skip"):
        spec = dataclasses.replace(IRJAX, name=empty, empty=empty)
        got[empty] = evaluate(perfect_and_empty, perfect_and_empty, (spec,))[empty]["nIoU"]
    assert got == {"zero": 0.5, "one": 1.0, "skip": 1.0}
    only_false = evaluate(golden[0]["prob_A"][1:2], golden[0]["mask_A"][1:2])["irjax"]
    assert only_false["Fa"] == 10 / 4096 and np.isnan(only_false["Pd"])


def test_8_two_sets_in_one_accumulator(golden):
    totals = {}
    for part in "AB":
        totals[part] = evaluate_images(golden[0][f"prob_{part}"], golden[0][f"mask_{part}"])["irjax"].total
    both = totals["A"] + totals["B"]
    assert (both.pixel_tp, both.pixel_tp + both.pixel_fp + both.pixel_fn) == (162, 798)
    values = evaluate(whole(golden[0], "prob"), whole(golden[0], "mask"))["irjax"]
    assert values["IoU"] == pytest.approx(0.203008, abs=5e-7)
    assert evaluate_images(whole(golden[0], "prob"), whole(golden[0], "mask"))["irjax"].total == both


def test_9_the_whole_set(golden):
    predictions, truths = whole(golden[0], "prob"), whole(golden[0], "mask")
    evaluations = evaluate_images(predictions, truths, ("irjax", "centroid"))
    irjax, centroid = evaluations["irjax"].total, evaluations["centroid"].total
    assert (irjax.matched, irjax.truths, irjax.false_region_pixels, irjax.pixel_fp) == (26, 46, 232, 368)
    assert (centroid.matched, centroid.truths, centroid.false_region_pixels) == (35, 46, 141)
    want = {"zero": 0.252333, "one": 0.335667, "skip": 0.275273}
    for empty, value in want.items():
        spec = dataclasses.replace(IRJAX, empty=empty)
        assert evaluate(predictions, truths, (spec,))["irjax"]["nIoU"] == pytest.approx(value, abs=5e-7)
    pad = {"canvas": "pad"}
    specs = {
        "basicirstd": protocol("basicirstd"),
        "sctransnet": protocol("sctransnet"),
        "mshnet": dataclasses.replace(protocol("mshnet"), canvas_size=96, **pad),
        "dnanet": dataclasses.replace(protocol("dnanet"), **pad),
        "spire": protocol("spire"),
    }
    found = evaluate_images(predictions, truths, tuple(specs.values()))
    basic, spire = found["basicirstd"].total, found["spire"].total
    assert (basic.matched, basic.false_region_pixels) == (25, 233)
    assert (spire.matched, spire.predictions - spire.matched) == (32, 28)
    fa = {name: found[name].metrics()["Fa"] * 1e6 for name in ("sctransnet", "mshnet", "dnanet")}
    assert fa == {name: pytest.approx(value, abs=5e-3) for name, value in
                  {"sctransnet": 1387.00, "mshnet": 886.14, "dnanet": 124.61}.items()}  # fmt: skip
    levels = distinct_scores(predictions)
    histograms = [score_histogram(p, t, levels) for p, t in zip(predictions, truths, strict=True)]
    assert ScoreHistogram.total(histograms).auc() == pytest.approx(0.760344, abs=5e-7)


def test_10_the_threshold_is_background_and_logits_agree(golden):
    assert not evaluate([np.full((4, 4), 0.5)], [np.zeros((4, 4))])["irjax"]["FP"]
    truths = whole(golden[0], "mask")
    both = ("irjax", "centroid")
    from_logits = evaluate(whole(golden[0], "logit"), truths, both, logits=True)
    assert from_logits == evaluate(whole(golden[0], "prob"), truths, both)


def test_gray_truth_is_split_at_128(golden):
    arrays, recorded = golden
    for number, gray in enumerate(arrays["gray_G"]):
        mask, rule = truth_mask(gray)
        assert rule == "gray, >= 128"
        assert len(find_regions(mask)) == recorded["gray"][str(number)]["targets_if_gt_gt_half"]
