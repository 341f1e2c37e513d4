import dataclasses
import pickle

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from irjax.data import clutter
from irjax.data.clutter import SceneConfig
from irjax.data.synthetic import (
    InjectedSource,
    SyntheticSource,
    compose,
    gaussian_target,
    inject,
    local_clutter,
    synthesize,
)
from irjax.types import Example, Source

SMALL = SceneConfig(height=96, width=128)
NEIGHBOURS = np.ones((3, 3))


def _distances(points):
    gaps = np.linalg.norm(points[:, None] - points[None], axis=-1)
    return gaps[~np.eye(len(points), dtype=bool)]


def test_same_seed_gives_same_bytes_in_any_order():
    source = SyntheticSource(SMALL, seed=3, num_examples=5)
    first = source[4]
    source[0]
    again = pickle.loads(pickle.dumps(source))[4]
    assert first.name == again.name == source.names[4] == "synthetic_s3_00004"
    for a, b in zip((first.image, first.points, first.mask), (again.image, again.points, again.mask), strict=True):
        assert a.tobytes() == b.tobytes() and a.dtype == b.dtype


def test_other_seed_or_index_gives_another_scene():
    images = [synthesize(SMALL, seed, index).image for seed, index in ((0, 0), (0, 1), (1, 0))]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert (images[i] != images[j]).mean() > 0.5


def test_source_protocol_and_bounds():
    source = SyntheticSource(SMALL, seed=0, num_examples=3)
    assert isinstance(source, Source) and len(source) == len(source.names) == 3
    assert source[-1].name == source.names[-1]
    assert len(list(source)) == 3
    with pytest.raises(IndexError):
        source[3]


@pytest.mark.parametrize(("bits", "dtype"), [(8, np.uint8), (16, np.uint16)])
def test_types_shapes_and_ranges(bits, dtype):
    assert SyntheticSource(SceneConfig(bits=bits)).dtype == SceneConfig(bits=bits).dtype == dtype
    example = synthesize(dataclasses.replace(SMALL, bits=bits, targets=(4, 4)), 0, 0)
    assert example.image.dtype == dtype and example.image.shape == (96, 128)
    assert example.points.dtype == np.float32 and example.points.shape == (4, 2)
    assert example.mask.dtype == bool and example.mask.shape == (96, 128)
    assert np.all(example.points >= SMALL.margin - 1e-4)
    assert np.all(example.points <= np.array([127, 95]) - SMALL.margin + 1e-4)
    # Most of the range is used in 16 bits too: it is not a widened 8-bit image.
    assert len(np.unique(example.image)) > (1000 if bits == 16 else 20)


def test_counts_cover_the_whole_range():
    counts = [len(SyntheticSource(SceneConfig(), 5, 60)[i].points) for i in range(60)]
    assert min(counts) == 0 and max(counts) == 8


@pytest.mark.parametrize("kind", list(clutter.BACKGROUNDS))
def test_every_background_is_textured_and_not_saturated(kind):
    for index in range(3):
        image = synthesize(dataclasses.replace(SMALL, backgrounds=(kind,), targets=(0, 0)), 0, index).image
        assert image.std() > 4.0
        assert (image == 255).mean() < 0.01


@pytest.mark.parametrize("kind", list(clutter.DISTRACTORS))
def test_a_distractor_never_looks_like_a_target(kind):
    """After the optics, each covers more pixels above a quarter of its peak than the widest target does."""
    rng = np.random.default_rng(0)
    # A point of the widest optics and extent, as the reference.
    widest = np.hypot(SceneConfig().psf_sigma[1], SceneConfig().target_extent[1])
    _, _, patch = gaussian_target(32.0, 32.0, widest, 64, 64)
    reference = int((patch > 0.25).sum())
    for _ in range(20):
        scene = np.zeros((64, 64), np.float32)
        clutter.DISTRACTORS[kind](rng, scene, 32.0, 32.0, 1.0)
        scene = scipy.ndimage.gaussian_filter(scene, 0.9)
        above = scene > 0.25 * scene.max()
        assert above.sum() > reference, kind


def test_signal_to_clutter_ratio_holds_in_the_image():
    """Measured in the 16-bit images alone: with targets minus without, over the deviation without."""
    config = dataclasses.replace(SceneConfig(height=160, width=160, bits=16), targets=(3, 6))
    bare = dataclasses.replace(config, targets=(0, 0))
    measured = 0
    for index in range(6):
        example, background = synthesize(config, 7, index), synthesize(bare, 7, index).image.astype(float)
        _, targets = compose(config, 7, index)
        np.testing.assert_array_equal(targets.points, example.points)
        added = example.image - background
        for (x, y), scr in zip(example.points, targets.scr, strict=True):
            row, column = round(float(y)), round(float(x))
            peak = added[max(row - 3, 0) : row + 4, max(column - 3, 0) : column + 4].max()
            ratio = peak / local_clutter(background, float(x), float(y), config.scr_radius)
            assert ratio == pytest.approx(scr, rel=0.02)
            assert 2.9 <= ratio <= 10.2
            measured += 1
    assert measured > 15


