import chex
import numpy as np
import pytest

from irjax.baselines import tllcm


def reference(image, sizes=(3, 5, 7, 9)):
    """Pixel by pixel from the formulas, in float64."""
    image = image.astype(np.float64)
    kernel = np.outer([1, 2, 1], [1, 2, 1]) / 16
    around = np.pad(image, 1, mode="symmetric")
    best = np.full(image.shape, -np.inf)
    for y, x in np.ndindex(image.shape):
        smooth = (around[y : y + 3, x : x + 3] * kernel).sum()
        for s in sizes:
            padded = np.pad(image, s + s // 2, mode="symmetric")
            means = []
            for row in range(3):
                for col in range(3):
                    if (row, col) != (1, 1):
                        cell = padded[y + row * s : y + (row + 1) * s, x + col * s : x + (col + 1) * s]
                        means.append(np.sort(cell, axis=None)[-9:].mean())
            darkest = max(*means, image.max() / 255)
            best[y, x] = max(best[y, x], (smooth / darkest - 1) * smooth)
    return np.maximum(best, 0)


@pytest.mark.parametrize("options", [{}, {"sizes": (7, 3)}], ids=["default", "7,3"])
def test_equals_the_loops(options):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 24, 30), np.uint8)
    images[0] //= 4
    images[0, 9:13, 11:14] = 255
    images[1] = np.where(rng.random((24, 30)) < 0.02, images[1], 0)  # mostly black
    response = tllcm(images, **options)
    chex.assert_shape(response, (2, 24, 30))
    chex.assert_type(response, np.float32)
    wanted = np.stack([reference(image / 255, **options) for image in images])
    assert wanted[0].max() > 0.5
    np.testing.assert_allclose(response, wanted, rtol=1e-4, atol=1e-6)


def test_of_one_bright_pixel():
    image = np.full((1, 41, 41), 40, np.uint8)
    image[0, 20, 20] = 200
    response = np.array(tllcm(image))[0]
    assert response[20, 20] == pytest.approx((80 / 40 - 1) * 80 / 255)
    assert response[20, 21] == response[19, 20] == pytest.approx((60 / 40 - 1) * 60 / 255)
    assert response[21, 21] == pytest.approx((50 / 40 - 1) * 50 / 255)
    assert np.count_nonzero(response) == 9


def test_the_nine_brightest_pixels_of_the_brightest_cell_count():
    image = np.full((1, 41, 41), 40, np.uint8)
    image[0, 20, 20] = 200
    image[0, 20, 10:16] = 58  # six of them in the 7x7 pixels to the left, three in the 5x5
    response = np.array(tllcm(image, sizes=(7,)))[0]
    nearest = 40 + 18 * 6 / 9
    assert response[20, 20] == pytest.approx((80 / nearest - 1) * 80 / 255)
    response = np.array(tllcm(image, sizes=(5, 7, 9)))[0]
    assert response[20, 20] == pytest.approx((80 / (40 + 18 * 3 / 9) - 1) * 80 / 255)


def test_the_smallest_cells_are_the_papers_and_count_as_a_whole():
    """3x3 pixels: the nine brightest are all. Six bright ones beyond them do not matter, three among them do."""
    image = np.full((1, 41, 41), 40, np.uint8)
    image[0, 20, 20] = 200
    image[0, 20, 10:16] = 58
    assert np.array(tllcm(image))[0, 20, 20] == pytest.approx((80 / 40 - 1) * 80 / 255)
    image[0, 20, 16:19] = 58
    assert np.array(tllcm(image, sizes=(3,)))[0, 20, 20] == pytest.approx((80 / (40 + 18 * 3 / 9) - 1) * 80 / 255)


def test_a_pixel_on_black_is_bounded():
    image = np.zeros((1, 41, 41), np.uint8)
    image[0, 20, 20] = 204
    assert float(tllcm(image)[0, 20, 20]) == pytest.approx((51 / 0.8 - 1) * 51 / 255)


def test_is_proportional_to_the_image_but_not_blind_to_its_level():
    first = np.random.default_rng(3).integers(0, 60, (1, 41, 41), np.uint8)
    first[0, 12, 12] = 80
    np.testing.assert_allclose(tllcm(first * np.uint8(3)), 3 * np.asarray(tllcm(first)), rtol=1e-4, atol=1e-7)
    image = np.full((1, 41, 41), 40, np.uint8)
    image[0, 20, 20] = 200
    assert np.asarray(tllcm(image + np.uint8(40))).max() < 0.9 * np.asarray(tllcm(image)).max()


def test_refuses_options():
    image = np.zeros((1, 8, 8), np.uint8)
    for sizes in ((), (4,), (1, 5)):
        with pytest.raises(ValueError, match="sizes must be odd numbers of at least 3"):
            tllcm(image, sizes=sizes)
