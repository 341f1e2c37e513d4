import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from irjax.labels import Labels, box_centres, coarse_points, label_mask, name_rng, point_mask
from irjax.ops.boxes import checked_boxes

MASKS = hnp.arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14)))
QUICK = hypothesis.settings(max_examples=60, deadline=None)


def test_a_mask_becomes_points_boxes_and_areas():
    mask = np.zeros((10, 12), bool)
    mask[2:4, 5:8] = True
    mask[4, 8] = True  # touches by a corner
    found = label_mask(mask)
    assert found.points.dtype == np.float32
    np.testing.assert_allclose(found.points, [[(2 * 18 + 8) / 7, (3 * 2 + 3 * 3 + 4) / 7]], rtol=1e-6)
    np.testing.assert_array_equal(found.boxes, [[5, 2, 9, 5]])
    np.testing.assert_array_equal(found.areas, [7])
    four = label_mask(mask, 4)
    np.testing.assert_array_equal(four.boxes, [[5, 2, 8, 4], [8, 4, 9, 5]])
    np.testing.assert_array_equal(four.areas, [6, 1])
    empty = label_mask(np.zeros((3, 3), bool), points="coarse", rng=np.random.default_rng(0))
    assert empty.points.shape == (0, 2) and empty.boxes.shape == (0, 4) and len(empty) == 0


@QUICK
@hypothesis.given(MASKS, st.sampled_from(["coarse", "uniform"]), st.sampled_from([4, 8]), st.integers(0, 99))
def test_a_drawn_point_is_a_pixel_of_its_own_target(mask, rule, connectivity, seed):
    points = coarse_points(mask, np.random.default_rng(seed), connectivity=connectivity, rule=rule)
    found = label_mask(mask, connectivity)
    assert points.shape == found.points.shape and points.dtype == np.float32
    for (x, y), box in zip(points, found.boxes, strict=True):
        assert mask[int(y), int(x)] and x == int(x) and y == int(y)
        assert box[0] <= x < box[2] and box[1] <= y < box[3]


def drawn_by_the_published_rule(mask, count, rng):
    """LESPS's rule, drawn as it is stated: again until the pixel is of the target."""
    y, x = np.nonzero(mask)
    sides = np.array([np.ptp(x) + 1, np.ptp(y) + 1])
    tries = np.floor(np.array([x.mean(), y.mean()]) + sides / 8 * rng.normal(size=(4 * count, 2))).astype(int)
    return tries[mask[tries[:, 1], tries[:, 0]]][:count]


def test_coarse_points_have_the_published_distribution():
    mask = np.zeros((24, 24), bool)
    mask[5:9, 16] = mask[6:8, 15:19] = True  # the first in raster order
    mask[8:13, 6:14] = mask[13:16, 6] = True  # neither convex nor symmetric
    count, rng = 4000, np.random.default_rng(0)
    points = np.stack([coarse_points(mask, rng) for _ in range(count)])
    assert points.shape == (count, 2, 2)
    for number, part in enumerate((np.s_[:, 14:], np.s_[:, :14])):
        own = np.zeros_like(mask)
        own[part] = mask[part]
        expected = drawn_by_the_published_rule(own, count, rng)
        for axis in (0, 1):
            values = np.arange(24)
            drawn = np.mean(points[:, number, axis, None] == values, axis=0)
            stated = np.mean(expected[:, axis, None] == values, axis=0)
            # Five standard deviations of the difference of two shares.
            assert np.all(np.abs(drawn - stated) <= 5 * np.sqrt(2 * stated * (1 - stated) / count) + 2e-3)


def test_uniform_points_take_every_pixel_alike():
    mask = np.zeros((16, 16), bool)
    mask[3:6, 4:8] = mask[6, 4] = True
    rng = np.random.default_rng(1)
    points = np.concatenate([coarse_points(mask, rng, rule="uniform") for _ in range(2600)]).astype(int)
    hits = np.zeros(mask.shape, int)
    np.add.at(hits, (points[:, 1], points[:, 0]), 1)
    assert hits[~mask].sum() == 0 and np.all(np.abs(hits[mask] - 200) < 75)


def test_the_points_of_a_thin_ring_are_on_it():
    y, x = np.ogrid[:64, :64]
    distance = np.hypot(x - 31, y - 31)
    mask = (distance >= 29) & (distance < 30)
    assert len(label_mask(mask)) == 1  # the centroid is far from every pixel of it
    for seed in range(20):
        ((px, py),) = coarse_points(mask, np.random.default_rng(seed)).astype(int)
        assert mask[py, px]


def test_the_generator_of_a_name():
    assert name_rng(0, "a").random() == name_rng(0, "a").random()
    numbers = {name_rng(seed, name).random() for seed in (0, 1) for name in ("a", "b", "ab")}
    assert len(numbers) == 6
    with pytest.raises(ValueError, match="seed must not be negative, got -1"):
        name_rng(-1, "a")


@QUICK
@hypothesis.given(
    st.lists(st.tuples(st.floats(-0.5, 19.49), st.floats(-0.5, 11.49)), max_size=5), st.floats(0, 6, width=16)
)
def test_a_point_mask_is_the_discs(points, radius):
    mask = point_mask(np.reshape(points, (-1, 2)), (12, 20), radius)
    y, x = np.mgrid[:12, :20]
    wanted = np.zeros((12, 20), bool)
    for px, py in points:
        wanted |= (x - px) ** 2 + (y - py) ** 2 <= radius**2
        wanted[int(np.floor(py + 0.5)), int(np.floor(px + 0.5))] = True
    np.testing.assert_array_equal(mask, wanted)


def test_boxes_and_points_outside():
    np.testing.assert_array_equal(box_centres([[3, 4, 4, 5], [2, 2, 6, 5]]), [[3, 4], [3.5, 3]])
    with pytest.raises(ValueError, match=r"the point \(20, 3\) is outside the image of 20x12"):
        point_mask(np.array([[20.0, 3]]), (12, 20))
    with pytest.raises(ValueError, match="outside"):
        point_mask(np.array([[np.nan, 3]]), (12, 20))
    with pytest.raises(ValueError, match="radius must not be negative, got -1"):
        point_mask(np.zeros((0, 2)), (12, 20), -1)
    inside = checked_boxes(np.array([[-0.001, 0, 20.001, 12]]), (12, 20), "f")
    np.testing.assert_array_equal(inside, [[0, 0, 20, 12]])
    for box in ([-1, 0, 4, 4], [0, 0, 21, 4], [0, 3, 4, 3], [0, 0, np.nan, 4]):
        with pytest.raises(ValueError, match="f: the box .* is empty or outside the image of 20x12"):
            checked_boxes(np.array([box], float), (12, 20), "f")


def test_wrong_arguments():
    mask = np.zeros((4, 4), bool)
    with pytest.raises(ValueError, match="points must be one of centroid, coarse, uniform, got 'middle'"):
        label_mask(mask, points="middle")
    with pytest.raises(ValueError, match="give rng"):
        label_mask(mask, points="coarse")
    with pytest.raises(ValueError, match="rule must be one of coarse, uniform"):
        coarse_points(mask, np.random.default_rng(0), rule="centroid")
    with pytest.raises(ValueError, match="connectivity must be 4 or 8, got 6"):
        label_mask(mask, 6)
    assert len(Labels(np.zeros((3, 2)))) == 3
