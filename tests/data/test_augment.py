import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from irjax.data.augment import AugmentConfig, augment

SIZE = 64
SEEDS = st.integers(0, 2**31 - 1)
quick = settings(max_examples=60, deadline=None)


@functools.cache
def jitted(config):
    return jax.jit(functools.partial(augment, config=config))


def run(seed, image, points, config, extent=None):
    """Augments on the host's terms: image, points and valid as numpy."""
    points = np.asarray(points, np.float32).reshape(-1, 2)
    valid = np.ones(len(points), bool)
    if not len(points):
        points, valid = np.zeros((1, 2), np.float32), np.zeros(1, bool)
    out = jitted(config)(jax.random.key(seed), np.asarray(image, np.float32), points, valid, None, extent)
    assert out.mask is None
    return tuple(np.asarray(x) for x in out[:3])


def noise(seed=0, low=0.2, high=0.5):
    return np.random.default_rng(seed).uniform(low, high, (SIZE, SIZE)).astype(np.float32)


def pixel(x, y):
    image = np.zeros((SIZE, SIZE), np.float32)
    image[y, x] = 1.0
    return image


def peak(image):
    row, column = np.unravel_index(np.argmax(image), image.shape)
    return np.array([column, row])


def test_the_default_changes_nothing():
    image, points, valid = run(5, noise(), [[3.25, 60.5]], AugmentConfig())
    np.testing.assert_array_equal(image, noise())
    np.testing.assert_array_equal(points, [[3.25, 60.5]])
    assert valid.all()


# --- geometry ---------------------------------------------------------------------------------------------------------


@quick
@given(SEEDS, st.integers(0, SIZE - 1), st.integers(0, SIZE - 1))
def test_flips_and_right_angles_move_pixel_and_point_together(seed, x, y):
    image, points, valid = run(seed, pixel(x, y), [[x, y]], AugmentConfig(flips=True, rotations=True))
    assert valid.all() and image.max() == 1.0
    np.testing.assert_array_equal(peak(image), points[0])


@pytest.mark.parametrize(
    "switches, count", [({"flips": True}, 4), ({"rotations": True}, 2), ({"flips": True, "rotations": True}, 8)]
)
def test_number_of_poses(switches, count):
    one = functools.partial(augment, config=AugmentConfig(**switches))
    keys = jax.random.split(jax.random.key(0), 200)
    images = jax.jit(jax.vmap(one, in_axes=(0, None, None, None)))(
        keys, noise(), np.zeros((1, 2), np.float32), np.zeros(1, bool)
    )[0]
    poses, times = np.unique(np.asarray(images).reshape(200, -1), axis=0, return_counts=True)
    assert len(poses) == count and times.min() > 200 / count / 3
    np.testing.assert_array_equal(np.sort(poses, axis=1), np.sort(np.tile(noise().reshape(1, -1), (count, 1)), axis=1))


@quick
@given(SEEDS, st.integers(0, SIZE - 1), st.integers(0, SIZE - 1))
def test_a_crop_is_an_exact_copy_with_its_points(seed, x, y):
    config = AugmentConfig(crop=24, crop_on_target=0.5, flips=True, rotations=True)
    image, points, valid = run(seed, pixel(x, y), [[x, y]], config)
    assert image.shape == (24, 24)
    if valid[0]:
        assert image.max() == 1.0
        np.testing.assert_array_equal(peak(image), points[0])
    else:
        assert image.max() == 0.0
        np.testing.assert_array_equal(points, 0)


@quick
@given(SEEDS, st.integers(0, SIZE - 1), st.integers(0, SIZE - 1))
def test_a_crop_on_target_holds_it_and_stays_on_the_canvas(seed, x, y):
    image = noise(1)
    image[y, x] = 1.0
    image, points, valid = run(seed, image, [[x, y]], AugmentConfig(crop=24, crop_on_target=1.0))
    assert valid.all() and image.min() > 0
    np.testing.assert_array_equal(peak(image), points[0])


def test_crops_of_an_image_without_targets_are_anywhere():
    config = AugmentConfig(crop=24, crop_on_target=1.0)
    image = np.arange(SIZE**2, dtype=np.float32).reshape(SIZE, SIZE) / SIZE**2
    corners = [run(seed, image, [], config)[0][0, 0] * SIZE**2 for seed in range(60)]
    rows, columns = np.divmod(np.rint(corners).astype(int), SIZE)
    assert len(set(rows)) > 15 and len(set(columns)) > 15 and rows.min() == columns.min() == 0
    assert rows.max() == columns.max() == SIZE - 24


