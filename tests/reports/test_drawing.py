"""What pictures and pages share: images reduced without losing targets, outlines along pixels, text of SVG."""

import base64
import io
import re
import xml.etree.ElementTree

import numpy as np
import pytest
from PIL import Image

from irjax.reports.curves import figure_of
from irjax.reports.drawing import draw_event, draw_inset, draw_whole, outline_path
from irjax.reports.events import FALSE, HIT, MISS, Event, Inset
from irjax.reports.figures import inline_svg


def bare(width=3.0, height=3.0):
    figure = figure_of(width, height)
    figure.set_layout_engine("none")
    return figure, figure.add_axes((0, 0, 1, 1))


def pictures(figure):
    for data in re.findall(r'href="data:image/png;base64,([^"]+)"', figure):
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            assert picture.mode == "L"
            yield np.asarray(picture)


def test_outlines_follow_pixel_edges():
    mask = np.zeros((5, 6), bool)
    mask[1:3, 2:5] = True
    corners = outline_path(mask).vertices.reshape(-1, 2, 2).tolist()
    assert sorted(corners) == [
        [[1.5, 0.5], [1.5, 2.5]],
        [[1.5, 0.5], [4.5, 0.5]],
        [[1.5, 2.5], [4.5, 2.5]],
        [[4.5, 0.5], [4.5, 2.5]],
    ]
    assert outline_path(np.zeros((4, 4), bool)) is None and len(outline_path(np.ones((2, 2), bool)).vertices) == 8


def test_large_images_keep_their_targets():
    image = np.zeros((1100, 700), np.uint16)
    image[601, 333] = 1000
    figure, axes = bare()
    draw_whole(axes, image, [Event(HIT, 333, 601)], [Inset(320, 590, 25, ())], largest=512)
    (values,) = pictures(inline_svg(figure, "whole", ""))
    assert values.shape == (367, 234)
    assert np.argwhere(values == 255).tolist() == [[200, 111]]
    assert axes.images[0].get_extent() == [-0.5, 234 * 3 - 0.5, 367 * 3 - 0.5, -0.5]


def test_a_cut_out_holds_its_pixels():
    image = np.arange(40 * 50, dtype=np.float64).reshape(40, 50)
    figure, axes = bare()
    draw_inset(axes, image, Inset(10, 5, 25, ()), np.array([[100.0, 5.0]]), 3.0)
    (values,) = pictures(inline_svg(figure, "cut", ""))
    part = image[5:30, 10:35]
    low, high = np.percentile(part, (0.5, 100))
    np.testing.assert_allclose(values, 255 * np.clip((part - low) / (high - low), 0, 1), atol=2)
    assert not axes.patches  # the point is beyond it


def test_markers_differ_in_shape():
    shapes = set()
    for kind in (HIT, MISS, FALSE):
        figure, axes = bare()
        axes.axis("off")
        draw_event(axes, Event(kind, 0.5, 0.5), 9)
        root = xml.etree.ElementTree.fromstring(inline_svg(figure, "sample", "<d>"))
        assert root.get("aria-label") == "<d>"
        shapes.add(next(e.get("d") for e in root.iter("path") if e.get("id")))
    assert len(shapes) == 3


@pytest.mark.parametrize("text", ["a$b_0.12345", "<script>x</script>", "#000000 0.98765", "\udc80"])
def test_text_of_a_figure_stays_as_it_is(text):
    figure, axes = bare()
    axes.set_xlabel(text)
    axes.plot([0, 1], color="#0072B2")
    drawn = inline_svg(figure, "chart", "d", {"#000000": "var(--ink)", "#0072b2": "var(--c0)"})
    root = xml.etree.ElementTree.fromstring(drawn)
    assert text.encode("utf-8", "replace").decode() in [element.text for element in root.iter("text")]
    assert "stroke: var(--c0)" in drawn and "<script" not in drawn
    assert drawn == inline_svg(figure, "chart", "d", {"#000000": "var(--ink)", "#0072b2": "var(--c0)"})
    # Every name is used, and every used name is there.
    names = {e.get("id") for e in root.iter()} - {None}
    assert names == set(re.findall(r"(?:url\(|href=\")#([\w-]+)", drawn))
