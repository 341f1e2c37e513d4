"""Windows as examples."""

import pickle

import numpy as np
import pytest

from irjax.data.sources import Concatenation
from irjax.data.windows import WindowSource, as_windows
from irjax.types import Example


class Images:
    """A large image with two targets, one of them where windows overlap, and a small one with one target."""

    names = ("large", "small")
    dtype = np.dtype(np.uint8)

    def __len__(self):
        return 2

    def __getitem__(self, index):
        height, width = ((40, 90), (20, 30))[index]
        points = np.array([[5, 6], [27, 35]] if index == 0 else [[10, 12]], np.float32)
        mask = np.zeros((height, width), bool)
        image = np.random.default_rng(index).integers(1, 255, (height, width), np.uint8)
        for x, y in points.astype(int):
            mask[y - 1 : y + 2, x - 1 : x + 2] = True
        return Example(self.names[index], image, points, mask)


def test_windows_hold_pixels_targets_and_masks_of_their_place():
    source = WindowSource(Images(), 32, 8)
    assert len(source) == 9 and source.dtype == np.uint8
    assert source.names[:2] == ("large@0,0", "large@19,0") and source.names[-1] == "small@-1,-6"
    for index in range(len(source)):
        example = source[index]
        name, corner = example.name.split("@")
        x, y = map(int, corner.split(","))
        whole = Images()[Images.names.index(name)]
        rows, cols = np.mgrid[y : y + 32, x : x + 32]
        rows, cols = (
            np.where(i < 0, -1 - i, np.where(i >= n, 2 * n - 1 - i, i))  # mirrored beyond the image
            for i, n in zip((rows, cols), whole.image.shape, strict=True)
        )
        np.testing.assert_array_equal(example.image, whole.image[rows, cols])
        np.testing.assert_array_equal(example.mask, whole.mask[rows, cols])
        wanted = [p - (x, y) for p in whole.points if x <= p[0] < x + 32 and y <= p[1] < y + 32]
        np.testing.assert_array_equal(example.points, np.reshape(wanted, (-1, 2)))
    assert sum(len(source[index].points) for index in range(8)) > 2  # a target of an overlap is in several


def test_parts_of_a_concatenation_stay_apart_and_pickle():
    both = as_windows(Concatenation((Images(), Images())), 32, 8)
    assert [len(part) for part in both.sources] == [9, 9]
    again = pickle.loads(pickle.dumps(as_windows(Images(), 32, 8)))
    np.testing.assert_array_equal(again[3].image, both[12].image)
    with pytest.raises(IndexError):
        again[9]
