import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irjax.metrics import Curve, ScoreHistogram, distinct_scores, evaluate, evaluate_images, protocol, score_histogram


@st.composite
def maps(draw, number=4):
    """A few maps of 8-bit scores, so that ties and thresholds meet, with masks."""
    count, seed = draw(st.integers(1, number)), draw(st.integers(0, 2**31))
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, 6, 7)).astype(np.uint8), random.random((count, 6, 7)) < 0.3


def by_counting(scores, masks, thresholds, inclusive=False):
    """Pixels above each threshold, one threshold after another."""
    rows = []
    for threshold in thresholds:
        passed = scores >= threshold if inclusive else scores > threshold
        rows.append(((passed & masks).sum(), (passed & ~masks).sum()))
    return np.array(rows).reshape(-1, 2).T


@settings(deadline=None, max_examples=60)
@given(maps(), st.sampled_from([1, 2, 10, 51, 255]), st.booleans())
def test_a_curve_counts_the_pixels_above_each_threshold(scene, bins, inclusive):
    scores, masks = scene
    each = [score_histogram(p, m, bins, inclusive=inclusive) for p, m in zip(scores, masks, strict=True)]
    total = ScoreHistogram.total(each)
    tp, fp = by_counting(scores / 255, masks, np.arange(1, bins) / bins, inclusive)
    curve = total.curve()
    np.testing.assert_array_equal(curve.tp, tp)
    np.testing.assert_array_equal(curve.fp, fp)
    assert (curve.positives, curve.negatives) == (masks.sum(), (~masks).sum())


@settings(deadline=None, max_examples=40)
@given(maps(), st.randoms(use_true_random=False))
def test_histograms_add_up_in_any_order(scene, random):
    scores, masks = scene
    each = [score_histogram(p, m, 16) for p, m in zip(scores, masks, strict=True)]
    whole = score_histogram(scores.reshape(-1, 7), masks.reshape(-1, 7), 16)
    random.shuffle(each)
    assert ScoreHistogram.total(each) == whole
    assert whole.positive.dtype == np.int64


@settings(deadline=None, max_examples=40)
@given(maps())
def test_the_exact_area_is_the_chance_that_a_target_pixel_scores_higher(scene):
    scores, masks = scene
    histogram = ScoreHistogram.total(
        score_histogram(p, m, distinct_scores(scores)) for p, m in zip(scores, masks, strict=True)
    )
    positive, negative = scores[masks].astype(float), scores[~masks].astype(float)
    if not positive.size or not negative.size:
        assert math.isnan(histogram.auc())
        return
    wins = np.sign(positive[:, None] - negative[None, :]) / 2 + 0.5
    assert histogram.auc() == pytest.approx(wins.mean(), rel=1e-12)
    fpr, tpr = histogram.roc()
    assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
    assert (np.diff(fpr) >= 0).all() and (np.diff(tpr) >= 0).all()


def test_a_threshold_is_met_in_the_precision_of_the_map():
    scores, mask = np.full((1, 2), 0.1, np.float32), np.array([[True, False]])
    assert score_histogram(scores, mask, [0.1]).curve().tp.tolist() == [0]
    assert score_histogram(scores, mask, [0.1], inclusive=True).curve().tp.tolist() == [1]
    assert score_histogram(np.array([[51]], np.uint8), [[True]], [0.2]).curve().tp.tolist() == [0]


def test_logits_and_booleans():
    mask = np.array([[True, False]])
    logits = score_histogram(np.array([[40.0, 0.0]]), mask, [0.5], logits=True)
    assert logits == score_histogram(np.array([[True, False]]), mask, [0.5])
    assert logits.positive.tolist() == [0, 1] and logits.negative.tolist() == [1, 0]


def test_evaluate_keeps_the_histogram_of_each_image():
    random = np.random.default_rng(0)
    scores, masks = random.random((3, 16, 16)), random.random((3, 16, 16)) < 0.1
    spec = dataclasses.replace(protocol("irjax"), name="roc", metrics=("AUC",), curve=Curve.even(10))
    evaluation = evaluate_images(scores, masks, spec)["roc"]
    direct = ScoreHistogram.total(score_histogram(p, m, TENTHS) for p, m in zip(scores, masks, strict=True))
    assert evaluation.total.scores == direct
    assert evaluation.metrics()["AUC"] == evaluation.curve().auc == direct.auc()
    low, high = evaluation.intervals(samples=200)["AUC"]
    assert low < direct.auc() < high
    with pytest.raises(ValueError, match="'irjax' draws no ROC here: it has no `curve`"):
        evaluate_images(scores, masks)["irjax"].curve()


TENTHS = np.arange(11) / 10


def test_undefined_rates_are_nan():
    no_targets = score_histogram(np.array([[0.2, 0.7]]), np.array([[False, False]]), 4)
    assert np.isnan(no_targets.roc()[1]).all() and math.isnan(no_targets.auc())
    spec = dataclasses.replace(protocol("irjax"), name="roc", metrics=("AUC",), curve=Curve.even(4))
    assert math.isnan(evaluate([np.zeros((2, 2))], [np.zeros((2, 2))], spec)["roc"]["AUC"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: score_histogram(np.full((2, 2), np.nan), np.zeros((2, 2))), "finite"),
        (lambda: score_histogram(np.full((2, 2), 1.5), np.zeros((2, 2))), r"\[0, 1\], got 1.5"),
        (lambda: score_histogram(np.zeros((2, 3)), np.zeros((2, 2))), "prediction is 2x3, the truth 2x2"),
        (lambda: score_histogram(np.zeros((2, 2)), np.zeros((2, 2)), 0), "at least one bin, got 0"),
        (lambda: score_histogram(np.zeros((2, 2)), np.zeros((2, 2)), [0.5, 0.4]), "rise within"),
        (lambda: score_histogram(np.zeros((2, 2)), np.zeros((2, 2)), [0.5, math.nan]), "rise within"),
        (lambda: ScoreHistogram(np.array([1.0]), np.array([1])), "positive must be counts"),
        (lambda: ScoreHistogram(np.array([1, 2]), np.array([1])), "1 thresholds make 2 bins, got 2 positive and 1"),
        (lambda: ScoreHistogram.total([]), "no histograms"),
        (lambda: ScoreHistogram([1, 2], [1, 2]) + ScoreHistogram([1], [1]), "of 2 and 1 bins"),
        (lambda: Curve((0.5, 0.5)), "rise within"),
        (lambda: Curve.even(2, smoothing=-1), "at least 0"),
    ],
)
def test_what_makes_no_histogram(call, message):
    with pytest.raises(ValueError, match=message):
        call()
