import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from irjax.targets.patch_relevance import centred_relevance, relevance


def reference(mask, decay, patch):
    """The definition with scipy."""
    labels, number = ndimage.label(mask, np.ones((3, 3)))
    if not number:
        return np.zeros((mask.shape[0] // patch, mask.shape[1] // patch))
    centres = ndimage.center_of_mass(mask, labels, range(1, number + 1))
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]]
    distance = np.min([np.hypot(y - cy, x - cx) for cy, cx in centres], axis=0)
    weight = np.exp(-decay * distance)
    return weight.reshape(mask.shape[0] // patch, patch, -1, patch).mean(axis=(1, 3))


def one_pixel(x, y, size=96):
    """A target of 1 pixel, or of 2x2 where the centre lies between pixels."""
    mask = np.zeros((1, size, size), bool)
    mask[0, int(np.floor(y)) : int(np.ceil(y)) + 1, int(np.floor(x)) : int(np.ceil(x)) + 1] = True
    return mask


@pytest.mark.parametrize(
    ("where", "decay", "wanted"),
    [
        ((47.5, 47.5), 0.1, {(1, 1): 0.327, (1, 2): 0.051, (0, 1): 0.051}),
        ((63, 47.5), 0.1, {(1, 1): 0.213, (1, 2): 0.199}),
        ((63, 63), 0.1, {(1, 1): 0.142, (1, 2): 0.133, (2, 1): 0.133, (2, 2): 0.125}),
        ((63, 63), 0.2, {(1, 1): 0.043}),
        ((47.5, 47.5), 0.05, {(1, 2): 0.208}),
    ],
)
def test_values_of_one_target(where, decay, wanted):
    mask = jnp.asarray(one_pixel(*where))
    raw = relevance(mask, decay=decay, scaled=False)[0]
    for place, value in wanted.items():
        assert float(raw[place]) == pytest.approx(value, abs=6e-4), place
    assert int(jnp.argmax(raw)) == 4  # the patch that has the target ranks first
    whole = relevance(mask, decay=decay)[0]
    np.testing.assert_allclose(whole, np.minimum(raw / centred_relevance(32, decay), 1), rtol=1e-5)


def test_a_centred_target_has_relevance_one():
    assert centred_relevance() == pytest.approx(0.327, abs=5e-4)
    value = relevance(jnp.asarray(one_pixel(47.5, 47.5)))[0]
    assert float(value[1, 1]) == pytest.approx(1, abs=1e-5) and float(value.max()) <= 1
    two = one_pixel(40, 47) | one_pixel(55, 47)
    assert float(relevance(jnp.asarray(two), scaled=False)[0, 1, 1]) > centred_relevance()
    assert float(relevance(jnp.asarray(two))[0, 1, 1]) == 1  # clipped


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(0, 12))
def test_equals_scipy(seed, pixels):
    rng = np.random.default_rng(seed)
    masks = np.zeros((2, 32, 48), bool)
    masks[0].reshape(-1)[rng.integers(0, masks[0].size, pixels)] = True
    masks[1] = ndimage.binary_dilation(masks[0], iterations=2)
    got = relevance(jnp.asarray(masks), patch=16, scaled=False)
    np.testing.assert_allclose(got, [reference(mask, 0.1, 16) for mask in masks], rtol=2e-5, atol=1e-7)
    hard = relevance(jnp.asarray(masks), patch=16, form="hard")
    np.testing.assert_array_equal(hard, masks.reshape(2, 2, 16, 3, 16).any(axis=(2, 4)))


def test_no_targets_and_too_many():
    assert not np.asarray(relevance(jnp.zeros((2, 64, 64), bool))).any()
    assert np.isfinite(relevance(jnp.ones((1, 64, 64), bool))).all()
    several = jnp.asarray(one_pixel(10, 10) | one_pixel(80, 80))
    assert float(relevance(several, max_targets=1).max(axis=(1, 2))[0]) > 0.5
    both = np.asarray(relevance(several))[0]
    assert both[0, 0] > 0.5 and both[2, 2] > 0.5


def test_jit_and_vmap_with_one_trace():
    chex.clear_trace_counter()
    run = jax.jit(chex.assert_max_traces(lambda mask: relevance(mask), n=1))
    masks = np.concatenate([one_pixel(20, 30), one_pixel(70, 5) | one_pixel(90, 90)])
    first = run(jnp.asarray(masks))
    chex.assert_shape(first, (2, 3, 3))
    np.testing.assert_allclose(run(jnp.asarray(masks[::-1])), first[::-1])
    each = jax.vmap(lambda mask: relevance(mask[None])[0])(jnp.asarray(masks))
    np.testing.assert_allclose(each, first, rtol=1e-6)


@pytest.mark.parametrize(
    ("shape", "options", "said"),
    [
        ((1, 64, 64), {"form": "round"}, "must be one of"),
        ((64, 64), {}, r"must be \[B, H, W\]"),
        ((1, 64, 65), {}, "patches of 32x32 do not divide a map of 64x65"),
        ((1, 64, 64), {"decay": 0.0}, "must be positive"),
        ((1, 64, 64), {"max_targets": 0}, "must be positive"),
    ],
)
def test_bad_arguments(shape, options, said):
    with pytest.raises(ValueError, match=said):
        relevance(jnp.zeros(shape, bool), **options)