def test_signal_to_clutter_ratio_survives_8_bits():
    bare = dataclasses.replace(SMALL, targets=(0, 0))
    for index in range(8):
        example, background = synthesize(SMALL, 2, index), synthesize(bare, 2, index).image.astype(float)
        for (x, y), scr in zip(example.points, compose(SMALL, 2, index)[1].scr, strict=True):
            row, column = round(float(y)), round(float(x))
            peak = (example.image - background)[max(row - 3, 0) : row + 4, max(column - 3, 0) : column + 4].max()
            clutter_deviation = local_clutter(background, float(x), float(y), SMALL.scr_radius)
            assert peak / clutter_deviation == pytest.approx(scr, rel=0.05, abs=1.5 / clutter_deviation)


def test_masks_agree_with_points_and_stay_apart():
    config = dataclasses.replace(SMALL, targets=(2, 8))
    for index in range(10):
        example = synthesize(config, 11, index)
        labels, count = scipy.ndimage.label(example.mask, NEIGHBOURS)
        assert count == len(example.points)
        assert np.all(_distances(example.points) >= config.min_distance - 1e-3)
        centres = np.array(scipy.ndimage.center_of_mass(example.mask, labels, range(1, count + 1)))[:, ::-1]
        nearest = np.linalg.norm(centres[:, None] - example.points[None], axis=-1).min(axis=0)
        assert nearest.max() < 1.0


@settings(max_examples=60, deadline=None)
@given(x=st.floats(3.0, 60.0), y=st.floats(3.0, 44.0), sigma=st.floats(0.6, 1.8))
def test_target_is_exact_at_any_subpixel_position(x, y, sigma):
    rows, columns, patch = gaussian_target(x, y, sigma, 48, 64)
    image = np.zeros((48, 64))
    image[rows, columns] = patch
    assert image.max() == pytest.approx(1.0)
    row, column = np.unravel_index(image.argmax(), image.shape)
    assert abs(column - x) <= 0.5 + 1e-3 and abs(row - y) <= 0.5 + 1e-3
    mask = image > 0.25
    mask_y, mask_x = scipy.ndimage.center_of_mass(mask)
    assert np.hypot(mask_x - x, mask_y - y) < 1.0
    if 6 * sigma < min(x, y, 63 - x, 47 - y):
        total_y, total_x = scipy.ndimage.center_of_mass(image)
        assert (total_x, total_y) == (pytest.approx(x, abs=1e-3), pytest.approx(y, abs=1e-3))


def test_power_law_noise_has_its_exponent():
    rng = np.random.default_rng(0)
    for exponent in (1.0, 2.0, 3.0):
        field = clutter.power_law_noise(rng, 128, 128, exponent)
        power = np.abs(np.fft.fft2(field)) ** 2
        frequency = np.hypot(np.fft.fftfreq(128)[:, None], np.fft.fftfreq(128)[None])
        band = (frequency > 0.03) & (frequency < 0.4)
        slope = np.polyfit(np.log(frequency[band]), np.log(power[band]), 1)[0]
        assert slope == pytest.approx(-exponent, abs=0.15)
        assert field.mean() == pytest.approx(0.0, abs=1e-4) and field.std() == pytest.approx(1.0, abs=1e-4)


@dataclasses.dataclass(frozen=True)
class _Real:
    examples: tuple[Example, ...]

    @property
    def names(self):
        return tuple(e.name for e in self.examples)

    def __len__(self):
        return len(self.examples)

    @property
    def dtype(self):
        return self.examples[0].image.dtype

    def __getitem__(self, index):
        return self.examples[index]


