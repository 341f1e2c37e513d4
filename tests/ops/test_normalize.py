"""Storage types to [0, 1], and the named normalisations."""

import jax.numpy as jnp
import numpy as np
import pytest

from irjax.ops.normalize import NORMALIZATIONS, normalize, to_unit


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535)])
def test_integers_are_scaled_by_their_range(dtype, top):
    unit = to_unit(np.array([0, 1, top], dtype))
    assert unit.dtype == jnp.float32
    np.testing.assert_allclose(unit, np.array([0, 1 / top, 1]), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, jnp.bfloat16])
def test_floats_stay(dtype):
    unit = to_unit(jnp.array([0, 0.5, 1], dtype))
    assert unit.dtype == jnp.float32
    np.testing.assert_array_equal(unit, [0, 0.5, 1])


@pytest.mark.parametrize("dtype", [np.int32, np.int8, bool])
def test_other_types_are_refused(dtype):
    with pytest.raises(ValueError, match=f"got {np.dtype(dtype)}"):
        to_unit(np.zeros(3, dtype))


def test_imagenet_with_three_channels():
    out = normalize(jnp.full((1, 2, 2), 0.5), "imagenet", 3)
    np.testing.assert_allclose(out[0, 0, 0], (0.5 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225], rtol=1e-5)


def test_one_channel_and_unit():
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 3, 4)), jnp.float32)
    np.testing.assert_array_equal(normalize(images, "unit", 1)[..., 0], images)
    np.testing.assert_array_equal(normalize(images, "unit", 3), np.repeat(images[..., None], 3, -1))
    np.testing.assert_allclose(normalize(images, "imagenet", 1)[..., 0], (images - 0.449) / 0.226, rtol=1e-5, atol=1e-6)
    assert {"imagenet", "unit"} <= set(NORMALIZATIONS)


@pytest.mark.parametrize(("name", "channels"), [("other", 1), ("unit", 2)])
def test_bad_arguments(name, channels):
    with pytest.raises(ValueError, match="other|channels"):
        normalize(jnp.zeros((1, 2, 2)), name, channels)
