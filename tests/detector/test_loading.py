"""Other programs' checkpoints as detectors, in a program and on the command line."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import irjax
from irjax import cli, convert
from irjax.models import HRPE, MSHNet


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A checkpoint of each method, a few kilobytes each, one of another network, and an image."""
    torch = pytest.importorskip("torch", reason="writes checkpoints (extra torch)")
    folder = tmp_path_factory.mktemp("checkpoints")
    for name, module in (("spire", HRPE()), ("mshnet", MSHNet())):
        shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, 1)))
        state = convert.to_torch(name, jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes))
        state = {f"model.{key}": torch.zeros(()).expand(value.shape) for key, value in state.items()}
        torch.save({"epoch": 3, "state_dict": state, "iou": np.float64(0.67)}, folder / f"{name}.pth.tar")
    torch.save({"net": {"conv0_0.conv1.weight": torch.zeros(1)}}, folder / "dnanet.pkl")
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(folder / "a.png")
    return folder


def error_of(capsys, *arguments):
    with pytest.raises(SystemExit) as raised:
        cli.main(list(map(str, arguments)))
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and error.rstrip("\n").isprintable()
    return error, raised.value.code


@pytest.mark.parametrize(("name", "size", "threshold"), [("spire", 512, 0.35), ("mshnet", 256, 0.5)])
def test_the_keys_tell_the_method(checkpoints, name, size, threshold):
    config = irjax.load(checkpoints / f"{name}.pth.tar").config
    assert (config.method, config.size, config.threshold, config.channels) == (name, size, threshold, 1)
    assert irjax.load(checkpoints / f"{name}.pth.tar", method=name, size=64).config.size == 64


@pytest.mark.parametrize("ending", [*convert.ENDINGS, ".PTH"])
def test_endings(checkpoints, tmp_path, ending):
    (tmp_path / f"a{ending}").write_bytes((checkpoints / "spire.pth.tar").read_bytes())
    assert irjax.load(tmp_path / f"a{ending}").config.method == "spire"


def test_refusals(checkpoints, tmp_path, capsys):
    image, out = checkpoints / "a.png", tmp_path / "out"
    asked = ("predict", image, "--out", out, "--model")
    error, status = error_of(capsys, *asked, checkpoints / "dnanet.pkl")
    assert "dnanet.pkl is a checkpoint of none of the methods mshnet, spire; its keys: conv0_0.conv1.weight" in error
    assert status == 1
    error, _ = error_of(capsys, *asked, checkpoints / "dnanet.pkl", "--method", "spire")
    assert "dnanet.pkl is not a spire checkpoint: " in error and "1 extra: conv0_0.conv1.weight" in error
    error, _ = error_of(capsys, *asked, checkpoints / "mshnet.pth.tar", "--method", "spire")
    assert "mshnet.pth.tar is not a spire checkpoint, but one of mshnet by its keys" in error
    error, _ = error_of(capsys, *asked, checkpoints / "mshnet.pth.tar", "--method", "adsnet")
    assert "no converter for method 'adsnet'; known: mshnet, spire" in error
    error, _ = error_of(capsys, *asked, "mshnet-sirst", "--method", "spire")
    assert "mshnet-sirst.safetensors has weights of mshnet, not of spire" in error
    error, _ = error_of(capsys, "benchmark", "--model", checkpoints / "mshnet.pth.tar", "--method", "spire")
    assert "mshnet.pth.tar is not a spire checkpoint, but one of mshnet by its keys" in error
    error, status = error_of(capsys, *asked, checkpoints / "mshnet.pth.tar", "--method", "dnanet")
    assert "--method must be MODULE:ATTRIBUTE or one of adsnet, mshnet, na_irstd, spire, got 'dnanet'" in error
    assert status == 2 and not out.exists()


def test_predict(checkpoints, tmp_path, capsys):
    """With the method named, as a pair of flags, and the checkpoint's own settings otherwise."""
    model, out = checkpoints / "mshnet.pth.tar", tmp_path / "out"
    line = ["predict", checkpoints / "a.png", "--model", model, "--method", "mshnet", "--size", 32, "--out", out]
    cli.main(list(map(str, line)))
    assert "0 detections in 1 of 1 images" in capsys.readouterr().out
    assert np.array_equal(np.asarray(Image.open(out / "masks/a.png")), np.full((32, 32), 127))