def _real(dtype=np.uint8, height=90, width=150, mask=True):
    image = synthesize(SceneConfig(height=height, width=width, targets=(0, 0)), 1, 0).image.astype(dtype)
    image *= 1 if dtype == np.uint8 else 60
    own = np.zeros(image.shape, bool)
    own[40:43, 70:74] = True
    image[own] = image.max()
    return Example("frame", image, np.array([[71.5, 41.0]], np.float32), own if mask else None)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_injection_keeps_old_targets(dtype):
    real = _real(dtype)
    before = real.image.copy()
    source = InjectedSource(_Real((real,)), SceneConfig(targets=(3, 5)), seed=4, num_examples=3)
    assert isinstance(source, Source) and len(source) == 3 and len(set(source.names)) == 3
    assert source.dtype == dtype
    for index in range(3):
        example = source[index]
        assert example.name == source.names[index]
        assert example.image.dtype == dtype and example.image.shape == real.image.shape
        np.testing.assert_array_equal(example.points[0], real.points[0])
        assert len(example.points) > 3 - 1
        assert np.all(example.mask[real.mask])
        assert np.all(example.image[real.mask] >= real.image[real.mask])
        assert scipy.ndimage.label(example.mask, NEIGHBOURS)[1] == len(example.points)
        assert np.all(_distances(example.points) >= 12.0 - 1e-3)
        assert example.image.tobytes() == source[index].image.tobytes()
    np.testing.assert_array_equal(real.image, before)
    assert source[0].image.tobytes() != source[1].image.tobytes()


def test_injection_takes_its_amplitude_from_local_clutter():
    rng = np.random.default_rng(0)
    noise = rng.normal(0.0, 1.0, (128, 256)) * np.where(np.arange(256) < 128, 2.0, 12.0)
    image = np.clip(100 + noise, 0, 255).astype(np.uint8)
    config = SceneConfig(targets=(8, 8), scr=(5.0, 5.0), margin=12.0)
    real = Example("noise", image, np.zeros((0, 2), np.float32))
    quiet, loud = [], []
    for index in range(6):
        example = inject(real, config, np.random.default_rng(index))
        assert example.mask is not None and len(example.points) == 8
        for x, y in example.points:
            row, column = round(float(y)), round(float(x))
            peak = (example.image.astype(float) - image)[row - 2 : row + 3, column - 2 : column + 3].max()
            if abs(x - 128) > 12:
                (quiet if x < 128 else loud).append(peak)
    assert np.mean(quiet) == pytest.approx(10.0, rel=0.15)
    assert np.mean(loud) == pytest.approx(60.0, rel=0.15)


def test_injection_into_flat_or_saturated_images():
    flat = Example("flat", np.full((64, 64), 90, np.uint8), np.zeros((0, 2), np.float32))
    flat.image[0, 0] = 190
    example = inject(flat, SceneConfig(targets=(4, 4)), np.random.default_rng(0))
    assert len(example.points) == 4 and np.all(example.image[example.mask] > flat.image[example.mask])
    white = Example("white", np.full((64, 64), 255, np.uint8), np.zeros((0, 2), np.float32))
    white.image[::2, ::2] = 250
    assert len(inject(white, SceneConfig(targets=(4, 4)), np.random.default_rng(0)).points) == 0


def test_injection_without_mask():
    assert inject(_real(mask=False), SceneConfig(targets=(2, 2)), np.random.default_rng(0)).mask is None


def test_injection_into_published_backgrounds(shared):
    image = pytest.importorskip("PIL.Image")
    folder = shared / "data" / "SIRST-v2" / "images" / "backgrounds"
    for path in sorted(folder.iterdir())[:3]:
        pixels = np.asarray(image.open(path).convert("L"))
        real = Example(path.stem, pixels, np.zeros((0, 2), np.float32))
        example = inject(real, SceneConfig(), np.random.default_rng(1))
        assert example.image.shape == pixels.shape and example.mask.any() == bool(len(example.points))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"bits": 12}, "bits"),
        ({"height": 16}, "height"),
        ({"targets": (5, 2)}, "targets"),
        ({"scr": (3.0,)}, "scr"),
        ({"backgrounds": ("cloud", "desert")}, "desert"),
        ({"backgrounds": ()}, "backgrounds"),
        ({"psf_sigma": (0.0, 1.0)}, "psf_sigma"),
        ({"mask_fraction": 1.0}, "mask_fraction"),
        ({"margin": 200.0}, "margin"),
    ],
)
def test_config_refuses(change, word):
    with pytest.raises(ValueError, match=word):
        SceneConfig(**change)


def test_sources_refuse():
    with pytest.raises(ValueError, match="seed"):
        synthesize(SMALL, -1, 0)
    with pytest.raises(ValueError, match="seed"):
        SyntheticSource(SMALL, seed=-1)
    with pytest.raises(ValueError, match="empty"):
        InjectedSource(_Real(()))
    with pytest.raises(ValueError, match="frame.*float32"):
        inject(Example("frame", np.zeros((64, 64), np.float32), np.zeros((0, 2))), SMALL, np.random.default_rng(0))
