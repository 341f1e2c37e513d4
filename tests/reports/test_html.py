import base64
import html.parser
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree

import numpy as np
import pytest
from PIL import Image

from irjax.evaluation.evaluate import Options, evaluate_files, report_points
from irjax.metrics import PointPredictions
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
            assert value.startswith(("data:image/png;base64,", "#")), value
    assert "link" not in page.tags and "iframe" not in page.tags
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    assert "url(" not in style and set(re.findall(r"url[(](.)", text)) == {"#"}
    assert "@import" not in style and "://" not in text
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
    assert [kinds.count(kind) for kind in ("chart", "sample", "whole", "cut")] == [4, 6, 2, 3]
    assert text.count("data:image/png;base64,") == 2 + 3
    assert "nan" not in re.sub('base64,[^"]*', "", "".join(figures))


def test_charts_follow_the_dark_mode(text):
    charts = re.findall(r'<svg class="chart.*?</svg>', text, re.DOTALL)
    assert len(charts) == 4
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    for chart in charts:
        assert not re.search(r"(stroke|fill): #", chart)
        assert (
            {"--ink", "--line", "--c0"}
            <= set(re.findall(r"var[(](--\w+)[)]", chart))
            <= set(re.findall(r"--\w+", style))
        )
    assert "AP 0." in charts[0] and "at threshold 0.5" in charts[0] and "font-family" not in charts[0]


def test_surfaces_hold_the_response(text):
    surfaces = [dict(found) for found in _canvases(text)]
    assert len(surfaces) == 3
    (said,) = (found for found in surfaces if found["aria-label"] == "p as a surface, highest 0.863")
    first = json.loads(said["data-surface"])
    levels = np.frombuffer(base64.b64decode(first["values"]), np.uint8).reshape(first["height"], first["width"])
    assert (first["low"], first["high"], first["unit"]) == (0.0, 1.0, "p")
    whole = np.pad(levels, ((first["top"], 40 - first["top"] - len(levels)), (0, 0)))
    columns = np.arange(first["left"], first["left"] + first["width"])
    # Map values are of 8 bits already, so nothing is lost: 220 at x 21 to 23, y 11 to 13.
    assert (whole[11:14, (columns >= 21) & (columns < 24)] == 220).all() and levels.max() == 220


def _canvases(text):
    found = []

    class Canvases(html.parser.HTMLParser):
        def handle_starttag(self, tag, attributes):
            if tag == "canvas":
                found.append(attributes)

    Canvases().feed(text)
    return found


def test_surfaces_are_drawn_and_turned(text, tmp_path):
    """In Chromium: every canvas has colours of high and low values, and others after it was turned."""
    if shutil.which("chromium") is None:
        pytest.skip("needs chromium")
    seen = """<script>
    const seen = canvas => {
      const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      let low = 0, high = 0, sum = 0;
      for (let i = 0; i < data.length; i += 4) {
        low += data[i] < 80 && data[i + 2] > 80 && data[i + 3] === 255;
        high += data[i] > 100 && data[i + 1] > 180 && data[i + 2] < 110;
        sum = (31 * sum + data[i]) % 1000003;
      }
      return [low, high, sum];
    };
    setTimeout(() => {
      const canvas = document.querySelector("canvas.surface"), before = seen(canvas);
      canvas.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowLeft"}));
      const every = [...document.querySelectorAll("canvas.surface")].map(seen);
      document.title = JSON.stringify([before, seen(canvas), every]);
    }, 300);
    </script></body>"""
    (tmp_path / "page.html").write_text(text.replace("</body>", seen))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += [
        "--disable-component-update",
        "--disable-sync",
        "--no-first-run",
        f"--user-data-dir={tmp_path / 'user'}",
    ]
    command += ["--virtual-time-budget=3000", "--dump-dom", (tmp_path / "page.html").as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    before, after, every = json.loads(re.search("<title>(.*?)</title>", shown)[1])
    assert before[0] > 500 and after != before and after[0] > 500
    assert all(low > 500 for low, _, _ in every) and max(high for _, high, _ in every) > 5  # floors, and a peak


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
