import numpy as np
import pytest

from irjax.ops.letterbox import letterbox_host, to_canvas
from irjax.training.data import Split
from irjax.training.points import score_points, to_original
from irjax.types import Batch, Detections

SIZES = ((40, 100), (64, 32))  # height, width: one is shrunk, one is not, on a canvas of 64
TRUTH = (np.array([[90.0, 5.0], [20.0, 30.0]], np.float32), np.array([[3.0, 60.0]], np.float32))


def split():
    images = np.stack([letterbox_host(np.full(size, 9, np.uint8), 64) for size in SIZES])
    points, mask = np.zeros((2, 2, 2), np.float32), np.zeros((2, 2), bool)
    return Split(Batch(images, points, mask, np.arange(2, dtype=np.int32)), ("a", "b"), TRUTH, SIZES)


def detections(shift=0.0):
    """All three targets, the last with a low score, and a false point in the first image."""
    first, second = (to_canvas(p + np.float32([shift, 0]), *s, 64) for p, s in zip(TRUTH, SIZES, strict=True))
    points = np.zeros((2, 3, 2), np.float32)
    points[0], points[1, 0] = [first[0], first[1], [32, 32]], second[0]
    scores = np.array([[0.9, 0.8, 0.3], [0.2, 0, 0]], np.float32)
    return Detections(points, scores, np.array([[True, True, True], [True, False, False]]))


def test_points_come_back_in_original_pixels():
    found = to_original(detections(), SIZES, 64)
    np.testing.assert_allclose(found[0].points[:2], TRUTH[0], atol=1e-4)
    np.testing.assert_allclose(found[1].points, TRUTH[1], atol=1e-4)
    assert len(found[0].points) == 3 and len(found[1].points) == 1


def test_score_counts_at_the_threshold_and_sweeps():
    values = score_points(detections(), split(), size=64, threshold=0.5)
    assert (values["tp"], values["fp"], values["fn"]) == (2, 0, 1)
    assert values["precision"] == 1 and values["recall"] == pytest.approx(2 / 3) and values["f1"] == pytest.approx(0.8)
    values = score_points(detections(), split(), size=64, threshold=0.1)
    assert (values["tp"], values["fp"], values["fn"]) == (3, 1, 0) and values["f1"] == pytest.approx(6 / 7)
    assert values["best_f1"] == pytest.approx(6 / 7) and values["best_threshold"] <= 0.2


def test_distance_is_measured_in_original_pixels():
    # 6 original pixels, beyond the limit of 5, are 3.8 on the canvas of the first image.
    values = score_points(detections(shift=6.0), split(), size=64, threshold=0.5)
    assert values["tp"] == 0


def test_nothing_found():
    empty = Detections(np.zeros((2, 3, 2), np.float32), np.zeros((2, 3), np.float32), np.zeros((2, 3), bool))
    values = score_points(empty, split(), size=64, threshold=0.5)
    assert (values["tp"], values["fp"], values["fn"]) == (0, 0, 3) and not values["f1"] > 0
