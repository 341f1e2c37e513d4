import chex
import jax
import numpy as np
import pytest
import scipy.ndimage
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from irjax.baselines import customary_threshold, decode_response, detect, tophat
from irjax.data.clutter import SceneConfig
from irjax.data.synthetic import synthesize
from irjax.types import Detections


@pytest.mark.parametrize("size", [3, 5, 9])
@pytest.mark.parametrize("shape", [(2, 17, 23), (1, 4, 40)])
def test_equals_scipy_up_to_the_border(size, shape):
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    response = tophat(images, size=size)
    chex.assert_shape(response, shape)
    chex.assert_type(response, np.float32)
    wanted = np.stack([scipy.ndimage.white_tophat(image, size=(size, size)) for image in images]) / 255.0
    np.testing.assert_allclose(response, wanted, atol=1e-6)


def test_input_types_agree():
    images = np.random.default_rng(1).integers(0, 256, (2, 20, 20), np.uint8)
    expected = tophat(images)
    np.testing.assert_allclose(tophat(images.astype(np.uint16) * 257), expected, atol=1e-6)
    np.testing.assert_allclose(tophat(images / np.float32(255)), expected, atol=1e-6)
    assert 0.0 <= float(expected.min()) and float(expected.max()) <= 1.0


def test_keeps_points_and_removes_steps_and_blocks():
    images = np.full((1, 40, 40), 50, np.uint8)
    images[0, 20:, :] = 150
    images[0, 5:12, 5:12] = 120
    images[0, 10, 30] = 90
    response = np.array(tophat(images))
    assert response[0, 10, 30] == pytest.approx(40 / 255)
    response[0, 10, 30] = 0
    assert response.max() == 0.0


def test_detects_in_pixels_with_one_trace():
    images = np.full((3, 32, 48), 30, np.uint8)
    spots = [(7, 9, 200), (40, 20, 120)]
    for x, y, value in spots:
        images[1, y, x] = value
    counted = jax.jit(chex.assert_max_traces(lambda x, t: detect("tophat", x, t, 6), n=1))
    for threshold in (0.2, 0.3):
        found = counted(images, threshold)
    assert isinstance(found, Detections)
    chex.assert_shape((found.points, found.scores, found.valid), [(3, 6, 2), (3, 6), (3, 6)])
    assert np.asarray(found.valid).sum(axis=1).tolist() == [0, 2, 0]
    np.testing.assert_array_equal(found.points[1, :2], [(7, 9), (40, 20)])
    np.testing.assert_allclose(found.scores[1, :2], [170 / 255, 90 / 255], rtol=1e-6)
    assert np.asarray(detect("tophat", images, 0.5).valid).sum() == 1
    assert np.asarray(detect("tophat", images, np.array([0.0, 0.5, 0.0], np.float32)).valid).sum() == 1


def test_customary_threshold_adapts_to_each_image():
    images = np.full((2, 32, 32), 30, np.uint8)
    images[0, 10, 10], images[0, 20, 20] = 40, 34
    images[1, 10, 10] = 230
    response = tophat(images)
    limit = np.asarray(customary_threshold(response))
    assert limit[0] == pytest.approx((np.mean(response[0]) + np.max(response[0])) / 2)
    found = detect("tophat", images)
    assert np.asarray(found.valid).sum(axis=1).tolist() == [1, 1]


def test_detect_by_name_with_options():
    images = np.random.default_rng(2).integers(0, 256, (2, 24, 30), np.uint8)
    wanted = decode_response(tophat(images, size=3), 0.1, max_detections=5)
    chex.assert_trees_all_close(detect("tophat", images, 0.1, 5, size=3), wanted)


def test_default_scenes_defeat_it_but_show_their_targets():
    """The difficulty the default scenes are tuned to: best F1 at 5 px is 0.51 on 400 scenes of this seed."""
    examples = [synthesize(SceneConfig(), 12345, index) for index in range(120)]
    found = detect("tophat", np.stack([example.image for example in examples]), 0.02, 64)
    points, scores, valid = (np.asarray(part) for part in (found.points, found.scores, found.valid))
    best = 0.0
    for threshold in np.linspace(0.04, 0.3, 14):
        matched = predicted = 0
        for i, example in enumerate(examples):
            kept = points[i][valid[i] & (scores[i] > threshold)]
            near = cdist(kept, example.points) <= 5.0
            matched += int(near[linear_sum_assignment(near, maximize=True)].sum())
            predicted += len(kept)
        best = max(best, 2 * matched / (predicted + sum(len(example.points) for example in examples)))
    assert 0.42 < best < 0.62


def test_refuses():
    with pytest.raises(ValueError, match=r"\[B, H, W\]"):
        tophat(np.zeros((8, 8), np.uint8))
    with pytest.raises(ValueError, match="int32"):
        tophat(np.zeros((1, 8, 8), np.int32))
    with pytest.raises(ValueError, match="odd"):
        tophat(np.zeros((1, 8, 8), np.uint8), size=4)
    with pytest.raises(ValueError, match="nosuch.*tophat"):
        detect("nosuch", np.zeros((1, 8, 8), np.uint8))
