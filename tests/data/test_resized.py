import pickle

import numpy as np
import pytest

from irjax.data.clutter import SceneConfig
from irjax.data.hard import HardSource
from irjax.data.resized import ResizedSource
from irjax.data.sources import Concatenation, check_disjoint, open_source
from irjax.data.synthetic import SyntheticSource
from irjax.ops.regions import points_from_mask
from irjax.ops.resize import resize_mask
from irjax.types import Example, Source


class Points:
    names = ("a",)
    dtype = np.dtype(np.uint16)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        image = np.zeros((40, 80), np.uint16)
        image[20:22, 60:62] = 4000
        return Example("a", image, np.array([[60.5, 20.5]], np.float32))


def test_images_masks_and_points_of_one_size():
    scenes = SyntheticSource(SceneConfig(height=48, width=96, targets=(2, 4)), 1, 3)
    source = ResizedSource(scenes, 32)
    assert isinstance(source, Source) and source.names == scenes.names and source.dtype == np.uint8 and len(source) == 3
    for index in range(3):
        example, mask = source[index], resize_mask(scenes[index].mask, 32)
        assert example.image.shape == (32, 32) and example.image.dtype == np.uint8
        np.testing.assert_array_equal(example.mask, mask)
        np.testing.assert_array_equal(example.points, points_from_mask(mask))
        np.testing.assert_allclose(example.image.mean(), scenes[index].image.mean(), atol=1)
    unchanged = ResizedSource(SyntheticSource(SceneConfig(height=48, width=48), 1, 1), 48)[0]
    np.testing.assert_array_equal(unchanged.image, SyntheticSource(SceneConfig(height=48, width=48), 1, 1)[0].image)
    with pytest.raises(IndexError):
        source[3]


def test_points_without_masks_move_with_their_pixels():
    example = ResizedSource(Points(), 20)[0]
    assert example.mask is None and example.image.dtype == np.uint16
    np.testing.assert_allclose(example.points, [[61 / 4 - 0.5, 21 / 2 - 0.5]])
    rows, columns = np.mgrid[:20, :20]
    weights = example.image / example.image.sum()
    np.testing.assert_allclose([(weights * columns).sum(), (weights * rows).sum()], example.points[0], atol=0.3)


def test_the_rule_of_irstd_hard_resizes_alike(shared):
    source = open_source(shared / "data" / "SIRST-v2", "val_v1")
    hard, whole = HardSource(source, "v1_"), ResizedSource(source)
    assert 0 < len(hard) < len(source)
    one = hard[0]
    other = whole[source.names.index(one.name.removeprefix("v1_"))]
    np.testing.assert_array_equal(one.image, other.image)
    np.testing.assert_array_equal(one.mask, other.mask)
    np.testing.assert_array_equal(one.points, other.points)
    # Where an example lies is known through it: data sets may number their images alike.
    train = open_source(shared / "data" / "SIRST-v2", "trainval_v1")
    with pytest.raises(ValueError, match="share 61 examples"):
        check_disjoint(Concatenation((ResizedSource(train),)), Concatenation((pickle.loads(pickle.dumps(whole)),)))
