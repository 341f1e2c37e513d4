"""The published SPIRE weights on whole validation sets: minutes, so marked slow."""

import jax
import pytest

from irjax.data import open_source
from irjax.detector.loading import load
from irjax.evaluation.detectors import detect_source
from irjax.metrics import PointTruth, centroid_sweep


@pytest.fixture(autouse=True)
def _fast_programs():
    """They run longer than they compile."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("root", "split", "counts"),
    [
        ("SIRST-v2", "val_full", (141, 3, 3)),
        ("SIRST-v2", "val_v1", (70, 0, 1)),
        ("NUDT-SIRST", "trainval", (911, 0, 7)),
    ],
)
def test_counts_at_the_published_settings(shared, root, split, counts):
    pytest.importorskip("torch")
    detector = load(shared / "golden" / "SPIRE-SIRST4-512-epoch230-lr0.005.pth", max_detections=8)
    source = open_source(shared / "data" / root, split)
    found, _ = detect_source(detector, source)
    truths = [PointTruth(source[i].points, *source[i].image.shape) for i in range(len(source))]
    at = centroid_sweep([found[name] for name in source.names], truths, [0.35]).at(0)
    assert (at.tp, at.fp, at.fn) == pytest.approx(counts, abs=1)
