import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from irjax.metrics import Counts, ScoreHistogram, evaluate_images
from irjax.metrics.pixels import (
    PixelCounts,
    ScoreCounts,
    as_histogram,
    device_pixel_counts,
    device_score_counts,
    pixel_counts,
    pixel_rows,
    score_counts,
)


def batch(number=5, seed=0):
    """Scores on a grid of 1/8, which float32 holds, so that some lie exactly at thresholds; the last image is empty."""
    random = np.random.default_rng(seed)
    scores = (random.integers(0, 9, (number, 12, 10)) / 8).astype(np.float32)
    masks = random.random((number, 12, 10)) < 0.2
    scores[-1], masks[-1] = 0, False
    return scores, masks


def test_the_device_counts_what_the_protocols_count():
    scores, masks = batch()
    step = jax.jit(chex.assert_max_traces(device_pixel_counts, n=1))
    for part in (slice(0, 5), slice(0, 5)):
        counts = step(scores[part], masks[part])
    assert all(part.dtype == jnp.int32 and part.shape == (5,) for part in counts)
    rows = pixel_rows(jax.device_get(counts), pixels=120)
    assert rows == pixel_rows(pixel_counts(scores, masks), pixels=120)
    fields = ("images", "pixels", "pixel_tp", "pixel_fp", "pixel_fn", "pixel_labelled", "iou_sum", "both_empty")
    for row, whole in zip(rows, evaluate_images(scores, masks)["irjax"].rows, strict=True):
        assert [getattr(row, name) for name in fields] == [getattr(whole, name) for name in fields]


def test_logits_are_compared_as_logits():
    scores, masks = batch()
    logits = scipy.special.logit(np.clip(scores, 1e-6, 1 - 1e-6))
    for threshold in (0.5, 0.3):
        got = jax.device_get(device_pixel_counts(logits, masks, threshold, logits=True))
        for own, numpy in zip(got, pixel_counts(logits, masks, threshold, logits=True), strict=True):
            np.testing.assert_array_equal(own, numpy)
    # A logit of 0 is p = 0.5, which is background.
    assert int(device_pixel_counts(jnp.zeros((1, 2, 2)), jnp.ones((1, 2, 2)), logits=True).tp[0]) == 0


@pytest.mark.parametrize("bins", [1, (0.125, 0.5, 0.8)])
def test_batches_of_any_size_add_up_to_the_same_histogram(bins):
    scores, masks = batch(7)
    totals = []
    for size in (7, 3):
        step = jax.jit(lambda s, m: device_score_counts(s, m, bins))
        parts = [slice(start, start + size) for start in range(0, 7, size)]
        totals.append(ScoreHistogram.total(as_histogram(step(scores[p], masks[p]), bins) for p in parts))
    numpy = as_histogram(score_counts(scores, masks, bins), bins)
    assert totals == [numpy] * 2 and numpy.positive.sum() == masks.sum()


def test_padding_does_not_count():
    scores, masks = batch(4)
    rows = jnp.array([True, True, False, True])
    pixels = jnp.zeros(scores.shape, bool).at[:, :5].set(True)
    kept = as_histogram(device_score_counts(scores, masks, 8, valid=rows), 8)
    assert kept == as_histogram(score_counts(scores[rows], masks[rows], 8), 8)
    kept = as_histogram(device_score_counts(scores, masks, 8, valid=pixels), 8)
    assert kept == as_histogram(score_counts(scores[:, :5], masks[:, :5], 8), 8)


def test_sums_over_batches_are_exact_beyond_int32():
    row = pixel_rows(PixelCounts(np.array([2**31 - 1], np.int32), np.array([0]), np.array([0])), pixels=2**31)[0]
    assert Counts.total([row] * 8).pixel_tp == 8 * (2**31 - 1)
    most = np.array([2**31 - 1], np.int32)
    half = as_histogram(ScoreCounts(most, most), 1)
    assert ScoreHistogram.total([half] * 8).positive.tolist() == [8 * (2**31 - 1)]


@pytest.mark.parametrize("count", [device_pixel_counts, device_score_counts, pixel_counts, score_counts])
def test_shapes_are_checked(count):
    with pytest.raises(ValueError, match=r"\(1, 2, 2\) and \(1, 2, 3\)"):
        count(np.zeros((1, 2, 2)), np.zeros((1, 2, 3)))
    with pytest.raises(ValueError, match="B, H, W"):
        count(np.zeros((2, 2)), np.zeros((2, 2)))


def test_thresholds_and_batches_are_checked():
    with pytest.raises(ValueError, match="probability"):
        device_pixel_counts(jnp.zeros((1, 2, 2)), jnp.zeros((1, 2, 2)), 1.5)
    huge = jax.ShapeDtypeStruct((1 << 11, 1 << 10, 1 << 10), jnp.float32)
    with pytest.raises(ValueError, match="too large for int32"):
        jax.eval_shape(device_score_counts, huge, huge)
