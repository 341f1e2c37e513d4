"""What limits cut or shrink is said; a limit that nobody asked for is raised."""

import warnings

import numpy as np
import pytest

from irjax.detector.limits import Limits
from irjax.errors import Note
from irjax.types import Detections


def targets(count):
    """A detector of `count` targets in every image; counts its runs."""
    limits = []

    def run(images, limit):
        limits.append(limit)
        valid = np.tile(np.arange(limit) < count, (len(images), 1))
        return Detections(np.zeros((*valid.shape, 2)), valid.astype(np.float32), valid)

    return run, limits


IMAGES = [np.zeros((20, 30), np.uint8)] * 2


@pytest.mark.parametrize(
    ("count", "runs"), [(31, [32]), (32, [32, 256]), (64, [32, 256]), (3000, [32, 256, 2048, 4096])]
)
def test_a_limit_that_nobody_asked_for_is_raised(count, runs):
    run, limits = targets(count)
    detect = Limits(run, 32, fixed=False)
    assert detect(IMAGES).valid.sum() == 2 * count and limits == runs
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        detect.tell()
    detect(IMAGES)
    assert limits[len(runs) :] == [limits[-1]]  # stays


def test_what_is_cut_is_counted():
    run, _ = targets(64)
    detect = Limits(run, 32, fixed=True)
    assert detect(IMAGES).valid.sum() == 64
    with pytest.warns(Note, match="2 images reached the limit of 32 detections and may hold more; --max-detections"):
        detect.tell()
    run, _ = targets(100)
    detect = Limits(run, 32, fixed=False, most=50)
    detect(IMAGES)
    with pytest.warns(Note, match="2 images reached the limit of 50 detections .*; --threshold leaves fewer"):
        detect.tell()


def test_what_is_shrunk_is_said():
    run, _ = targets(1)
    detect = Limits(run, 32, fixed=False, side=16)
    detect([np.zeros((16, 16), np.uint8), np.zeros((20, 40), np.uint8)])
    with pytest.warns(Note, match="1 images were scaled down to fit 16 pixels, by up to 2.5, .*--native keeps"):
        detect.tell()
