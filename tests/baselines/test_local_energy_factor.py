import chex
import numpy as np
import pytest

from irjax.baselines import lef


def reference(image, sizes=(1, 3, 5, 7, 9), alpha=0.5, bandwidth=0.2):
    """Pixel by pixel from the formulas, in float64."""
    height, width = image.shape
    factor, difference = np.zeros((2, len(sizes), height, width))
    for i, s in enumerate(sizes):
        reach = s + s // 2
        padded = np.pad(image.astype(np.float64), reach, mode="symmetric")
        for y in range(height):
            for x in range(width):
                square = padded[y : y + 3 * s, x : x + 3 * s]
                blocks = [square[r * s : (r + 1) * s, c * s : (c + 1) * s] for r in range(3) for c in range(3)]
                outer = blocks[:4] + blocks[5:]
                all_nine, eight = np.var(blocks, axis=0).sum(), np.var(outer, axis=0).sum()
                factor[i, y, x] = (all_nine - eight) / all_nine if np.ptp(blocks, axis=0).any() else 0
                difference[i, y, x] = image[y, x] - np.mean(outer)
    factor = (factor - factor.min()) / np.ptp(factor)
    difference = (difference - difference.min()) / np.ptp(difference)
    exponent = alpha * (factor - 1) ** 2 + (1 - alpha) * (difference - 1) ** 2
    return np.exp(-exponent / (2 * bandwidth**2)).max(axis=0)


@pytest.mark.parametrize(
    "options", [{}, {"sizes": (3,)}, {"sizes": (1, 7), "alpha": 0.8, "bandwidth": 0.5}], ids=["default", "one", "other"]
)
def test_equals_the_loops(options):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 24, 30), np.uint8)
    images[1, 5:20, 3:28] = 90  # where all nine blocks are equal
    response = lef(images, **options)
    chex.assert_shape(response, (2, 24, 30))
    chex.assert_type(response, np.float32)
    np.testing.assert_allclose(response, [reference(image, **options) for image in images], rtol=2e-4, atol=1e-6)


def test_of_one_bright_pixel():
    image = np.full((1, 41, 41), 20, np.uint8)
    image[0, 20, 20] = 120
    response = np.asarray(lef(image))[0]
    # Least LEF: the pixel in one outer block, 1 - (7 / 64) / (8 / 81). Least D: -1/8 of its height, beside it.
    far, low = 55 / 567, 1 / 9
    assert response[20, 20] == pytest.approx(1)
    # In the middle cell of 3x3, but not at its centre: the highest LEF, and a D of 0.
    assert response[19, 20] == pytest.approx(np.exp(-((low - 1) ** 2) / 2 / 0.08), rel=1e-4)
    assert response[0, 0] == pytest.approx(np.exp(-((far - 1) ** 2 + (low - 1) ** 2) / 2 / 0.08), rel=1e-4)


def test_levels_and_contrast_do_not_matter():
    first = np.random.default_rng(3).integers(0, 60, (1, 41, 41), np.uint8)
    np.testing.assert_allclose(lef(first * np.uint8(3)), lef(first), rtol=1e-4)
    np.testing.assert_allclose(lef(first + np.uint8(100)), lef(first), rtol=1e-4)


def test_refuses_options():
    image = np.zeros((1, 8, 8), np.uint8)
    for sizes in ((), (2,), (3, -1)):
        with pytest.raises(ValueError, match="sizes must be odd"):
            lef(image, sizes=sizes)
    with pytest.raises(ValueError, match="alpha"):
        lef(image, alpha=1.5)
    with pytest.raises(ValueError, match="bandwidth"):
        lef(image, bandwidth=0.0)
