"""docs/browser: what its functions compute under Node, and its page in Chromium, against the same in Python."""

import csv
import dataclasses
import functools
import html.parser
import http.server
import io
import json
import pathlib
import shutil
import subprocess
import threading
import urllib.parse

import numpy as np
import pytest
from PIL import Image

import irjax
from irjax.data.synthetic import SceneConfig, SyntheticSource
from irjax.detector.onnx import OnnxDetector, to_onnx
from irjax.io.images import to_gray
from irjax.methods.detector_config import DetectorConfig
from irjax.ops.letterbox import letterbox_host, unletterbox_host
from irjax.ops.peaks import decode_heatmap
from irjax.ops.windows import cut_windows, join_windows

FOLDER = pathlib.Path(__file__).resolve().parents[1] / "docs" / "browser"
CELL = {"spire": 4, "mshnet": 1}

# Calls functions of detect.js: [name, arguments] in, results out; typed arrays are {"type", "data"}.
CALLER = """
import fs from "node:fs";
const detect = await import(process.argv[1]);
const typed = (_, value) => (value?.type ? globalThis[value.type].from(value.data) : value);
const plain = (_, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value);
const results = JSON.parse(fs.readFileSync(0, "utf8"), typed).map(([name, args]) => {
  try {
    return detect[name](...args);
  } catch (error) {
    return { error: error.message };
  }
});
process.stdout.write(JSON.stringify(results, plain));
"""


def call(*calls):
    """Returns the results of calls (name, *arguments) of detect.js."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    text = json.dumps([[name, arguments] for name, *arguments in calls], default=_typed)
    command = [node, "--input-type=module", "-e", CALLER, (FOLDER / "detect.js").as_uri()]
    return json.loads(subprocess.run(command, input=text, stdout=subprocess.PIPE, text=True, check=True).stdout)


def _typed(value):
    if isinstance(value, bytes):
        return {"type": "Uint8Array", "data": list(value)}
    kind = {"uint8": "Uint8Array", "float32": "Float32Array"}[value.dtype.name]
    flat = {"type": kind, "data": value.ravel().tolist()}
    return flat if value.ndim == 1 else {"height": value.shape[0], "width": value.shape[1], "data": flat}


def array(result, dtype=np.float32):
    return np.array(result["data"], np.float64).astype(dtype).reshape(result["height"], result["width"])


def points(result):
    return np.array([[one["x"], one["y"], one["score"]] for one in result], np.float32).reshape(-1, 3)


def found_in(detections, number=0):
    """Returns the valid rows (x, y, score) of an image of Python's detections."""
    rows = np.concatenate([detections.points, detections.scores[..., None]], axis=-1)
    return np.asarray(rows)[number][np.asarray(detections.valid)[number]]


def test_gray():
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (40, 50, 4), dtype=np.uint8)
    colours[:4] = colours[:4, :, :1]  # gray
    r, g, b = np.indices((256, 256, 8)).reshape(3, -1)
    halves = np.stack([r, g, b, b], axis=1)[(299 * r + 587 * g + 114 * b) % 1000 == 500].astype(np.uint8)
    assert len(halves) > 100
    for pixels in (colours, halves[None]):
        (gray,) = call(("toGray", pixels.ravel(), *pixels.shape[:2]))
        np.testing.assert_array_equal(array(gray), to_gray(pixels))


SIZES = [(64, 64), (16, 200), (50, 33), (65, 64), (130, 201), (17, 16)]


@pytest.mark.parametrize("enlarge", [True, False])
def test_letterbox_and_back(enlarge):
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, size, dtype=np.uint8) for size in SIZES]
    for image, canvas in zip(images, call(*(("letterbox", image, 64, enlarge) for image in images)), strict=True):
        np.testing.assert_array_equal(array(canvas), letterbox_host(image, 64, enlarge))
    maps = [rng.random((64, 64), np.float32) for _ in SIZES]
    back = call(*(("unletterbox", one, *size, enlarge) for one, size in zip(maps, SIZES, strict=True)))
    for one, size, result in zip(maps, SIZES, back, strict=True):
        np.testing.assert_array_equal(array(result), unletterbox_host(one, *size, enlarge))


