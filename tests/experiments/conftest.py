"""What the tests of several experiments share."""

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def two_images(tmp_path):
    """A data set of an image smaller and one wider than 64x64, with a target each."""
    data = tmp_path / "data"
    for kind in ("images", "masks"):
        (data / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, shape in (("small", (60, 64)), ("wide", (64, 100))):
        image, mask = rng.integers(0, 200, shape, np.uint8), np.zeros(shape, np.uint8)
        mask[20:23, 30:33] = 255
        Image.fromarray(image).save(data / "images" / f"{name}.png")
        Image.fromarray(mask).save(data / "masks" / f"{name}.png")
    return data