@quick
@given(SEEDS, st.floats(20, 43), st.floats(20, 43), st.sampled_from([0, 48]))
def test_zoom_keeps_the_target_under_its_point(seed, x, y, crop):
    axis = np.arange(SIZE)
    blob = np.exp(-((axis[None] - x) ** 2 + (axis[:, None] - y) ** 2) / (2 * 3.0**2))
    config = AugmentConfig(zoom=(0.6, 1.6), crop=crop, crop_on_target=0.0, flips=True, rotations=True)
    image, points, valid = run(seed, blob, [[x, y]], config)
    side = crop or SIZE
    if valid[0] and np.all((points[0] > 16) & (points[0] < side - 17)):
        total = image.sum()
        axis = np.arange(side)
        centroid = np.array([(image.sum(0) * axis).sum(), (image.sum(1) * axis).sum()]) / total
        np.testing.assert_allclose(centroid, points[0], atol=0.1)


def test_zoom_by_two_is_about_the_centre():
    middle = (SIZE - 1) / 2
    image, points, valid = run(
        0, noise(), [[middle, middle], [40.0, 30.0], [1.0, 30.0]], AugmentConfig(zoom=(2.0, 2.0))
    )
    np.testing.assert_allclose(points[:2], [[middle, middle], [2 * 40 - middle, 2 * 30 - middle]], rtol=1e-5)
    np.testing.assert_array_equal(valid, [True, True, False])
    # Output 32 looks at 31.5 + 0.5 / 2 = 31.75.
    wanted = np.array([0.25, 0.75]) @ noise()[31:33, 31:33] @ np.array([0.25, 0.75])
    np.testing.assert_allclose(image[32, 32], wanted, rtol=1e-5)


def test_zooming_out_shows_zeros_around():
    image, _, _ = run(0, noise(), [], AugmentConfig(zoom=(0.5, 0.5)))
    assert image[20:44, 20:44].min() > 0 and np.all(image[:15] == 0) and np.all(image[:, -15:] == 0)


# --- photometry -------------------------------------------------------------------------------------------------------


WIDE = np.array([0, 16, SIZE - 1, SIZE - 17], np.int32)


def margins():
    """An image 32 pixels high on the canvas, and a quarter of it is truly black."""
    image = noise(3)
    image[:16], image[-16:] = 0.0, 0.0
    image[:, :16] = 0.0
    return image


@quick
@given(SEEDS)
def test_photometry_keeps_margins_and_range(seed):
    config = AugmentConfig(gain=0.9, offset=0.5, noise=0.2, inject=2, inject_share=1.0, inject_sigma=(3.0, 3.5))
    image, _, _ = run(seed, margins(), [], config, WIDE)
    assert image.min() >= 0 and image.max() <= 1
    np.testing.assert_array_equal(image[:16], 0)
    np.testing.assert_array_equal(image[-16:], 0)
    assert np.any(image[16:-16] != margins()[16:-16])


@quick
@given(SEEDS)
def test_gain_is_about_the_mean_of_the_image_without_margins(seed):
    image, _, _ = run(seed, margins() + 0.2 * (margins() == 0), [], AugmentConfig(gain=0.3), WIDE)
    inside, before = image[16:-16], (margins() + 0.2 * (margins() == 0))[16:-16]
    np.testing.assert_allclose(inside.mean(), before.mean(), rtol=1e-4)
    assert 0.7 - 1e-3 <= inside.std() / before.std() <= 1.3 + 1e-3


@quick
@given(SEEDS, st.sampled_from(["gain", "offset", "noise"]))
def test_photometry_reaches_every_pixel_of_the_image_and_none_of_the_margin(seed, what):
    """The image's own zeros are as much image as the rest."""
    image = margins()
    image[16:-16, :16] = 0.0
    changed, _, _ = run(seed, image, [], AugmentConfig(**{what: 0.2}), WIDE)
    outside = np.r_[changed[:16], changed[-16:]]
    np.testing.assert_array_equal(outside, 0)
    mean = image[16:-16].mean()
    inside, black = changed[16:-16], changed[16:-16, :16]
    moved = inside != image[16:-16]
    if what == "noise":  # the negative half of the noise is cut at 0 where the image is black
        assert moved[:, 16:].mean() > 0.99 and 0.4 < moved[:, :16].mean() < 0.6
    elif what == "gain":
        factor = (inside[:, 16:].max() - mean) / (image[16:-16].max() - mean)
        np.testing.assert_allclose(black, max(mean * (1 - factor), 0), atol=1e-5)
        assert moved[:, 16:].mean() > 0.99
    else:
        shift = (inside - image[16:-16])[:, 16:].mean()
        np.testing.assert_allclose(black, max(shift, 0), atol=1e-5)


