"""Responses of detectors to an image, which are decoded at any threshold."""

import chex
import numpy as np
import pytest

from irjax.detector.canvases import _at_pixels
from irjax.detector.named import open_named, share_threshold
from irjax.errors import UserError


def test_every_detector_responds_at_every_pixel(tiny_detector):
    image = np.random.default_rng(0).random((90, 70), np.float32)
    response = tiny_detector.respond(image)
    chex.assert_shape(response.values, image.shape)
    for threshold in (tiny_detector.config.threshold, float(np.quantile(response.values, 0.9))):
        found, wanted = response.detections(threshold), tiny_detector(image, threshold=threshold)
        count = int(wanted.valid.sum())
        # The same ones first; the limit of the call is lower.
        np.testing.assert_allclose(found.points[0, :count], wanted.points[0, :count], atol=1e-4)
        np.testing.assert_allclose(found.scores[0, :count], wanted.scores[0, :count], atol=1e-6)
        assert found.valid.sum() >= count


def test_a_cell_lies_at_its_corner_pixel():
    heatmap = np.zeros((5, 6), np.float32)
    heatmap[2, 3] = 1.0
    values = _at_pixels(heatmap, 4)
    chex.assert_shape(values, (20, 24))
    assert np.unravel_index(values.argmax(), values.shape) == (8, 12)
    np.testing.assert_allclose(values[8, 8:17], [0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25, 0])


@pytest.mark.parametrize("name", ["tophat", "lef"])
def test_a_filter_is_decoded_at_a_share_of_its_maximum(name):
    image = np.zeros((40, 48), np.float32)
    image[10:12, 20:22], image[30:32, 8:10] = 1.0, 0.45
    model = open_named(name)
    response = model.respond(image)
    chex.assert_shape(response.values, image.shape)
    wanted = model.run([image], 8)
    found = response.detections(0.5)
    count = int(wanted.valid.sum())
    np.testing.assert_allclose(found.points[0, :count], wanted.points[0, :count], atol=1e-5)
    assert share_threshold(response.values, 0.0) == pytest.approx(response.values.mean(), abs=1e-6)
    assert found.valid.sum() <= response.detections(0.2).valid.sum()
    with pytest.raises(UserError):
        model.respond(np.full((40, 48), np.nan, np.float32))
