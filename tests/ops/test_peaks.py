"""Decoding heatmaps: plateaus, borders, limits, gradients, and a slow numpy reference."""

import chex
import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irjax.ops.peaks import decode_heatmap


def reference(heatmap, threshold, limit, stride, relative):
    """List of (x, y, score), one cell at a time."""
    height, width = heatmap.shape
    neighbours = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if i or j]
    inside = {(r, c) for r in range(height) for c in range(width)}
    peaks = {
        cell
        for cell in inside
        if heatmap[cell] > threshold
        and all(
            heatmap[cell[0] + i, cell[1] + j] <= heatmap[cell]
            for i, j in neighbours
            if (cell[0] + i, cell[1] + j) in inside
        )
    }
    kept, seen = [], set()
    for cell in sorted(peaks):  # raster order, so the first of each plateau comes first
        if cell in seen:
            continue
        kept.append(cell)
        stack = [cell]
        while stack:
            r, c = stack.pop()
            if (r, c) in peaks and (r, c) not in seen:
                seen.add((r, c))
                stack += [(r + i, c + j) for i, j in neighbours]
    kept = sorted(kept, key=lambda cell: -heatmap[cell])[:limit]  # stable: ties in raster order
    found = []
    for r, c in kept:
        if relative is not None and heatmap[r, c] < np.float32(1 - relative) * heatmap[kept[0]]:
            continue
        x, y = float(c), float(r)
        if 1 < c < width - 1 and 1 < r < height - 1:
            x += np.sign(heatmap[r, c + 1] - heatmap[r, c - 1]) / stride
            y += np.sign(heatmap[r + 1, c] - heatmap[r - 1, c]) / stride
        found.append((stride * x, stride * y, heatmap[r, c]))
    return found


@st.composite
def heatmaps(draw):
    """Few levels, so that plateaus of every shape are common."""
    levels = draw(hnp.arrays(np.int32, (7, 9), elements=st.integers(0, draw(st.integers(1, 6)))))
    return levels.astype(np.float32) / 4


decode = jax.jit(decode_heatmap, static_argnames=("max_detections", "stride", "relative_threshold", "refine"))


@given(heatmaps(), st.sampled_from([0.1, 0.35, 0.5]), st.sampled_from([1, 4, 32]), st.sampled_from([None, 0.4]))
@settings(max_examples=150, deadline=None)
def test_equals_the_slow_reference(heatmap, threshold, limit, relative):
    found = decode(heatmap, threshold=threshold, max_detections=limit, relative_threshold=relative)
    wanted = np.array(reference(heatmap, threshold, limit, 4, relative), np.float32).reshape(-1, 3)
    count = len(wanted)
    chex.assert_shape([found.points, found.scores, found.valid], [(limit, 2), (limit,), (limit,)])
    np.testing.assert_array_equal(found.valid, np.arange(limit) < count)
    np.testing.assert_allclose(found.points[:count], wanted[:, :2])
    np.testing.assert_allclose(found.scores[:count], wanted[:, 2])
    assert not np.any(found.points[count:]) and not np.any(found.scores[count:])


@given(heatmaps())
@settings(max_examples=50, deadline=None)
def test_padding_of_minus_infinity_changes_nothing(heatmap):
    padded = np.pad(heatmap, ((0, 3), (0, 2)), constant_values=-np.inf)
    chex.assert_trees_all_equal(decode(padded), decode(heatmap))


@pytest.mark.parametrize(
    "shape",
    [
        ["11"],
        ["1.", ".1"],
        [".1", "1."],
        ["1.1", "1.1", "111"],  # U: its arms meet below the raster-first cell
        ["111", "1.1", "111"],
        ["1...1", "1.1.1", "11111"],
        ["....1", "...1.", "1.1..", ".1..."],
    ],
)
def test_a_plateau_gives_one_point(shape):
    cells = np.array([[c == "1" for c in row] for row in shape], np.float32)
    heatmap = np.zeros((12, 12), np.float32)
    heatmap[4 : 4 + cells.shape[0], 4 : 4 + cells.shape[1]] = 0.9 * cells
    found = decode(heatmap, refine=False)
    assert int(found.valid.sum()) == 1
    row, col = np.argwhere(heatmap)[0]
    np.testing.assert_array_equal(found.points[0], [4 * col, 4 * row])


def test_two_plateaus_of_one_value_give_two_points():
    heatmap = np.zeros((12, 12), np.float32)
    heatmap[3, 3:5] = heatmap[8, 8:10] = 0.7
    assert int(decode(heatmap).valid.sum()) == 2


