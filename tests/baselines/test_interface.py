"""What all classical detectors have in common."""

import chex
import jax
import numpy as np
import pytest
import scipy.ndimage

from irjax.baselines import BASELINES, customary_threshold, detect
from irjax.types import Detections

EACH = pytest.mark.parametrize("name", sorted(BASELINES))


SIDE = 40  # one shape for most tests: compiling takes longer than running


def clutter(seed):
    """Smooth structure with noise, in 60..140, [1, SIDE, SIDE]."""
    rng = np.random.default_rng(seed)
    smooth = scipy.ndimage.gaussian_filter(rng.normal(size=(1, SIDE, SIDE)), (0, 5, 5))
    image = 100 + 30 * smooth / np.abs(smooth).max() + rng.normal(size=smooth.shape) * 2
    return np.clip(image, 60, 140).round().astype(np.uint8)


def scene(seed, x=20, y=26):
    """Clutter with one target."""
    rows, cols = np.indices((SIDE, SIDE))
    return (clutter(seed) + 90 * np.exp(-((cols - x) ** 2 + (rows - y) ** 2) / 2)).round().astype(np.uint8)


def test_names():
    assert set(BASELINES) == {"tophat", "lef", "aadcdd", "tllcm"}


@EACH
def test_responses_and_detections_have_one_form(name):
    image = np.random.default_rng(2).integers(0, 256, (1, SIDE, SIDE), np.uint8)
    response = BASELINES[name](image)
    chex.assert_shape(response, (1, SIDE, SIDE))
    chex.assert_type(response, np.float32)
    assert float(response.min()) >= 0
    found = detect(name, image, 0.1, 5)
    assert isinstance(found, Detections)
    chex.assert_shape((found.points, found.scores, found.valid), [(1, 5, 2), (1, 5), (1, 5)])


@EACH
def test_masks_are_above_one_half_where_the_response_is_above_the_threshold(name):
    response = BASELINES[name](scene(1))
    for threshold in (None, float(np.median(response)), 0.0):
        limit = customary_threshold(response) if threshold is None else threshold
        mask = np.asarray(detect(name, scene(1), threshold).masks)
        np.testing.assert_array_equal(mask > 0.5, np.asarray(response) > limit)
        assert 0 <= mask.min() and mask.max() <= 1
    order = np.argsort(np.asarray(response).ravel(), kind="stable")
    assert (np.diff(np.asarray(detect(name, scene(1)).masks).ravel()[order]) >= 0).all()


@EACH
def test_a_bright_small_target_is_the_maximum(name):
    for seed, x, y in ((0, 20, 26), (1, 30, 11), (2, 13, 24)):
        found = detect(name, scene(seed, x, y), None, 1)
        np.testing.assert_allclose(found.points[0], [(x, y)], atol=1)
        assert np.asarray(found.valid).all()


@EACH
def test_a_batch_equals_its_images(name):
    images = [scene(seed) for seed in range(3)]
    wanted = np.concatenate([BASELINES[name](image) for image in images])
    np.testing.assert_allclose(BASELINES[name](np.concatenate(images)), wanted, rtol=1e-5, atol=1e-7)


@EACH
def test_input_types_agree(name):
    image = scene(4)
    image[0, 30:, 10:] = 90  # rounding must not turn what is flat into structure
    wanted = BASELINES[name](image)
    for same in (image.astype(np.uint16) * 257, image / np.float32(255)):
        np.testing.assert_allclose(BASELINES[name](same), wanted, rtol=1e-3, atol=1e-6)


@EACH
def test_no_side_is_preferred(name):
    image = scene(5)
    wanted = np.asarray(BASELINES[name](image))
    tolerance = {"rtol": 1e-3, "atol": 1e-6}
    np.testing.assert_allclose(BASELINES[name](image[:, ::-1]), wanted[:, ::-1], **tolerance)
    np.testing.assert_allclose(BASELINES[name](image[:, :, ::-1]), wanted[:, :, ::-1], **tolerance)
    np.testing.assert_allclose(BASELINES[name](image.swapaxes(1, 2)), wanted.swapaxes(1, 2), **tolerance)


@EACH
def test_is_traced_once(name):
    chex.clear_trace_counter()  # it counts all lambdas of this line as one function
    counted = jax.jit(chex.assert_max_traces(lambda images: BASELINES[name](images), n=1))
    assert not np.array_equal(counted(scene(6)), counted(scene(7)))


@EACH
def test_ten_images_of_one_size_compile_one_program(name, compilations):
    scenes = [scene(seed)[:, :33] for seed in range(10)]
    assert compilations(lambda: [detect(name, image, 0.1 + 0.01 * i, 7) for i, image in enumerate(scenes)]) == 1


@EACH
def test_images_without_contrast_give_nothing(name):
    shape = (1, SIDE, SIDE)
    for image in (np.full(shape, 77, np.uint8), np.full(shape, 0.3, np.float32), np.zeros(shape, np.uint8)):
        assert not np.asarray(BASELINES[name](image)).any()
        assert not np.asarray(detect(name, image, None, 1).valid).any()


@EACH
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 5, 2)])
def test_images_smaller_than_the_windows_have_a_response(name, shape):
    response = np.asarray(BASELINES[name](np.random.default_rng(8).integers(0, 256, shape, np.uint8)))
    assert response.shape == shape
    assert np.isfinite(response).all()


@EACH
def test_refuses_images(name):
    with pytest.raises(ValueError, match=r"\[B, H, W\]"):
        BASELINES[name](np.zeros((8, 8), np.uint8))
    with pytest.raises(ValueError, match="int32"):
        BASELINES[name](np.zeros((1, 8, 8), np.int32))
