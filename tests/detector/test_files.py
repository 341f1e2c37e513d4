"""Maps as files: which side of a threshold a pixel is on survives."""

import numpy as np
import pytest
from PIL import Image

from irjax.io.maps import find_maps, write_map
from irjax.metrics.inputs import predicted_mask


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.35, 0.5, 0.6, 0.999, 1.0])
def test_pixels_of_written_maps_stay_on_their_side_of_the_threshold(tmp_path, threshold):
    p = np.random.default_rng(0).random((512, 512), np.float32)
    cut = np.float32(threshold)
    p[0, :5] = 0, 1, cut, np.nextafter(cut, np.float32(0)), min(np.nextafter(cut, np.float32(1)), 1)
    write_map(tmp_path / "masks" / "a.png", p, threshold)
    (read,) = find_maps(tmp_path / "masks")
    np.testing.assert_array_equal(predicted_mask(read, threshold), p > cut)
    assert np.abs(read - p).max() <= 1 / 255
    with Image.open(tmp_path / "masks" / "a.png") as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(predicted_mask(np.asarray(image), threshold), p > cut)


def test_half_is_between_127_and_128(tmp_path):
    write_map(tmp_path / "a.png", np.array([[0.5, 0.501, 0.4999, 1.0]], np.float32))
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "a.png")), [[127, 128, 127, 255]])