@pytest.mark.parametrize(("size", "overlap", "step"), [(64, 16, 1), (32, 8, 4), (48, 0, 4)])
def test_windows_and_back(size, overlap, step):
    rng = np.random.default_rng(2)
    images = [rng.integers(0, 256, shape, dtype=np.uint8) for shape in SIZES]
    cut = call(*(("cutWindows", image, size, overlap, step) for image in images))
    calls, wanted = [], []
    for image, windows in zip(images, cut, strict=True):
        np.testing.assert_array_equal([array(one) for one in windows], cut_windows(image, size, overlap, step))
        maps = rng.random((len(windows), size // step, size // step), np.float32)
        cells = [-(-length // step) for length in image.shape]
        calls.append(("joinWindows", list(maps), *cells, overlap // step))
        wanted.append(join_windows(maps, *cells, overlap // step))
    for whole, expected in zip(call(*calls), wanted, strict=True):
        np.testing.assert_array_equal(array(whole), expected)


@pytest.mark.parametrize("levels", [5, 12, 1 << 20])
@pytest.mark.parametrize(("most", "relative"), [(200, None), (7, None), (200, 0.3)])
def test_heatmaps(levels, most, relative):
    """Few levels make plateaus, at borders too."""
    rng = np.random.default_rng(levels)
    maps = (rng.integers(0, levels, (6, 18, 23)) / (levels - 1)).astype(np.float32)
    maps[1, 5:9, 3:20] = 1
    maps[2] = 0.5
    maps[3] = 0
    options = {"threshold": 0.35, "most": most, "stride": 4, "relative": relative}
    results = call(*(("decodeHeatmap", one, options) for one in maps))
    wanted = decode_heatmap(maps, threshold=0.35, max_detections=most, relative_threshold=relative)
    for number, result in enumerate(results):
        np.testing.assert_array_equal(points(result), found_in(wanted, number))


@dataclasses.dataclass(frozen=True)
class Pooled:
    """In place of a network: the canvas, smoothed, as a map of cells."""

    cell: int

    def __call__(self, canvases):
        smooth = sum(np.roll(canvases, (y, x), (1, 2)) for y in (-1, 0, 1) for x in (-1, 0, 1)) / np.float32(9)
        return smooth[:, :: self.cell, :: self.cell].astype(np.float32)


@pytest.mark.parametrize("mode", ["enlarge", "slide", ""])
@pytest.mark.parametrize("method", CELL)
def test_whole_images(method, mode):
    cell = CELL[method]
    modes = {"enlarge": mode == "enlarge", "slide": mode == "slide"}
    config = DetectorConfig(method, size=64, threshold=0.6, max_detections=20, **modes)
    detector = OnnxDetector(config, Pooled(cell))
    rng = np.random.default_rng(3)
    images = [rng.integers(0, 256, size, dtype=np.uint8) for size in SIZES]
    options = {**json.loads(config.to_json()), "cell": cell}
    calls = []
    for image, canvases in zip(images, call(*(("canvasesOf", image, options) for image in images)), strict=True):
        canvases = np.array(canvases, np.float32).reshape(-1, 64, 64)
        np.testing.assert_array_equal(canvases, [canvas for canvas, _, _ in detector.pieces(image)])
        calls.append(("mapOf", [one.ravel() for one in detector.maps(canvases)], *image.shape, options))
    maps = [array(one) for one in call(*calls)]
    found = call(*(("detectionsOf", one, *image.shape, options) for one, image in zip(maps, images, strict=True)))
    assert sum(map(len, found)) > 20
    for image, one, result in zip(images, maps, found, strict=True):
        wanted = detector([image])
        # XLA rounds the division by the letterbox's scale differently.
        np.testing.assert_allclose(points(result), found_in(wanted), rtol=1e-6, atol=0)
        if cell == 1:
            np.testing.assert_array_equal(one, wanted.masks[0])


# --- files ------------------------------------------------------------------------------------------------------------


def field(number, value):
    """Encodes a field of a protobuf message."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value):
    return bytes([value & 127 | 128 * (value > 127)]) + (_varint(value >> 7) if value > 127 else b"")


def model_file(key, text, graph=b"nodes " * 100):
    entries = [field(1, b"other") + field(2, b"{}"), field(1, key) + field(2, text.encode())]
    fixed = _varint(30 << 3 | 1) + bytes(8) + _varint(31 << 3 | 5) + bytes(4)
    return field(1, 10) + fixed + field(7, graph) + b"".join(field(14, entry) for entry in entries)


def test_the_configuration_in_a_model():
    config = {**json.loads(DetectorConfig("mshnet").to_json()), "cell": 1, "name": "η"}
    text = json.dumps(config, ensure_ascii=False)
    good = model_file(b"irjax", text)
    none = "it is not an ONNX model"
    bare = "it has no metadata “irjax”; write it with: irjax export NAME --to onnx"
    cases = [
        (good, config),
        (model_file(b"irjax", text, b""), config),
        (
            model_file(b"else", text),
            {"error": bare},
        ),
        (model_file(b"irjax", '{"size": 64}'), {"error": "its metadata “irjax” lacks cell; export it again"}),
        (good[:200], {"error": none}),
        (b"", {"error": none}),
        (b"PK\3\4 an archive", {"error": none}),
        (b"\xff" * 100, {"error": none}),
    ]
    for result, (_, wanted) in zip(call(*(("readConfig", data) for data, _ in cases)), cases, strict=True):
        assert result == wanted


def test_png_of_16_bits():
    def saved(values, name="png"):
        data = io.BytesIO()
        Image.fromarray(values).save(data, name)
        return data.getvalue()

    deep, plain = np.zeros((20, 20), np.uint16), np.zeros((20, 20), np.uint8)
    files = (saved(deep), saved(plain), saved(plain, "jpeg"), b"")
    assert call(*(("isDeepPng", data) for data in files)) == [True, False, False, False]


def test_table():
    rows = [{"name": name, "x": 1.25, "y": -0.5, "score": 1e-7} for name in ("a.png", 'a, "b"\n.png', "ü")]
    (text,) = call(("toCsv", rows))
    read = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["name"] for row in read] == [row["name"] for row in rows]
    assert all([float(row[key]) for key in ("x", "y", "score")] == [1.25, -0.5, 1e-7] for row in read)
    assert text.startswith("name,x,y,score\na.png,1.25,-0.5,1e-7\n") and text.endswith("\n")


# --- the page ---------------------------------------------------------------------------------------------------------


class Rows(html.parser.HTMLParser):
    """Reads the table of detections: [name, x, y, score] each."""

    def __init__(self, text):
        super().__init__()
        self.rows, self._cell = [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self._cell = tag == "td"
        if tag == "tr":
            self.rows.append([])
        if tag == "data":
            self.rows[-1].append(float(dict(attributes)["value"]))

    def handle_data(self, data):
        if self._cell:
            self.rows[-1].append(data)


class Site(http.server.ThreadingHTTPServer):
    """Serves a folder; `posted` is what its page shows once it is `done`."""

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        self.posted, self.done = "", threading.Event()


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        self.server.posted = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.done.set()
        self.send_response(204)
        self.end_headers()


POST_WHEN_READY = """
const look = () => document.body.dataset.state === "ready"
  ? fetch("page", { method: "POST", body: document.body.innerHTML }) : setTimeout(look, 100);
look();
"""
CHROMIUM = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
]


def browsed(site, query, user_folder):
    """Opens the page of a site in Chromium; returns what the page shows when its work is done."""
    with Site(site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/?{urllib.parse.urlencode(query)}"
        command = ["chromium", *CHROMIUM, "--remote-debugging-port=0", f"--user-data-dir={user_folder}", address]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            assert server.done.wait(300)
        finally:
            process.terminate()
            process.wait()
            server.shutdown()
        return server.posted


def made_site(folder, model, images):
    """Makes a copy of the page with a model and images beside it."""
    folder.mkdir()
    for part in FOLDER.iterdir():
        if part.suffix in (".js", ".css") or part.name == "node_modules":
            (folder / part.name).symlink_to(part)
    page = (FOLDER / "index.html").read_text()
    (folder / "index.html").write_text(page + '<script type="module" src="watch.js"></script>')
    (folder / "watch.js").write_text(POST_WHEN_READY)
    (folder / "model.onnx").write_bytes(model)
    for name, image in images.items():
        Image.fromarray(image).save(folder / name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["spire-sirst", "mshnet-sirst"])
def test_the_page_finds_what_python_finds(name, tmp_path):
    pytest.importorskip("jax2onnx", reason="exports the network (extra onnx)")
    if shutil.which("chromium") is None:
        pytest.skip("needs chromium")
    if not (FOLDER / "node_modules").is_dir():
        pytest.skip("needs npm install in docs/browser")
    detector = irjax.load(name)
    scenes = SyntheticSource(SceneConfig(height=200, width=300), num_examples=3)
    images = {f"{index}.png": scenes[index].image for index in range(3)}
    wanted = [[one, *row] for one, image in images.items() for row in found_in(detector(image)).tolist()]
    images |= {"small.png": np.zeros((15, 40), np.uint8), "deep.png": np.zeros((64, 64), np.uint16)}
    made_site(tmp_path / "site", to_onnx(detector), images)
    query = [("image", one) for one in (*images, "none.png", "http://localhost/0.png")]
    page = browsed(tmp_path / "site", query, tmp_path / "user")
    found = [row for row in Rows(page).rows if row]  # the header's has no numbers
    assert len(wanted) > 2 and [row[0] for row in found] == [row[0] for row in wanted]
    np.testing.assert_allclose([row[1:] for row in found], [row[1:] for row in wanted], atol=1e-2)
    for words in (
        "small.png: image of 40x15 pixels; at least 16x16 is wanted",
        "A PNG of 16 bits, of which browsers read 8",
        "none.png: the server says 404 File not found",
        "http://localhost/0.png: it cannot be had; only files in the folder of this page can",
    ):
        assert words in page
