"""The data set on the device: what is cut from it is what the host would read."""

import jax
import numpy as np
import pytest

from irjax.data.cache import cut, load_cache
from irjax.data.pipeline import letterbox_example
from irjax.data.sources import MemorySource
from irjax.data.windows import WindowSource
from irjax.types import Example

SIZES = ((40, 90), (20, 30), (32, 32), (33, 64), (9, 70))
SIZE, POINTS = 32, 4


def source(deep=()):
    """Images larger and smaller than a window, with up to four targets each; those in `deep` have 16 bits."""
    rng = np.random.default_rng(0)
    examples = []
    for number, (height, width) in enumerate(SIZES):
        kind = np.uint16 if number in deep else np.uint8
        image = rng.integers(0, np.iinfo(kind).max, (height, width), kind)
        points = np.stack([rng.uniform(-0.5, width - 0.5, number), rng.uniform(-0.5, height - 0.5, number)], axis=1)
        examples.append(Example(f"n{number}", image, points.astype(np.float32), rng.random((height, width)) < 0.2))
    return MemorySource(tuple(examples))


def read(parts, **options):
    return [letterbox_example(parts[i], SIZE, POINTS, with_mask=True, **options) for i in range(len(parts))]


@pytest.mark.parametrize("slide, deep", [(True, ()), (True, (1, 3)), (False, ()), (False, (0,))])
def test_what_is_cut_is_what_the_host_reads(slide, deep):
    images = source(deep)
    dtype = np.uint16 if deep else np.uint8
    cache = load_cache(images, SIZE, POINTS, with_masks=True, enlarge=not slide, slide=slide)
    wanted = read(WindowSource(images, SIZE, SIZE // 4) if slide else images, enlarge=not slide, dtype=dtype)
    assert len(cache) == len(wanted) == (8 + 1 + 1 + 6 + 3 if slide else 5)
    rows = np.arange(len(cache), dtype=np.int32)[::-1]
    batch = jax.jit(cut)(cache, rows, rows + 50)
    np.testing.assert_array_equal(batch.index, rows + 50)
    for place, row in enumerate(rows):
        for name, value in wanted[row].items():
            found = getattr(batch, name)[place]
            assert found.dtype == value.dtype
            np.testing.assert_array_equal(found, value, err_msg=f"{name} of {row}")
    np.testing.assert_array_equal(cache.has_target(), [bool(one["valid"].any()) for one in wanted])


def test_every_pixel_lies_there_once():
    images = source()
    cache = load_cache(images, SIZE, POINTS, with_masks=True, enlarge=False, slide=True)
    held = sum(max(height, SIZE) * max(width, SIZE) for height, width in SIZES)
    assert held <= len(cache.pixels) < held + 8 * len(SIZES) and len(cache.mask) == len(cache.pixels) / 8 + 2
    assert held < 0.65 * len(cache) * SIZE**2  # what windows stored one by one would take


def test_masks_are_left_out_where_they_are_not_needed():
    cache = load_cache(source(), SIZE, POINTS, enlarge=False, slide=True)
    assert cache.mask is None and cut(cache, np.array([2]), np.array([0])).mask is None


@pytest.mark.parametrize("slide", [False, True])
def test_what_cannot_be_cached(slide):
    options = {"enlarge": not slide, "slide": slide}
    with pytest.raises(ValueError, match="no example"):
        load_cache(MemorySource(()), SIZE, POINTS, **options)
    with pytest.raises(ValueError, match=r"n4 has \d targets, more than max_points=1"):
        load_cache(MemorySource(source().examples[4:]), SIZE, 1, **options)
    bare = Example("bare", np.zeros((40, 40), np.uint8), np.zeros((0, 2), np.float32))
    with pytest.raises(ValueError, match="bare has points but no mask"):
        load_cache(MemorySource((bare,)), SIZE, POINTS, with_masks=True, **options)


def test_a_data_set_too_large_for_one_array_is_refused(monkeypatch):
    monkeypatch.setattr("irjax.data.cache._MOST_PIXELS", 5000)
    with pytest.raises(ValueError, match=r"5 images of [\d,]+ pixels .* data\.cache=host"):
        load_cache(source(), SIZE, POINTS)
