"""Exported programs: of every method, for any number and size of images, in a process without irjax."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from irjax import cli
from irjax.detector import stablehlo
from irjax.detector.difference import difference
from irjax.types import Detections


def test_a_program_finds_what_its_detector_finds(tiny_detector, noise, between_scores):
    detector = tiny_detector
    # As read from a file; platforms that are not here are compiled for as well.
    program = jax.export.deserialize(stablehlo.to_stablehlo(detector).serialize())
    assert program.platforms == stablehlo.PLATFORMS
    shapes = [(2, 70, 90)]
    if detector.config.method in ("spire", "mshnet"):  # the others take long to compile
        shapes.append((1, 48, 60))
    for shape in shapes:
        images = noise(*shape)
        threshold = np.float32(between_scores(detector, images))
        wanted = detector(images, threshold=float(threshold))
        found = Detections(**jax.tree.map(np.asarray, program.call(images, threshold)))
        assert (found.masks is None) == (wanted.masks is None)
        apart = difference(found, wanted, float(threshold))
        # Na-IRSTD's random weights make 4e-4 of an input's 1e-7.
        assert apart.maps < (2e-3 if detector.config.method == "na_irstd" else 1e-4)
        if apart.compared:
            assert apart.same and apart.points < 1e-2


_ALONE = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("irjax", "flax", "optax", "tyro", "PIL"):
            raise ImportError(name)
sys.meta_path.insert(0, Blocked())
import jax, numpy as np
program = jax.export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
images = np.random.default_rng(111).random((1, 50, 60), np.float32)
np.savez(sys.argv[2], **program.call(images, np.float32(0.5)))
"""


def test_the_command_writes_a_program_that_runs_without_irjax(tmp_path, capsys, detector_of, weights_of, noise):
    detector = detector_of("mshnet windows")
    file = weights_of("mshnet windows")
    cli.main(["export", str(file), "--out", f"{tmp_path}/", "--platforms", "cpu"])
    program, results = tmp_path / "mine.stablehlo", tmp_path / "found.npz"
    printed = capsys.readouterr().out
    assert f"{program}: 0." in printed and "2 x 32 x 48: maps" in printed and "1 x 80 x 96: maps" in printed
    subprocess.run([sys.executable, "-c", _ALONE, program, results], check=True)
    with np.load(results) as found:
        assert sorted(found) == ["masks", "points", "scores", "valid"]
        np.testing.assert_allclose(found["masks"], detector(noise(1, 50, 60)).masks, atol=1e-5)


def test_images_that_are_too_small_are_refused(detector_of, noise):
    detector = detector_of("mshnet windows")
    assert stablehlo.least_side(detector) == 16
    program = stablehlo.to_stablehlo(detector, ["cpu"])
    with pytest.raises(ValueError, match="height"):
        program.call(noise(1, 15, 40), np.float32(0.5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere"),
        (["spire-sirst", "--out", "a.onnx"], r"must end in .stablehlo, got a.onnx"),
        (["spire-sirst", "--to", "onnx", "--platforms", "cpu"], "--platforms goes with stablehlo"),
        (["spire-sirst", "--int8", "folder"], "--int8 goes with --to onnx"),
        (["spire-sirst", "--size", "0"], "--size must be at least 1, got 0"),
        (["spire-sirst", "--platforms"], "--platforms needs at least one"),
    ],
)
def test_wrong_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["export", *arguments])
    assert message in str(stop.value) + capsys.readouterr().err


def test_points_are_compared_with_the_nearest():
    points = np.array([[[1.0, 2.0], [30.0, 40.0], [0.0, 0.0]]], np.float32)
    one = Detections(points, np.array([[0.9, 0.8, 0.0]]), np.array([[True, True, False]]))
    other = Detections(points[:, [1, 0, 2]] + 0.25, one.scores + 1e-5, one.valid)
    apart = difference(one, other, 0.5)
    assert apart.compared == 1 and apart.same and abs(apart.points - 0.25 * 2**0.5) < 1e-6
    assert not difference(one, other.replace(valid=np.array([[True, False, False]])), 0.5).same
    close = difference(one, other, 0.8)  # rounding may decide
    assert close.compared == 0 and close.same
