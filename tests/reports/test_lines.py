"""Curves are drawn as they are interpolated: what is drawn at an abscissa is what the number says there."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from irjax.errors import UsageError
from irjax.metrics import PointPredictions, PointTruth, centroid_sweep
from irjax.reports import curves, figures
from irjax.reports.lines import decades, detection_rates, on_log_axis, precision_recall_line, roc_line

# Two points of pixels, (1e-6, .2) and (1e-2, .8), between everything and nothing.
FALSE, TRUE = np.array([0, 1e-6, 1e-2, 1]), np.array([0, 0.2, 0.8, 1])


@pytest.fixture
def drawn(monkeypatch):
    """The axes of figures in place of their files."""
    found = []
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: found.append(figure.axes))
    return found


def at(line, x):
    """Ordinate of a drawn line, whose corners are joined by straight lines on the screen (logarithmic abscissa)."""
    return np.interp(np.log(x), np.log(line[0]), line[1])


def test_pixels_are_straight_on_linear_axes():
    line = on_log_axis(roc_line(FALSE, TRUE, "pixel"), 1e-8, 1)
    for x in (3e-8, 1e-7, 1e-5, 1e-3, 5e-3, 0.3):
        assert at(line, x) == pytest.approx(np.interp(x, FALSE, TRUE), abs=2e-3)
    # A straight line on the logarithmic axis would be at .5 in the middle of its two points, 1e-4.
    assert at(line, 1e-4) == pytest.approx(0.206, abs=1e-3)
    assert np.trapezoid(line[1], line[0]) == pytest.approx(np.trapezoid(TRUE, FALSE), rel=1e-3)


def test_targets_are_the_best_that_is_reached_with_so_few_false_alarms():
    false, true = np.array([2e-5, 0.0, 1e-5, 1e-4, np.nan]), np.array([0.9, 0.25, 0.5, 0.7, 0.3])
    line = roc_line(false, true, "target")
    rates = np.array([1e-9, 9e-6, 1e-5, 1.9e-5, 2e-5, 1e-4, 1])
    expected = [0.25, 0.25, 0.5, 0.5, 0.9, 0.9, 0.9]  # a lower threshold that finds less is not used
    np.testing.assert_array_equal(detection_rates(line, rates), expected)
    np.testing.assert_allclose(at(on_log_axis(line, 1e-9, 1), rates), expected)
    # Before the first point there is no rate.
    assert np.isnan(detection_rates(roc_line(false[2:3], true[2:3], "target"), np.array([9e-6])))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 12).flatmap(lambda n: st.tuples(*[arrays(float, n, elements=st.floats(0, 1))] * 2)))
def test_numbers_and_lines_agree(points):
    false, true = (np.round(part, 4) for part in points)
    rates = np.geomspace(1e-6, 1, 57)
    line = roc_line(false, true, "target")
    best = [max((t for f, t in zip(false, true, strict=True) if f <= rate), default=np.nan) for rate in rates]
    np.testing.assert_array_equal(detection_rates(line, rates), best)
    x, y = on_log_axis(line, 1e-6, 1)
    assert (np.diff(x) >= 0).all() and (np.diff(y) >= 0).all() and x[0] >= 1e-6 and x[-1] == 1
    np.testing.assert_array_equal(np.interp(rates, x, y, left=np.nan), best)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 31), st.floats(0.1, 1)), min_size=1, max_size=9))
def test_the_area_under_the_steps_is_the_average_precision(found):
    points = PointPredictions([(x, 5) for x, _ in found], [round(score, 1) for _, score in found])
    sweep = centroid_sweep([points], [PointTruth([(5, 5), (20, 5), (28, 5)], 32, 32)])
    recall, precision = precision_recall_line(sweep.recall, sweep.precision)
    assert np.trapezoid(precision, recall) == pytest.approx(sweep.average_precision)
    assert recall[0] == 0 and set(precision) <= set(sweep.precision)


def test_curves_of_nothing_have_no_line():
    nothing, nan = np.zeros(0), np.full(2, np.nan)
    for false, true in ((nothing, nothing), (nan, nan)):
        for level in ("target", "pixel"):
            line = roc_line(false, true, level)
            assert (
                np.isnan(detection_rates(line, np.array([1e-3, 1]))).all() and len(on_log_axis(line, 1e-3, 1)[0]) == 0
            )
        assert len(precision_recall_line(false, true)[0]) == 0
    assert decades(nothing) == (0.1, 1) and decades(np.array([0, 2e-6, 3e-4, np.nan])) == pytest.approx((1e-6, 1e-3))


def test_a_curve_on_a_page_lies_where_its_axes_say():
    truths = [PointTruth([(5, 5), (20, 20), (28, 8), (9, 28)], 32, 32)]
    points = [(5, 5), (20, 20), (28, 8), (15, 9), (2, 16), (29, 29), (9, 28)]
    sweep = centroid_sweep([PointPredictions(points, [0.9, 0.8, 0.5, 0.85, 0.6, 0.3, 0.2])], truths)
    figure = curves.figure_of(6, 4)
    axes = figure.add_subplot()
    curves.draw_precision_recall(axes, {"made": sweep}, {"made": 0.5})
    drawn = figures.inline_svg(figure, "chart", "", {"#0072b2": "blue"})
    paths = re.findall(r'<path d="M ([^"z]*)"[^>]*stroke: blue', drawn)
    path = max((np.array(found.replace("L", "").split(), float).reshape(-1, 2) for found in paths), key=len)
    line = precision_recall_line(sweep.recall, sweep.precision)
    expected = axes.transData.transform(np.stack(line, 1)) * [1, -1] / figure.dpi * 72 + [0, 4 * 72]
    assert len(path) >= 7
    for corner in path:  # those on a straight line are left out
        assert np.abs(expected - corner).max(axis=1).min() < 0.02


def test_markers_do_not_hide_a_curve(drawn):
    number = 200
    truths = [PointTruth([(x, 5) for x in range(0, 32, 4)], 32, 32)]
    points = np.random.default_rng(0).uniform(0, 31, (number, 2))
    sweep = centroid_sweep([PointPredictions(points, np.linspace(0.1, 0.9, number))], truths)
    few = centroid_sweep([PointPredictions(points[:9], np.linspace(0.1, 0.9, 9))], truths)
    curves.plot_roc("a.png", "many", sweep)
    curves.plot_roc("b.png", "few", few)
    curves.plot_precision_recall("c.png", {"many": sweep}, thresholds={"many": 0.5})
    curves.plot_threshold_curves("d.png", few, threshold=0.5)
    rings = [[line for line in axes[0].lines if line.get_marker() not in ("", "None")] for axes in drawn]
    assert [len(found) for found in rings] == [0, 1, 1, 1]
    assert all(line.get_markerfacecolor() == "none" for found in rings for line in found)


def test_pictures_have_one_of_three_endings(tmp_path):
    with pytest.raises(UsageError, match=r"must end in \.png, \.svg, \.pdf, got .*fig"):
        curves.plot_rocs(tmp_path / "fig", {"a": (FALSE, TRUE)}, "pixel")
    for ending in figures.PICTURES:
        curves.plot_rocs(tmp_path / f"a{ending}", {"a": (FALSE, TRUE)}, "pixel")
        assert (tmp_path / f"a{ending}").stat().st_size > 5000
    assert len(list(tmp_path.iterdir())) == 3
