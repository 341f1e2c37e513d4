import numpy as np
import pytest
from PIL import Image

from irjax.metrics import PointPredictions, PointTruth, centroid_sweep, score_histogram
from irjax.reports import events
from irjax.reports.curves import plot_precision_recall, plot_roc, plot_threshold_curves
from irjax.reports.overlays import draw_overlay


def has_colour(path, colour, least=20):
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    return (np.abs(pixels - wanted).max(axis=-1) < 12).sum() >= least


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_hits_misses_and_false_detections_have_their_colours(tmp_path, dtype):
    image = (np.random.default_rng(0).random((60, 90)) * 200).astype(dtype)
    predictions = PointPredictions([(10, 10), (80, 50), (0, 59)], [0.9, 0.8, 0.7])
    draw_overlay(tmp_path / "o.png", image, predictions, [(11, 12), (45, 30)], title="a")
    for kind in (events.HIT, events.FALSE, events.MISS):
        assert has_colour(tmp_path / "o.png", kind.colour)
    draw_overlay(tmp_path / "p.png", np.stack([image] * 3, -1), predictions)
    assert has_colour(tmp_path / "p.png", events.FOUND.colour)
    assert not has_colour(tmp_path / "p.png", events.MISS.colour, least=1)


def test_nothing_to_show_and_too_much(tmp_path):
    flat = np.zeros((20, 16), np.uint8)
    draw_overlay(tmp_path / "empty.png", flat, PointPredictions([]), [])
    many = PointPredictions(np.random.default_rng(0).uniform(0, 400, (40, 2)))
    draw_overlay(tmp_path / "many.png", np.zeros((400, 400), np.uint8), many, [(5, 5)], insets=4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.png", "many.png"]
    with pytest.raises(ValueError, match="an overlay needs an image"):
        draw_overlay(tmp_path / "x.png", np.zeros(4), many)


def test_events_and_insets():
    predictions = PointPredictions([(10, 10), (80, 50), (12, 10)], [0.5, 0.8, 0.9])
    found = events.find_events(predictions, np.array([(10.0, 10.0), (45.0, 30.0)]), 5.0)
    assert [event.kind.label for event in found] == ["missed target", "false detection", "false detection", "hit"]
    insets = events.find_insets(found, (60, 90), 33)
    assert [inset.caption() for inset in insets] == ["missed", "false 0.90; hit 0.50, 0.0 px off", "false 0.80"]


def test_curves(tmp_path):
    truths = [PointTruth([(1, 1), (20, 20)], 32, 32)]
    predictions = [PointPredictions([(1, 1), (20, 20), (9, 9)], [0.9, 0.5, 0.7])]
    sweep = centroid_sweep(predictions, truths, [0.4, 0.6, 0.8])
    plot_precision_recall(tmp_path / "pr.png", {"a": centroid_sweep(predictions, truths)}, thresholds={"a": 0.6})
    plot_threshold_curves(tmp_path / "t.png", sweep, threshold=0.6)
    plot_roc(tmp_path / "targets.png", "a", sweep)
    scores = np.random.default_rng(0).random((32, 32))
    plot_roc(tmp_path / "roc.png", "a", sweep, score_histogram(scores, scores > 0.7))
    width = {}
    for name in ("pr.png", "t.png", "targets.png", "roc.png"):
        with Image.open(tmp_path / name) as picture:
            width[name] = picture.size[0]
        assert has_colour(tmp_path / name, "#0072B2")
    assert width["roc.png"] > 1.5 * width["targets.png"]  # pixels stand beside targets


def test_curves_of_nothing(tmp_path):
    empty = centroid_sweep([PointPredictions([])], [PointTruth([], 8, 8)], [0.5])
    plot_precision_recall(tmp_path / "pr.svg", {"a": empty}, thresholds={"a": 0.5})
    plot_threshold_curves(tmp_path / "t.svg", empty, threshold=0.5)
    nothing = np.zeros((8, 8))
    plot_roc(tmp_path / "roc.svg", "a", empty, score_histogram(nothing, nothing))
    assert {path.name for path in tmp_path.iterdir()} == {"pr.svg", "t.svg", "roc.svg"}


def test_captions_of_several_events():
    predictions = PointPredictions([(10, 10), (14, 10), (18, 10), (22, 10)], [0.5, 0.8, 0.9, 0.4])
    found = events.find_events(predictions, np.array([(10.0, 10.0), (18.0, 11.0)]), 3.0)
    (inset,) = events.find_insets(found, (60, 90), 33)
    assert inset.caption() == "2 false up to 0.80; 2 hit from 0.50, up to 1.0 px off"
    # Exactly at the limit: a match only where the protocol says so.
    near = PointPredictions([(10, 10)])
    for inclusive, kind in ((True, events.HIT), (False, events.MISS)):
        assert events.find_events(near, np.array([(13.0, 10.0)]), 3.0, inclusive=inclusive)[0].kind is kind


@pytest.mark.parametrize("name", ["a$\\x$b.png", "$", "a_1^2.png", "\udc80.png", "目标.png", "100%.png"])
def test_names_of_any_letters_are_titles(tmp_path, name):
    found = PointPredictions([(8, 8)], [0.9])
    draw_overlay(tmp_path / "a.png", np.zeros((20, 24), np.uint8), found, title=name)
    assert (tmp_path / "a.png").stat().st_size > 1000
