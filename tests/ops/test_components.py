import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from irjax.ops.components import decode_mask, label_components
from irjax.ops.regions import find_regions

MAPS = arrays.arrays(np.float32, (2, 9, 11), elements=st.sampled_from(np.float32([0.0, 0.1, 0.5, 0.6, 0.75, 0.9, 1.0])))
decode = jax.jit(decode_mask, static_argnames="max_detections")


@settings(max_examples=60, deadline=None)
@given(MAPS)
def test_regions_are_those_of_the_host(maps):
    labels = np.asarray(jax.jit(label_components)(maps > 0.5))
    found = decode(maps, threshold=0.5, max_detections=25)
    for index, probabilities in enumerate(maps):
        regions = find_regions(probabilities > 0.5)
        pairs = {(a, b) for a, b in zip(labels[index].ravel(), regions.labels.ravel(), strict=True)}
        # One number here for each number there, and 0 for 0.
        assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
        assert (labels[index] > 0).tolist() == (regions.labels > 0).tolist()
        assert int(found.valid[index].sum()) == len(regions)
        peaks = np.array([probabilities[regions.labels == k + 1].max() for k in range(len(regions))])
        ours = sorted(zip(*np.asarray(found.points[index]).T, found.scores[index], strict=True))
        theirs = sorted([*zip(*regions.centroids.T, peaks, strict=True), *[(0, 0, 0)] * (25 - len(regions))])
        np.testing.assert_allclose(np.array(ours, float), np.array(theirs, float).reshape(-1, 3), atol=1e-5)
        assert (np.diff(found.scores[index]) <= 0).all()


def test_a_snake_is_one_region():
    mask = np.zeros((1, 15, 15), bool)
    mask[0, ::2] = True
    mask[0, 1::4, -1] = mask[0, 3::4, 0] = True
    labels = np.asarray(label_components(mask))
    assert len(np.unique(labels)) == 2
    assert labels.max() == 15 * 15


def test_the_strongest_regions_are_kept():
    maps = np.zeros((1, 16, 16), np.float32)
    for k, (x, y) in enumerate([(2, 2), (7, 3), (12, 9), (4, 13)]):
        maps[0, y, x] = 0.6 + 0.1 * k
    found = decode(maps, threshold=0.5, max_detections=2)
    np.testing.assert_array_equal(found.points[0], [[4, 13], [12, 9]])
    np.testing.assert_allclose(found.scores[0], [0.9, 0.8])
    assert not decode(maps, threshold=0.95, max_detections=2).valid.any()


def test_scores_are_differentiable_and_one_trace_serves_all_thresholds():
    maps = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 12, 12)), jnp.float32)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def gradient(maps, threshold):
        return jax.grad(lambda m: decode_mask(m, threshold=threshold, max_detections=3).scores.sum())(maps)

    for threshold in (0.7, 0.9):
        grads = gradient(maps, threshold)
        valid = decode(maps, threshold=threshold, max_detections=3).valid
        # Each score is one pixel's probability.
        assert float(grads.sum()) == int(valid.sum()) and set(np.unique(grads)) <= {0.0, 1.0}


def test_bad_input():
    with pytest.raises(ValueError, match=r"\[B, H, W\], got shape \(4, 4\)"):
        decode_mask(jnp.zeros((4, 4)), threshold=0.5, max_detections=1)
    with pytest.raises(ValueError, match=r"1\.\.16, got 17"):
        decode_mask(jnp.zeros((1, 4, 4)), threshold=0.5, max_detections=17)


def test_a_call_outside_of_jit_is_compiled_once(compilations):
    maps = np.random.default_rng(0).random((10, 1, 21, 22), np.float32)
    assert compilations(lambda: [decode_mask(one, threshold=0.9, max_detections=3) for one in maps]) == 1
    assert compilations(lambda: [label_components(one > 0.9) for one in maps]) == 1
