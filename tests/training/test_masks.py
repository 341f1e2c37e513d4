import numpy as np
import pytest

from irjax.ops.letterbox import letterbox_host
from irjax.training.data import Split, load_split
from irjax.training.masks import NativeMaps, score_masks
from irjax.types import Example

SIZES = ((40, 100), (64, 32), (24, 24))


class Masks:
    """Three images with one block each; the last has none."""

    names = ("a", "b", "c")
    dtype = np.dtype(np.uint8)

    def __len__(self):
        return 3

    def __getitem__(self, index):
        mask = np.zeros(SIZES[index], bool)
        if index < 2:
            mask[10:18, 12:20] = True
        points = np.array([[15.5, 13.5]] * (index < 2), np.float32).reshape(-1, 2)
        return Example(self.names[index], np.full(SIZES[index], 9, np.uint8), points, mask)


def canvases(side=128):
    return np.stack([letterbox_host(Masks()[i].mask.astype(np.float32), side) for i in range(3)])


def test_a_split_keeps_masks_in_original_pixels_only_where_they_are_needed():
    split = load_split(Masks(), 64, 4, with_masks=True)
    assert split.sizes == SIZES and split.data.segmentation.shape == (3, 64, 64)
    for index, mask in enumerate(split.masks):
        np.testing.assert_array_equal(mask, Masks()[index].mask)
    assert load_split(Masks(), 64, 4).masks is None


def test_perfect_masks_score_at_the_images_own_sizes():
    split = load_split(Masks(), 128, 4, with_masks=True)
    values = score_masks(canvases(), split)
    assert values["miou"] == 1 and values["niou"] == 1 and values["pd"] == 1 and values["fa"] == 0
    assert (values["tp"], values["fp"], values["fn"]) == (2, 0, 0)
    none = score_masks(np.zeros((3, 128, 128), np.float16), split)
    assert none["miou"] == 0 and none["pd"] == 0 and none["fn"] == 2


def test_false_pixels_are_counted_in_original_pixels():
    split = load_split(Masks(), 128, 4, with_masks=True)
    maps = canvases()
    maps[2, 40:80, 40:80] = 1.0  # the image of 24x24 fills the canvas, 128 / 24 to the pixel
    values = score_masks(maps, split, threshold=0.5)
    pixels = sum(height * width for height, width in SIZES)
    assert values["fp"] == 1
    assert values["fa"] * pixels == pytest.approx((40 * 24 / 128) ** 2, rel=0.2)


def test_maps_come_back_at_their_sizes_within_0_and_1():
    rng = np.random.default_rng(0)
    split = load_split(Masks(), 128, 4, with_masks=True)
    maps = NativeMaps(rng.uniform(size=(3, 128, 128)).astype(np.float16), split)
    assert [m.shape for m in maps] == list(SIZES)
    assert all(m.min() >= 0 and m.max() <= 1 for m in maps)


def test_windows_are_joined_at_the_images_own_sizes():
    split = load_split(Masks(), 32, 4, with_masks=True, enlarge=False, slide=True)
    assert split.windows == (8, 3, 1) and split.data.images.shape == (12, 32, 32)
    assert split.names == Masks.names and split.sizes == SIZES
    values = score_masks(split.data.segmentation.astype(np.float16), split)
    assert (values["miou"], values["tp"], values["fp"], values["fn"]) == (1, 2, 0, 0)


def test_images_that_fit_keep_their_resolution_without_enlarging():
    split = load_split(Masks(), 128, 4, with_masks=True, enlarge=False)
    assert split.data.segmentation.sum(axis=(1, 2)).tolist() == [64, 64, 0]
    assert score_masks(split.data.segmentation.astype(np.float16), split)["miou"] == 1


def test_a_split_without_masks_is_refused():
    split = load_split(Masks(), 64, 4)
    assert isinstance(split, Split)
    with pytest.raises(ValueError, match="loaded with masks"):
        score_masks(np.zeros((3, 64, 64)), split)
