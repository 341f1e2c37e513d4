"""Networks as ONNX files: what they compute in other programs, in irjax predict, and in a process without irjax."""

import csv
import importlib.util
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from irjax import cli
from irjax.data.synthetic import SceneConfig, SyntheticSource
from irjax.detector import onnx
from irjax.detector.difference import difference
from irjax.detector.inference import run_network
from irjax.errors import MissingPackageError, UsageError, UserError

CONVERTER = ("jax2onnx", "onnxruntime")


def needs(*packages):
    for package in packages:
        if importlib.util.find_spec(package) is None:  # not imported: OpenVINO would report it
            pytest.skip(f"runs exported networks (extras onnx, openvino): {package}")


@pytest.fixture
def saved(detector_of, tmp_path):
    """The file of an exported tiny MSHNet."""
    needs(*CONVERTER)
    file = tmp_path / "mine.onnx"
    file.write_bytes(onnx.to_onnx(detector_of("mshnet windows")))
    return file


def test_a_file_finds_what_its_detector_finds(tiny_detector, noise, between_scores, tmp_path):
    needs(*CONVERTER, *onnx.RUNTIMES)
    file = tmp_path / "a.onnx"
    file.write_bytes(onnx.to_onnx(tiny_detector))
    images, canvases = noise(3, 50, 90), noise(2, 64, 64)
    threshold = between_scores(tiny_detector, images)
    wanted = tiny_detector(images, threshold=threshold)
    maps = np.asarray(run_network(tiny_detector.config, tiny_detector.variables, canvases)[0])
    # Na-IRSTD's random weights make 4e-4 of an input's 1e-7.
    limit = 2e-3 if tiny_detector.config.method == "na_irstd" else 1e-4
    for runtime in onnx.RUNTIMES:
        read = onnx.load_onnx(file, runtime)
        assert read.config.to_json() == tiny_detector.folded().config.to_json()
        apart = difference(read(images, threshold=threshold), wanted, threshold)
        assert apart.maps < limit and apart.same and apart.points < 1e-2
        assert np.max(np.abs(read.maps(canvases) - maps)) < limit


