import numpy as np
import pytest

from irjax.methods.score_points import score_points
from irjax.ops.letterbox import to_canvas
from irjax.types import Detections, Example

SIZES = ((40, 100), (64, 32))  # height, width: one is shrunk, one is not, on a canvas of 64
TRUTH = (np.array([[90.0, 5.0], [20.0, 30.0]], np.float32), np.array([[3.0, 60.0]], np.float32))


def found(shift=0.0, valid=True):
    """All three targets, the last with a low score, and a false point in the first image; each on its canvas."""
    first, second = (to_canvas(p + np.float32([shift, 0]), *s, 64) for p, s in zip(TRUTH, SIZES, strict=True))
    points, scores = np.zeros((2, 1, 3, 2), np.float32), np.array([[[0.9, 0.8, 0.3]], [[0.2, 0, 0]]], np.float32)
    points[0, 0], points[1, 0, 0] = [first[0], first[1], [32, 32]], second[0]
    for index, size in enumerate(SIZES):
        example = Example("ab"[index], np.full(size, 9, np.uint8), TRUTH[index])
        yield example, Detections(points[index], scores[index], (scores[index] > 0) & valid)


def test_score_counts_at_the_threshold_and_sweeps():
    values = score_points(found(), size=64, threshold=0.5)
    assert (values["tp"], values["fp"], values["fn"]) == (2, 0, 1)
    assert values["precision"] == 1 and values["recall"] == pytest.approx(2 / 3) and values["f1"] == pytest.approx(0.8)
    values = score_points(found(), size=64, threshold=0.1)
    assert (values["tp"], values["fp"], values["fn"]) == (3, 1, 0) and values["f1"] == pytest.approx(6 / 7)
    assert values["best_f1"] == pytest.approx(6 / 7) and values["best_threshold"] <= 0.2


@pytest.mark.parametrize("shift, matched", [(4.9, 2), (6.0, 0)])
def test_distance_is_measured_in_original_pixels(shift, matched):
    # 6 original pixels, beyond the limit of 5, are 3.8 on the canvas of the first image.
    assert score_points(found(shift), size=64, threshold=0.5)["tp"] == matched


def test_nothing_found():
    values = score_points(found(valid=False), size=64, threshold=0.5)
    assert (values["tp"], values["fp"], values["fn"]) == (0, 0, 3) and not values["f1"] > 0
