"""The app in Chromium: uploads, clicks and what is saved."""

import contextlib
import http.client
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from irjax.app.page import free_port, serve
from irjax.data import open_source
from irjax.errors import MissingPackageError, UserError

TARGETS = [(20, 30), (70, 50)]


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    """Address and folder of an app that runs."""
    pytest.importorskip("nicegui", reason="runs the app (extra app)")
    pytest.importorskip("playwright", reason="clicks in the app")
    if shutil.which("chromium") is None:
        pytest.skip("needs chromium")
    folder = tmp_path_factory.mktemp("app")
    command = [sys.executable, "-m", "irjax", "app", "--model", "tophat", "--port", "0"]
    # NiceGUI listens nowhere where it sees a test.
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        address = re.search(r"http://\S+", process.stdout.readline())[0]
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(address.split(":")[-1]))):
                break
            time.sleep(0.1)
        yield address, folder
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


@pytest.fixture(scope="module")
def browser(app):
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        yield chromium
        chromium.close()


@pytest.fixture
def page(app, browser):
    """A tab; at its end, it has asked this machine alone."""
    made = browser.new_page(viewport={"width": 1300, "height": 1000})
    asked, wrong = [], []
    made.on("request", lambda request: asked.append(request.url))
    made.on("pageerror", lambda error: wrong.append(str(error)))
    made.goto(app[0])
    made.wait_for_selector("input[type=file]", state="attached")
    yield made
    made.close()
    assert asked and all(url.startswith((app[0], "data:", "blob:")) for url in asked)
    assert not wrong


def picture(path, points=TARGETS, size=(80, 100)):
    rows, cols = np.indices(size)
    image = np.random.default_rng(0).normal(60, 1, size)
    for x, y in points:
        image += 150 * np.exp(-((cols - x) ** 2 + (rows - y) ** 2) / 2)
    Image.fromarray(image.astype(np.uint8)).save(path)
    return path


def says(page, text):
    page.get_by_text(text).first.wait_for(timeout=60_000)


def place(page, x, y, size=(80, 100)):
    """The place of a pixel's centre on the screen."""
    box = page.locator(".scene img").bounding_box()
    return box["x"] + (x + 0.5) / size[1] * box["width"], box["y"] + (y + 0.5) / size[0] * box["height"]


def test_points_are_added_moved_deleted_and_saved(app, page, tmp_path):
    page.set_input_files("input[type=file]", [picture(tmp_path / "a.png"), picture(tmp_path / "b.png", [(40, 40)])])
    says(page, "2 detections by tophat")
    assert page.locator(".events canvas").count() == 2 and page.locator(".wide canvas").count() == 1
    marks = [
        (float(mark.get_attribute("cx")), float(mark.get_attribute("cy")))
        for mark in page.locator(".scene circle").all()
    ]
    assert {(round(x - 0.5), round(y - 0.5)) for x, y in marks} == set(TARGETS)
    # Clicks do nothing until asked for.
    page.mouse.click(*place(page, 50, 20))
    page.get_by_text("correct points", exact=True).click()
    page.mouse.click(*place(page, 50, 20))
    says(page, "3 points, corrected")
    page.mouse.move(*place(page, 20, 30))
    page.mouse.down()
    page.mouse.move(*place(page, 15.5, 60))
    page.mouse.up()
    page.wait_for_function("[...document.querySelectorAll('.scene circle')].some(mark => mark.getAttribute('cy') > 59)")
    page.keyboard.down("Shift")
    page.mouse.click(*place(page, 70, 50))
    page.keyboard.up("Shift")
    says(page, "2 points, corrected")
    page.get_by_text("save data set").click()
    says(page, "1 that you have not looked at are left out")
    (example,) = open_source(app[1] / "runs" / "app-dataset", "all")
    assert example.name == "a"
    np.testing.assert_allclose(sorted(example.points.tolist()), [[15.5, 60], [50, 20]], atol=0.6)
    page.get_by_label("next").click()
    says(page, "1 detection by tophat")
    page.get_by_text("save predictions").click()
    says(page, "3 points in 2 images")
    assert (app[1] / "runs" / "app-predictions" / "predictions.json").is_file()


def test_a_broken_file_is_named_and_the_others_stay(page, tmp_path):
    page.set_input_files("input[type=file]", [picture(tmp_path / "good.png")])
    says(page, "2 detections by tophat")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n no picture")
    page.set_input_files("input[type=file]", [tmp_path / "broken.png"])
    says(page, "broken.png")
    assert page.get_by_text("2 detections by tophat").count() == 1


def test_the_threshold_decodes_again(page, tmp_path):
    page.set_input_files("input[type=file]", [picture(tmp_path / "a.png")])
    says(page, "2 detections by tophat")
    slider = page.locator(".q-slider")
    box = slider.bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.03, box["y"] + box["height"] / 2)
    page.wait_for_function("/([3-9]|[1-9]\\d+) detections by tophat/.test(document.body.innerText)")


def test_only_this_machine_is_let_in(app):
    host, port = app[0].removeprefix("http://").split(":")
    assert host == "127.0.0.1"
    for name, status in ((host, 200), ("localhost", 200), ("elsewhere.example", 400)):
        with contextlib.closing(http.client.HTTPConnection(host, int(port))) as connection:
            connection.request("GET", "/", headers={"Host": f"{name}:{port}"})
            assert connection.getresponse().status == status
    if pathlib.Path("/proc/net/tcp").exists():
        lines = [line.split()[1:4] for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
        listening = [place for place, _, state in lines if state == "0A" and int(place.split(":")[1], 16) == int(port)]
        assert listening == [f"0100007F:{int(port):04X}"]


def test_an_address_that_cannot_be_had():
    port = free_port("127.0.0.1", 0)
    assert port > 0
    with pytest.raises(UserError, match="cannot listen at --host 203.0.113.1 --port 80"):
        free_port("203.0.113.1", 80)
    with pytest.raises(UserError, match="--port 70000"):
        free_port("127.0.0.1", 70000)


def test_without_nicegui(monkeypatch):
    monkeypatch.setitem(sys.modules, "nicegui", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'irjax\[app\]'"):
        serve(["tophat"], host="127.0.0.1", port=0, open_browser=False)