@quick
@given(SEEDS, st.sampled_from([0, 40]))
def test_the_margin_moves_with_the_image(seed, crop):
    """Against a plane of ones, moved alike: what is 0 of it is margin, the outside of a canvas that was shrunk too."""
    config = AugmentConfig(crop=crop, zoom=(0.5, 1.5), flips=True, rotations=True)
    part = np.zeros((SIZE, SIZE), np.float32)
    left, top, right, bottom = extent = np.array([7, 20, 58, 41], np.int32)
    part[top : bottom + 1, left : right + 1] = 1.0
    out = jitted(config)(jax.random.key(seed), part, jnp.zeros((1, 2)), jnp.zeros(1, bool), None, extent)
    axis = np.arange(crop or SIZE)
    x, y = ((axis >= out.extent[i]) & (axis <= out.extent[i + 2]) for i in (0, 1))
    inside = y[:, None] & x[None]
    assert np.all(np.asarray(out.image)[inside] > 0) and np.all(np.asarray(out.image)[~inside] < 1e-4)
    bright = dataclasses.replace(config, offset=0.5)
    for one in (1, 2, 3):
        again = jitted(bright)(jax.random.key(seed + one), part, jnp.zeros((1, 2)), jnp.zeros(1, bool), None, extent)
        plain = jitted(config)(jax.random.key(seed + one), part, jnp.zeros((1, 2)), jnp.zeros(1, bool), None, extent)
        assert np.all(np.asarray(again.image)[np.asarray(plain.image) == 0] == 0)


@quick
@given(SEEDS)
def test_offset_and_noise_are_as_large_as_said(seed):
    change = run(seed, noise(), [], AugmentConfig(offset=0.1))[0] - noise()
    assert abs(change.mean()) <= 0.1 + 1e-5 and change.std() < 1e-5
    change = run(seed, noise(), [], AugmentConfig(noise=0.02))[0] - noise()
    assert change.std() < 0.022 and abs(change.mean()) < 0.002


# --- injected targets -------------------------------------------------------------------------------------------------


@quick
@given(SEEDS)
def test_an_injected_target_has_the_stated_place_and_ratio(seed):
    config = AugmentConfig(inject=1, inject_share=1.0, inject_scr=(4.0, 4.0), inject_sigma=(1.5, 1.5))
    before = noise(seed % 7, 0.3, 0.4)
    image, points, valid = run(seed, before, [], config)
    assert points.shape == (2, 2) and not valid[0]
    assert valid[1]  # nothing in this image forbids it
    x, y = points[1]
    left, top = (int(np.clip(np.round(v) - 16, 0, SIZE - 32)) for v in (x, y))
    clutter = before[top : top + 32, left : left + 32].std()
    axis = np.arange(SIZE)
    wanted = 4 * clutter * np.exp(-((axis[None] - x) ** 2 + (axis[:, None] - y) ** 2) / (2 * 1.5**2))
    np.testing.assert_allclose(image - before, wanted, atol=2e-5)


@quick
@given(SEEDS)
def test_injected_targets_avoid_margins_real_targets_and_saturation(seed):
    config = AugmentConfig(inject=3, inject_share=1.0)
    image = noise(3)
    image[:, :20] = 0.0
    changed, points, valid = run(seed, image, [[50.0, 20.0]], config, np.array([20, 0, SIZE - 1, SIZE - 1], np.int32))
    for x, y in points[1:][valid[1:]]:
        assert x >= 20 and np.hypot(x - 50, y - 20) > 16
    np.testing.assert_array_equal(points[0], [50.0, 20.0])
    np.testing.assert_array_equal(changed[:, :20], 0)
    assert valid[0] and changed.max() <= 1 and np.all(changed - image >= -1e-6)
    bright = run(seed, np.full((SIZE, SIZE), 0.999, np.float32), [], config)
    assert not bright[2].any()


def test_injected_targets_fall_on_real_zeros():
    """A black image is an image; nothing of it is margin."""
    config = AugmentConfig(inject=3, inject_share=1.0)
    image, black = noise(3), np.zeros((SIZE, SIZE), bool)
    black[20:44, 8:60] = True
    image[black] = 0.0
    seen = [run(seed, image, [], config) for seed in range(30)]
    on_black = sum(black[tuple(np.rint(point[::-1]).astype(int))] for _, p, m in seen for point in p[1:][m[1:]])
    assert on_black > 10 and any(np.any(changed[black] > 0.1) for changed, _, _ in seen)


