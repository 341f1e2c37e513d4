import html.parser
import re
import xml.etree.ElementTree

import numpy as np
import pytest
from PIL import Image

from irjax.evaluation.evaluate import Options, evaluate_files, report_points
from irjax.metrics import PointPredictions
from irjax.reports import svg
from irjax.reports.events import FALSE, HIT, MISS, Event, Inset
from irjax.types import Example

EVIL = "a<script>alert(1)</script>&\"'"


class Page(html.parser.HTMLParser):
    """What a browser makes of a page: its tags, attributes and text; complains where tags do not close."""

    VOID = ("meta", "br", "input")

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += attributes

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """The page of three images: a hit and a false alarm, a miss, nothing; one has a name that is code."""
    folder = tmp_path_factory.mktemp("page")
    for name in ("truth/images", "truth/masks", "maps"):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, found in (("x", True), (EVIL.replace("/", "-"), False), ("empty", None)):
        mask, scores = np.zeros((40, 600), bool), rng.integers(0, 9, (40, 600)).astype(np.uint8)
        if found is not None:
            mask[10:13, 20:24] = True
        if found:
            scores[11:14, 21:24], scores[30, 500:503] = 220, 180
        for part, values in (
            ("truth/images", scores + 1),
            ("truth/masks", mask.astype(np.uint8) * 255),
            ("maps", scores),
        ):
            Image.fromarray(values).save(folder / part / f"{name}.png")
    options = Options(protocols=["irjax", "basicirstd"], html=folder / "r.html")
    evaluate_files(folder / "maps", folder / "truth", options=options, printer=lambda text: None)
    return (folder / "r.html").read_text()


def test_the_page_stands_alone(text):
    page = Page(text)
    for name, value in page.attributes:
        if name in ("src", "href", "xlink:href", "action", "data"):
            assert value.startswith("data:image/png;base64,"), value
    assert "link" not in page.tags and "iframe" not in page.tags
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    assert "url(" not in style and "@import" not in style and "//" not in re.sub(r'base64,[^"]*"', "", text)
    assert "prefers-color-scheme: dark" in style and "@media print" in style
    assert "default-src 'none'" in text and len(text) < 1_000_000


def test_names_cannot_be_code(text):
    page = Page(text)
    assert page.tags.count("script") == 1
    shown = EVIL.replace("/", "-")
    assert page.text.count(shown) == 2  # in the table of images and over its picture


def test_what_the_page_says(text):
    words = " ".join(" ".join(Page(text).text).split())
    for needed in (
        "3, with 2 targets on 72,000 pixels",
        "p > 0.5 at native size",
        "95 % percentile bootstrap intervals over the 3 images (1000 resamples, seed 0)",
        "basicirstd : Matching is greedy in raster order",
        "protocol irjax (optimal one-to-one, < 3 px), matched again at each threshold (p > t); n = 2 targets",
        "Fa (false pixels per pixel)",
        "n = 24 target and 71,976 background pixels",
        "All 3 images under protocol irjax",
        "1 target: 1 found, 0 missed; 1 false",
        "hit 0.86, 1.1 px off",
        "outline of the prediction",
    ):
        assert needed in words, needed


def test_every_figure_is_well_formed(text):
    figures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    kinds = [xml.etree.ElementTree.fromstring(figure).get("class") for figure in figures]
    # Four charts, two images with errors; two places in one of them and one in the other.
    assert [kinds.count(kind) for kind in ("chart", "whole", "cut", "surface")] == [4, 2, 3, 3]
    assert text.count("data:image/png;base64,") == 2 + 3
    assert "nan" not in "".join(figures)


