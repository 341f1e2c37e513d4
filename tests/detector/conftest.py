"""A tiny detector of every kind, with random weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from irjax.detector import weights
from irjax.detector.detector import Detector, DetectorConfig

_MASKS = {"size": 64, "threshold": 0.5, "max_detections": 4}
CONFIGS = {
    "spire": DetectorConfig(method="spire", model={"width": 32}, size=64, threshold=0.01, max_detections=4),
    "spire windows": DetectorConfig(
        method="spire", model={"width": 32}, size=64, threshold=0.01, max_detections=4, slide=True, enlarge=False
    ),
    "mshnet": DetectorConfig(method="mshnet", model={"widths": [4, 8, 8], "depths": [1, 1, 1]}, **_MASKS),
    "mshnet windows": DetectorConfig(
        method="mshnet", model={"widths": [4, 8, 8], "depths": [1, 1, 1]}, slide=True, enlarge=False, **_MASKS
    ),
    "adsnet": DetectorConfig(
        method="adsnet", model={"width": 16, "widths": [8, 8, 8]}, slide=True, enlarge=False, **_MASKS
    ),
    "na_irstd": DetectorConfig(
        method="na_irstd",
        model={
            "native_width": 4,
            "widths": [16] * 4,
            "depths": [0] * 4,
            "decoder_width": 16,
            "decoder_hidden": 16,
            "selected": 4,  # all of a window: which of two equal patches is selected, rounding decides
        },
        slide=True,
        enlarge=False,
        **_MASKS,
    ),
}


@functools.cache
def _detector_of(name):
    config = CONFIGS[name]
    images = jnp.zeros((1, config.size, config.size, config.channels))
    variables = jax.jit(functools.partial(config.module().init, train=False))(jax.random.key(0), images)
    return Detector(config, variables)


def _noise(*shape):
    return np.random.default_rng(sum(shape)).random(shape, np.float32)


@pytest.fixture(params=CONFIGS)
def tiny_detector(request):
    """Each of the tiny detectors."""
    return _detector_of(request.param)


@pytest.fixture
def detector_of():
    """``detector_of(name) -> Detector``."""
    return _detector_of


@pytest.fixture
def weights_of(tmp_path):
    """``weights_of(name) -> file`` of a tiny detector's weights."""

    def save(name):
        detector, card = _detector_of(name), dict.fromkeys(weights.CARD_FIELDS, "none")
        return weights.save_weights(tmp_path / "mine.safetensors", detector.variables, detector.config, card)

    return save


@pytest.fixture
def between_scores():
    """``between_scores(detector, images) -> threshold``: between the scores of noise; of masks their own."""

    def threshold(detector, images):
        if detector.config.method != "spire":
            return detector.config.threshold
        return float(np.mean(np.sort(detector(images).scores[0])[-2:]))

    return threshold


@pytest.fixture
def noise():
    """``noise(*shape) -> images`` float32 in [0, 1]."""
    return _noise
