import chex
import numpy as np
import pytest

from irjax.baselines import aadcdd


def reference(image, sizes=(3, 5, 7, 9), outer=19):
    """Pixel by pixel from the formulas, in float64."""
    reach = outer // 2
    padded = np.pad(image.astype(np.float64), reach, mode="symmetric")
    response = np.zeros(image.shape)
    for y, x in np.ndindex(image.shape):
        window = padded[y : y + outer, x : x + outer]
        for s in sizes:
            r = s // 2
            inner = np.zeros((outer, outer), bool)
            inner[reach - r : reach + r + 1, reach - r : reach + r + 1] = True
            difference = max(window[inner].mean() - window[~inner].mean(), 0) ** 2
            falls = []
            for ray in (
                window[reach, reach:],
                window[reach, reach::-1],
                window[reach:, reach],
                window[reach::-1, reach],
            ):
                falls.append(max(sum(ray[k] - ray[r + 1] for k in range(r + 1)), 0))
            response[y, x] = max(response[y, x], difference * min(falls))
    return response


@pytest.mark.parametrize("options", [{}, {"sizes": (1,)}, {"sizes": (5, 9), "outer": 11}], ids=["default", "1", "11"])
def test_equals_the_loops(options):
    images = np.random.default_rng(0).integers(0, 256, (2, 24, 30), np.uint8)
    images[1, 9:13, 11:14] = 255
    images[1, :3] = 40
    response = aadcdd(images, **options)
    chex.assert_shape(response, (2, 24, 30))
    chex.assert_type(response, np.float32)
    wanted = np.stack([reference(image / 255, **options) for image in images])
    assert wanted.max() > 0.01
    np.testing.assert_allclose(response, wanted, rtol=1e-4, atol=1e-8)


def test_of_a_pixel_and_a_square():
    images = np.full((2, 41, 41), 50, np.uint8)
    images[0, 20, 20] += 102
    images[1, 19:22, 19:22] += 102
    response = np.array(aadcdd(images))
    # 3x3 about the pixel: a mean of 0.4 / 9 above 0 outside, and a fall of 0.4 in each direction.
    assert response[0, 20, 20] == pytest.approx(0.4**3 / 81, rel=1e-5)
    assert np.count_nonzero(response[0]) == 1
    assert response[1, 20, 20] == pytest.approx(2 * 0.4**3, rel=1e-5)
    assert response[1].max() == response[1, 20, 20]


def test_lines_steps_and_dark_spots_give_nothing():
    images = np.full((4, 41, 41), 50, np.uint8)
    images[0, 20] = 200
    images[1, :, 20:22] = 200
    images[2, :, 20:] = 200
    images[3, 20, 20] = 0
    assert not np.asarray(aadcdd(images)).any()


def test_contrast_counts_to_the_third_power_and_level_not():
    first = np.random.default_rng(3).integers(0, 60, (1, 24, 30), np.uint8)
    np.testing.assert_allclose(aadcdd(first + np.uint8(100)), aadcdd(first), rtol=1e-4, atol=1e-9)
    np.testing.assert_allclose(aadcdd(first * np.uint8(3)), 27 * np.asarray(aadcdd(first)), rtol=1e-4, atol=1e-9)


def test_refuses_options():
    image = np.zeros((1, 8, 8), np.uint8)
    for sizes in ((), (4,), (3, 19)):
        with pytest.raises(ValueError, match="sizes must be odd numbers of at least 1 and below 19"):
            aadcdd(image, sizes=sizes)
    with pytest.raises(ValueError, match="outer must be odd"):
        aadcdd(image, outer=18)
