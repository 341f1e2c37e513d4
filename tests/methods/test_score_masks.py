import numpy as np
import pytest

from irjax.data.pipeline import network_views
from irjax.methods.score_masks import score_masks
from irjax.types import Example

SIZES = ((40, 100), (64, 32), (24, 24))


def example(index):
    """Three images with one block each; the last has none."""
    mask = np.zeros(SIZES[index], bool)
    if index < 2:
        mask[10:18, 12:20] = True
    points = np.array([[15.5, 13.5]] * (index < 2), np.float32).reshape(-1, 2)
    return Example("abc"[index], np.full(SIZES[index], 9, np.uint8), points, mask)


def found(change=lambda index, maps: maps, *, side=128, **options):
    """The images with their true masks on canvases or windows, as probabilities."""
    for index in range(3):
        views = network_views(example(index), side, 4, with_mask=True, **options)
        yield example(index), change(index, np.stack([view["mask"] for view in views]).astype(np.float32))


def test_perfect_masks_score_at_the_images_own_sizes():
    # Where images fit, the canvas has their pixels.
    values = score_masks(found(enlarge=False), enlarge=False)
    assert values["miou"] == 1 and values["niou"] == 1 and values["pd"] == 1 and values["fa"] == 0
    assert (values["tp"], values["fp"], values["fn"]) == (2, 0, 0)
    none = score_masks(found(lambda index, maps: 0 * maps, enlarge=False), enlarge=False)
    assert none["miou"] == 0 and none["pd"] == 0 and none["fn"] == 2


def test_enlarged_masks_come_back_to_their_pixels():
    values = score_masks(found())
    assert values["miou"] == 1 and (values["tp"], values["fp"], values["fn"]) == (2, 0, 0)


def test_false_pixels_are_counted_in_original_pixels():
    def change(index, maps):
        if index == 2:  # the image of 24x24 fills the canvas, 128 / 24 to the pixel
            maps[0, 40:80, 40:80] = 1.0
        return maps

    values = score_masks(found(change))
    pixels = sum(height * width for height, width in SIZES)
    assert values["fp"] == 1
    assert values["fa"] * pixels == pytest.approx((40 * 24 / 128) ** 2, rel=0.2)


def test_windows_are_joined_at_the_images_own_sizes():
    options = {"enlarge": False, "slide": True}
    assert [len(maps) for _, maps in found(side=32, **options)] == [8, 3, 1]
    values = score_masks(found(side=32, **options), **options)
    assert (values["miou"], values["tp"], values["fp"], values["fn"]) == (1, 2, 0, 0)


def test_the_threshold_divides_probabilities_as_they_are():
    # .5003 and .4998 are both .5 in float16.
    above = score_masks(found(lambda _, maps: np.where(maps > 0, 0.5001, 0.4999), enlarge=False), enlarge=False)
    assert above["miou"] == 1 and above["fp"] == 0


def test_an_image_without_a_mask_is_refused():
    bare = Example("bare", np.zeros((64, 64), np.uint8), np.zeros((0, 2), np.float32))
    with pytest.raises(ValueError, match="bare has no mask to score against"):
        score_masks([(bare, np.zeros((1, 64, 64), np.float32))])