def test_points_without_errors_still_have_a_page(tmp_path):
    class Scenes:
        names = ("a", "b")

        def __len__(self):
            return 2

        def __getitem__(self, index):
            image = np.random.default_rng(index).integers(0, 99, (30, 30)).astype(np.uint16)
            return Example(self.names[index], image, np.array([[9, 9]] * index, np.float32).reshape(-1, 2))

    found = {"b": PointPredictions([(9.5, 9)], [0.8])}
    report_points(found, Scenes(), html=tmp_path / "r.html", printer=lambda text: None)
    words = " ".join(Page((tmp_path / "r.html").read_text()).text)
    assert "No image has an error; these are the first with targets." in words and "the image's gray value" in words
    assert "ROC of pixels" not in words and "Over 1 distinct scores" in words


def paths(figure, name):
    root = xml.etree.ElementTree.fromstring(figure)
    return [element for element in root.iter() if element.get("class") == name]


def test_outlines_follow_pixel_edges():
    mask = np.zeros((5, 6), bool)
    mask[1:3, 2:5] = True
    edges = sorted(re.findall(r"M(-?[\d.]+) (-?[\d.]+)([hv])(\d+)", svg.outline_path(mask)))
    assert edges == [
        ("1.5", "0.5", "h", "3"),
        ("1.5", "0.5", "v", "2"),
        ("1.5", "2.5", "h", "3"),
        ("4.5", "0.5", "v", "2"),
    ]
    assert svg.outline_path(np.zeros((4, 4), bool)) == "" and svg.outline_path(np.ones((2, 2), bool)).count("M") == 4


def test_charts_place_values_where_axes_say():
    x, y = svg.Axis("t", 0, 2), svg.log_axis("Fa", [0, 2e-6, 3e-4, np.nan])
    assert (y.low, y.high) == (1e-6, 1e-3) and y.ticks()[0] == (1e-6, "1e-6")
    assert x.place(0.5) == 0.25 and y.place(1e-5) == pytest.approx(1 / 3) and y.place(0) == 0
    chart = svg.chart(x, y, [svg.Series("a", [0, 1, 2], [1e-3, np.nan, 1e-6])], description="<d>")
    (path,) = (e for e in paths(chart, "c0") if e.get("d"))
    # The gap of nan breaks the line; the ends lie in the corners of the frame.
    assert path.get("d") == "M58.0 14.0M446.0 284.0" and "&lt;d&gt;" in chart


def test_a_logarithmic_axis_of_nothing():
    axis = svg.log_axis("Fa", [0.0, np.nan])
    assert axis.low < axis.high and axis.ticks()


def test_the_legend_keeps_off_the_curves():
    axis = svg.Axis("x")
    rising = svg.chart(axis, axis, [svg.Series("a", [0, 1], [0.08, 0.08])], description="")
    falling = svg.chart(axis, axis, [svg.Series("a", [0, 1], [0.92, 0.92])], description="")
    assert float(paths(rising, "legend")[0].get("y")) < 100 < float(paths(falling, "legend")[0].get("y"))


def test_large_images_keep_their_targets():
    image = np.zeros((1100, 700), np.uint16)
    image[601, 333] = 1000
    figure = svg.whole(image, [Event(HIT, 333, 601)], [Inset(320, 590, 25, ())], largest=512)
    data = re.search(r'href="data:image/png;base64,([^"]+)"', figure)[1]
    import base64
    import io

    with Image.open(io.BytesIO(base64.b64decode(data))) as shown:
        assert shown.size == (234, 367)
        values = np.asarray(shown)
    assert np.argwhere(values == 255).tolist() == [[200, 111]]


def test_markers_differ_in_shape():
    shapes = {svg.marker(Event(kind, 5, 5), 2).split('d="')[1] for kind in (HIT, MISS, FALSE)}
    assert len(shapes) == 3


def test_a_surface_is_high_where_the_values_are():
    values = np.zeros((9, 9))
    values[4, 4] = 1
    figure = svg.surface(values, left=10, top=20, low=0, high=1, unit="p")
    assert "x 10 to 18" in figure and "y 20 to 28" in figure
    quads = [e for e in xml.etree.ElementTree.fromstring(figure).iter() if e.get("fill", "").startswith("#")]
    # The floor, and the four faces around the peak.
    assert len(quads) == 5 and len({e.get("fill") for e in quads}) == 2