_ALONE = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("irjax", "jax", "flax", "onnx", "PIL"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
import json, numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
config = json.loads(session.get_modelmeta().custom_metadata_map["irjax"])
canvases = np.random.default_rng(129).random((3, config["size"], config["size"]), np.float32)
np.save(sys.argv[2], session.run(["probabilities"], {"canvases": canvases})[0])
"""


def test_the_command_writes_a_file_that_runs_without_irjax(tmp_path, capsys, detector_of, weights_of):
    needs(*CONVERTER)
    detector = detector_of("mshnet windows")
    file = weights_of("mshnet windows")
    cli.main(["export", str(file), "--to", "onnx", "--out", f"{tmp_path}/"])
    printed = capsys.readouterr().out
    assert "mine.onnx: 0." in printed and "2 x 32 x 48: maps" in printed and "1 x 80 x 96: maps" in printed
    subprocess.run([sys.executable, "-c", _ALONE, tmp_path / "mine.onnx", tmp_path / "maps.npy"], check=True)
    canvases = np.random.default_rng(129).random((3, 64, 64), np.float32)
    wanted, _ = run_network(detector.config, detector.variables, canvases)
    np.testing.assert_allclose(np.load(tmp_path / "maps.npy"), wanted, atol=1e-5)


def scenes(folder, number, size=64):
    """Writes synthetic scenes with masks as a data set of two folders."""
    source = SyntheticSource(SceneConfig(height=size, width=size), num_examples=number)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for index in range(number):
        Image.fromarray(source[index].image).save(folder / f"images/{index}.png")
        Image.fromarray(source[index].mask.astype(np.uint8) * 255).save(folder / f"masks/{index}.png")


def test_predict_runs_the_file(saved, weights_of, tmp_path):
    scenes(tmp_path / "data", 3)
    arguments = [str(tmp_path / "data/images"), "--overlays", "0", "--threshold", "0.4"]
    found = []
    for model in (saved, weights_of("mshnet windows")):
        out = tmp_path / model.suffix[1:]
        cli.main(["predict", *arguments, "--model", str(model), "--out", str(out)])
        with open(out / "predictions.csv", newline="") as file:
            header, *rows = csv.reader(file)
        assert header == ["name", "x", "y", "score"] and len(rows) >= 3
        found.append(rows)
    assert [row[0] for row in found[0]] == [row[0] for row in found[1]]
    numbers = [np.array([row[1:] for row in rows], float) for rows in found]
    np.testing.assert_allclose(numbers[0], numbers[1], atol=1e-4)


def test_eight_bits(tmp_path, capsys, detector_of, weights_of):
    needs(*CONVERTER)
    scenes(tmp_path / "data", 8)
    detector = detector_of("mshnet windows")
    file = weights_of("mshnet windows")
    out = tmp_path / "small.onnx"
    command = ["export", str(file), "--to", "onnx", "--out", str(out), "--int8", str(tmp_path / "data")]
    cli.main([*command, "--split", "draw_train"])
    assert "2 x 32 x 48: maps" in capsys.readouterr().out
    whole = onnx.to_onnx(detector)
    assert b"QuantizeLinear" in out.read_bytes() and b"QuantizeLinear" not in whole
    canvases = np.stack([SyntheticSource(SceneConfig(height=64, width=64), num_examples=1)[0].image]) / np.float32(255)
    wanted, _ = run_network(detector.config, detector.variables, canvases)
    apart = np.abs(onnx.load_onnx(out).maps(canvases) - np.asarray(wanted))
    assert 0 < apart.max() < 0.1


def test_other_settings_of_the_same_network(saved):
    read = onnx.load_onnx(saved, threshold=0.25, slide=False, enlarge=True)
    assert read.config.threshold == 0.25 and not read.config.slide
    with pytest.raises(UsageError, match=r"mine\.onnx has size 64, not 128: export it again"):
        onnx.load_onnx(saved, size=128)


@pytest.mark.parametrize("runtime", onnx.RUNTIMES)
def test_files_that_are_none(saved, tmp_path, runtime):
    needs(runtime)
    (tmp_path / "text.onnx").write_text("no network")
    with pytest.raises(UserError, match=r"text\.onnx: .* cannot read it"):
        onnx.load_onnx(tmp_path / "text.onnx", runtime)
    import onnx as format_of_it

    model = format_of_it.load(saved)
    del model.metadata_props[:]
    format_of_it.save(model, tmp_path / "other.onnx")
    with pytest.raises(UserError, match=r"other\.onnx was not written by irjax export --to onnx"):
        onnx.load_onnx(tmp_path / "other.onnx", runtime)


@pytest.mark.parametrize("runtime", onnx.RUNTIMES)
def test_without_the_packages(tmp_path, monkeypatch, runtime, detector_of):
    for package in ("jax2onnx", *onnx.RUNTIMES):
        monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / "a.onnx").write_bytes(b"")
    with pytest.raises(MissingPackageError, match=rf"pip install 'irjax\[{runtime}\]'"):
        onnx.load_onnx(tmp_path / "a.onnx", runtime)
    with pytest.raises(MissingPackageError, match=r"pip install 'irjax\[onnx\]'"):
        onnx.to_onnx(detector_of("mshnet"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "spire-sirst", "--runtime", "openvino"], "--runtime goes with a file of irjax export --to onnx"),
        (["--model", "tophat", "--runtime", "onnxruntime"], "--runtime goes with a file of irjax export --to onnx"),
        (["--model", "nowhere.onnx"], "nowhere.onnx"),
    ],
)
def test_wrong_arguments(arguments, message, tmp_path, capsys):
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(SystemExit) as stop:
        cli.main(["predict", str(tmp_path / "a.png"), *arguments, "--out", str(tmp_path / "out")])
    assert message in str(stop.value) + capsys.readouterr().err


def test_openvino_reports_to_nobody(tmp_path):
    """Its package for telemetry sends an event at every import; irjax imports OpenVINO without it."""
    needs("openvino_telemetry")
    (tmp_path / "x.onnx").write_bytes(b"no model")
    code = """
import sys
from irjax.detector.onnx import load_onnx
try:
    load_onnx(sys.argv[1], "openvino")
except Exception as error:
    print(type(error).__name__)
assert "openvino" in sys.modules and "openvino_telemetry" not in sys.modules
import openvino.tools.ovc.utils as used
assert used.tm.__name__ == "openvino.tools.ovc.telemetry_stub"
"""
    command = [sys.executable, "-c", code, str(tmp_path / "x.onnx")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout == "UserError\n", done.stderr
