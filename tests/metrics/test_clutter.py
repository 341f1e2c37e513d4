import numpy as np
import pytest

from irjax.errors import UserError
from irjax.metrics.clutter import MARGIN, clutter, summary


def scene(seed=0):
    rng = np.random.default_rng(seed)
    image, mask = rng.normal(100, 4, (90, 120)), np.zeros((90, 120), bool)
    mask[30:33, 40:42] = mask[2:4, 116:119] = True
    return image + 50 * mask, mask


def test_an_image_is_no_better_than_itself_at_any_scale():
    image, mask = scene()
    for response in (image, image / 7 + 3):
        for row in clutter(image, response, mask):
            assert row.scr_gain == pytest.approx(1) and row.bsf == pytest.approx(1)
    assert [(row.x, row.y) for row in clutter(image, image, mask)] == [(117, 2.5), (40.5, 31)]


@pytest.mark.parametrize("margin", [1, 8, MARGIN, 200])
def test_the_formula(margin):
    image, mask = scene()
    response = np.maximum(image - 101, 0) ** 2
    near, far = clutter(image, response, mask, margin=margin)[1], np.zeros_like(mask)
    far[max(30 - margin, 0) : 33 + margin, max(40 - margin, 0) : 42 + margin] = True
    far &= ~mask
    expected, spreads = [], []
    for values in (image, response):
        values = (values - values.min()) / (values.max() - values.min())
        spreads.append(values[far].std())
        expected.append(abs(values[30:33, 40:42].mean() - values[far].mean()) / spreads[-1])
    assert (near.scr_in, near.scr_out) == pytest.approx(tuple(expected))
    assert near.scr_gain == pytest.approx(expected[1] / expected[0]) and near.bsf == pytest.approx(
        spreads[0] / spreads[1]
    )


def test_another_target_nearby_is_no_background():
    image, mask = scene()
    image[30:33, 46:48] += 5000
    both = mask.copy()
    both[30:33, 46:48] = True
    assert clutter(image, image, both)[1].scr_in > 2 * clutter(image, image, mask)[1].scr_in


def test_flat_backgrounds_are_infinite_and_flat_images_undefined():
    image, mask = scene()
    for row in clutter(image, np.where(mask, 0.7, 0.1), mask):
        assert row.scr_gain == row.bsf == float("inf")
    for row in clutter(image, np.zeros_like(image), mask):
        assert np.isnan(row.scr_gain) and row.bsf == float("inf")
    for row in clutter(np.where(mask, 9, 3), image, mask):  # a flat background already: nothing to gain
        assert np.isnan(row.scr_gain) and row.bsf == 0
    assert clutter(image, image, mask & False) == []
    (row,) = clutter(image, image, mask | True)  # no background at all
    assert np.isnan(row.scr_gain) and np.isnan(row.bsf)
    with pytest.raises(UserError, match="at least 1 pixel, got 0"):
        clutter(image, image, mask, margin=0)
    with pytest.raises(UserError, match="90x119"):
        clutter(image, image[:, 1:], mask)


def test_summaries():
    found = summary([1.0, 3.0, float("inf"), float("nan"), 2.0])
    assert found == {"median": 2.0, "mean": 2.0, "infinite": 1, "undefined": 1}
    assert summary([float("inf")] * 3)["median"] == float("inf") and np.isnan(summary([])["median"])