def test_share_of_slots_in_use():
    config = AugmentConfig(inject=2, inject_share=0.25, inject_scr=(3.0, 4.0))
    one = functools.partial(augment, config=config)
    keys = jax.random.split(jax.random.key(1), 400)
    valid = jax.jit(jax.vmap(one, in_axes=(0, None, None, None)))(
        keys, noise(0, 0.3, 0.4), np.zeros((1, 2), np.float32), np.zeros(1, bool)
    )[2]
    assert abs(np.asarray(valid[:, 1:]).mean() - 0.25) < 0.06


# --- batches and settings ---------------------------------------------------------------------------------------------

ALL = AugmentConfig(crop=40, zoom=(0.8, 1.3), flips=True, rotations=True, gain=0.2, offset=0.1, noise=0.02, inject=2)


def test_an_example_does_not_depend_on_its_batch():
    rng = np.random.default_rng(0)
    images = rng.uniform(0.2, 0.6, (5, SIZE, SIZE)).astype(np.float32)
    points = rng.uniform(5, 58, (5, 3, 2)).astype(np.float32)
    valid = rng.random((5, 3)) < 0.6
    keys = jax.random.split(jax.random.key(2), 5)
    many = jax.jit(jax.vmap(functools.partial(augment, config=ALL)))
    mask = rng.random(images.shape) < 0.1
    together = many(keys, images, points, valid, mask)
    order = np.array([3, 1])
    apart = many(keys[order], images[order], points[order], valid[order], mask[order])
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_allclose(one[order], other, atol=1e-6)
    assert together[0].shape == (5, 40, 40) and together[1].shape == (5, 5, 2)


@quick
@given(SEEDS)
def test_masks_move_with_their_pixels(seed):
    """Where nothing is interpolated, a mask stays the image above a level."""
    image = noise()
    config = AugmentConfig(crop=40, flips=True, rotations=True, crop_on_target=0.0)
    out = jitted(config)(jax.random.key(seed), image, jnp.zeros((1, 2)), jnp.zeros(1, bool), image > 0.4)
    np.testing.assert_array_equal(out.mask, out.image > 0.4)


@quick
@given(SEEDS, st.floats(20, 44), st.floats(20, 44))
def test_a_zoomed_mask_keeps_its_centroid_and_grows_with_the_zoom(seed, x, y):
    rows, columns = np.mgrid[:SIZE, :SIZE]
    disc = (columns - x) ** 2 + (rows - y) ** 2 < 36
    image = np.where(disc, 0.8, 0.2).astype(np.float32)
    centre = np.argwhere(disc).mean(0)[::-1].astype(np.float32)
    config = AugmentConfig(zoom=(0.7, 1.4), flips=True, rotations=True)
    out = jitted(config)(jax.random.key(seed), image, centre[None], np.ones(1, bool), disc)
    where = np.argwhere(np.asarray(out.mask))
    np.testing.assert_allclose(where.mean(0)[::-1], out.points[0], atol=0.6)  # half a pixel of rounding
    assert 0.4 < len(where) / disc.sum() < 2.2


@quick
@given(SEEDS)
def test_injected_targets_are_in_the_mask(seed):
    config = AugmentConfig(inject=2, inject_share=1.0, inject_scr=(10.0, 12.0), inject_sigma=(1.0, 2.0))
    old = np.zeros((SIZE, SIZE), bool)
    old[2:4, 2:4] = True
    before = noise(0, 0.3, 0.35)
    out = jitted(config)(jax.random.key(seed), before, jnp.zeros((1, 2)), jnp.zeros(1, bool), old)
    new = np.asarray(out.mask) & ~old
    assert np.asarray(out.mask)[old].all()
    assert new.any() == bool(out.valid.any())
    for x, y in np.asarray(out.points)[np.asarray(out.valid)]:
        assert new[int(round(float(y))), int(round(float(x)))] or old[int(round(float(y))), int(round(float(x)))]
    change = np.asarray(out.image) - before
    assert (change[new] > 0.02).all()


def test_other_keys_give_other_images():
    first, again, other = (run(seed, noise(), [[30, 30]], ALL)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01


def test_padding_rows_are_not_moved_into_sight():
    points, valid = jnp.array([[30.0, 30.0], [0.0, 0.0]]), jnp.array([True, False])
    _, points, valid, *_ = jitted(dataclasses.replace(ALL, inject=0))(jax.random.key(0), noise(), points, valid)
    assert not valid[1] and np.all(points[1] == 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"zoom": (1.2, 1.0)},
        {"zoom": (0.0, 1.0)},
        {"inject_scr": (-1.0, 3.0)},
        {"inject_sigma": (2.0, 1.0)},
        {"crop": -1},
    ],
)
def test_wrong_settings(wrong):
    with pytest.raises(ValueError, match=f"augment.{next(iter(wrong))}"):
        AugmentConfig(**wrong)