def test_flat_maps():
    assert int(decode(np.ones((8, 8), np.float32)).valid.sum()) == 1
    assert not decode(np.zeros((8, 8), np.float32)).valid.any()


@pytest.mark.parametrize("cell", [(0, 0), (0, 5), (7, 7), (1, 4), (4, 1), (7, 3)])
def test_no_refinement_at_the_border(cell):
    heatmap = np.random.default_rng(0).uniform(0, 0.1, (8, 8)).astype(np.float32)
    heatmap[cell] = 1.0
    np.testing.assert_array_equal(decode(heatmap).points[0], [4 * cell[1], 4 * cell[0]])


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_refinement_is_one_over_stride_of_a_cell(stride):
    heatmap = np.zeros((8, 8), np.float32)
    heatmap[4, 3], heatmap[4, 4], heatmap[3, 3] = 1.0, 0.5, 0.2  # higher to the right, higher above
    found = decode(heatmap, stride=stride)
    np.testing.assert_allclose(found.points[0], [3 * stride + 1, 4 * stride - 1])
    np.testing.assert_allclose(decode(heatmap, stride=stride, refine=False).points[0], [3 * stride, 4 * stride])


def test_the_highest_come_first_and_the_rest_is_cut():
    heatmap = np.zeros((40, 40), np.float32)
    heatmap[2::4, 2::4] = np.random.default_rng(0).uniform(0.4, 1, (10, 10))
    found = decode(heatmap, max_detections=8)
    np.testing.assert_array_equal(found.scores, np.sort(heatmap[heatmap > 0])[::-1][:8])


def test_threshold_is_exclusive_and_may_be_traced():
    heatmap = np.zeros((8, 8), np.float32)
    heatmap[4, 4] = 0.5
    chex.clear_trace_counter()
    run = jax.jit(chex.assert_max_traces(lambda t: decode_heatmap(heatmap, threshold=t).valid.sum(), n=1))
    assert [int(run(t)) for t in (0.25, 0.5, 0.75)] == [1, 0, 0]


def test_relative_threshold_compares_with_the_highest():
    heatmap = np.zeros((8, 24), np.float32)
    heatmap[4, 4], heatmap[4, 10], heatmap[4, 16] = 1.0, 0.66, 0.64
    assert int(decode(heatmap).valid.sum()) == 3
    assert int(decode(heatmap, relative_threshold=0.35).valid.sum()) == 2


def test_scores_have_gradients_and_points_none():
    heatmap = jnp.asarray(np.random.default_rng(0).uniform(0, 1, (2, 8, 8)), jnp.float32)
    found = decode(heatmap, max_detections=3, refine=False)
    grad = jax.jit(jax.grad(lambda h: decode_heatmap(h, max_detections=3, refine=False).scores.sum()))(heatmap)
    wanted = np.zeros((2, 8, 8))
    for b in range(2):
        for (x, y), valid in zip(found.points[b], found.valid[b], strict=True):
            wanted[b, int(y) // 4, int(x) // 4] += float(valid)
    np.testing.assert_array_equal(grad, wanted)
    assert not np.any(jax.jit(jax.grad(lambda h: decode_heatmap(h, max_detections=3).points.sum()))(heatmap))


def test_batch_axis_and_vmap():
    heatmap = np.random.default_rng(0).uniform(0, 1, (3, 8, 8)).astype(np.float32)
    together = decode(heatmap, max_detections=5)
    mapped = jax.jit(jax.vmap(lambda h: decode_heatmap(h, max_detections=5)))(heatmap)
    chex.assert_trees_all_equal(together, mapped)
    chex.assert_trees_all_equal(jax.tree.map(lambda x: x[1], together), decode(heatmap[1], max_detections=5))


@pytest.mark.parametrize(("shape", "limit"), [((8,), 1), ((1, 1, 8, 8), 1), ((8, 8), 0), ((8, 8), 65)])
def test_bad_arguments(shape, limit):
    with pytest.raises(ValueError, match="heatmap"):
        decode_heatmap(np.zeros(shape, np.float32), max_detections=limit)


def test_a_call_outside_of_jit_is_compiled_once(compilations):
    maps = np.random.default_rng(0).random((10, 1, 21, 22), np.float32)
    assert compilations(lambda: [decode_heatmap(one, threshold=0.5) for one in maps]) == 1
