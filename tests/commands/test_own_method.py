"""The method of docs/own-method.md is trained, shipped and used by the commands of that page."""

import dataclasses
import json
import pathlib
import re
import shlex

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import irjax
from irjax import cli, methods
from irjax.methods import registry

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs/own-method.md"
TEXT = PAGE.read_text(encoding="utf-8")
FEW = (
    "--data.size 64 --loop.steps 4 --loop.batch-size 2 --loop.eval-batch-size 2 --loop.steps-per-dispatch 2 "
    "--loop.no-tensorboard"
)


def block(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)[0]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The page's file on the path, six images, and a registry that forgets."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "_registered", {})
    (tmp_path / "tiny_method.py").write_text(block("python"))
    rng = np.random.default_rng(0)
    for folder in ("images", "masks", "img_idx"):
        (tmp_path / "DIR" / folder).mkdir(parents=True)
    for number in range(6):
        mask = np.zeros((64, 64), np.uint8)
        mask[20:23, 30 + number : 33 + number] = 255
        Image.fromarray(mask).save(tmp_path / f"DIR/masks/{number}.png")
        Image.fromarray(rng.integers(0, 99, mask.shape, np.uint8) + mask // 2).save(
            tmp_path / f"DIR/images/{number}.png"
        )
    (tmp_path / "DIR/img_idx/train_DIR.txt").write_text("0\n1\n2\n3\n")
    (tmp_path / "DIR/img_idx/test_DIR.txt").write_text("4\n5\n")
    (tmp_path / "FOLDER").symlink_to(tmp_path / "DIR/images")
    return tmp_path


def test_the_pages_method_goes_through_the_pages_commands(here, capsys):
    train, predict, evaluate = (shlex.split(line)[1:] for line in block("sh").splitlines())
    train[train.index("val")] = "test"  # of so few images no validation split is carved
    cli.main([*train, *FEW.split(), "--model.width", "4"])
    assert json.loads((here / "runs/tiny/detector.json").read_text())["model"] == {"width": 4}
    registry._registered.clear()  # another process does not know it
    cli.main(predict)
    cli.main(evaluate)
    printed = capsys.readouterr().out
    assert "chosen on validation: step 4" in printed and "in 6 of 6 images" in printed and "nIoU" in printed
    detector = irjax.load("runs/tiny")
    assert detector(np.zeros((50, 70), np.uint8)).masks.shape == (1, 50, 70)
    line = f"tiny_method:METHOD --eval-only runs/tiny --data.root DIR --test test --ship {here}/tiny.safetensors"
    cli.main(["train", *shlex.split(line)])
    assert irjax.load(here / "tiny.safetensors").module.width == 4
    card = (here / "tiny.md").read_text()
    assert "irjax train tiny_method:METHOD --eval-only runs/tiny" in card and "DIR test" in card


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "tiny_method"], "unknown method 'tiny_method'; known: adsnet, mshnet, na_irstd, spire"),
        (["train", "tiny_method:NONE"], "has no attribute 'NONE'"),
        (["train", "no_such_module:METHOD"], "No module named 'no_such_module'"),
        (["train", "tiny_method:Tiny"], "is no irjax.methods.Method, but type"),
        (["predict", "FOLDER", "--method", "tiny_method"], "must be MODULE:ATTRIBUTE"),
        (["benchmark", "--method", ":METHOD"], "must be MODULE:ATTRIBUTE"),
    ],
)
def test_what_is_no_method_is_refused(here, capsys, arguments, said):
    with pytest.raises(SystemExit):
        cli.main(arguments)
    error = capsys.readouterr().err.strip()
    assert said in error and error.count("\n") == 0


def test_a_package_brings_its_method_by_an_entry_point(here, monkeypatch):
    class Point:
        name = "tiny"

        def load(self):
            import tiny_method

            return tiny_method.METHOD

    monkeypatch.setattr(registry, "_entry_points", lambda: {"tiny": Point()})
    assert "tiny" in methods.method_names()
    config = methods.DetectorConfig(method="tiny", model={"width": 4}, size=64, enlarge=False)
    assert methods.DetectorConfig.from_json(config.to_json()) == config
    variables = jax.jit(config.module().init)(jax.random.key(0), jnp.zeros((1, 64, 64, 1)))
    assert irjax.detector.Detector(config, variables)(np.zeros((64, 64), np.uint8)).masks.shape == (1, 64, 64)


def test_a_name_has_one_method(here):
    import tiny_method

    assert methods.register(tiny_method.METHOD) is methods.register(tiny_method.METHOD)
    other = dataclasses.replace(tiny_method.METHOD, training_only=("width",))
    with pytest.raises(irjax.UserError, match="another method 'tiny'"):
        methods.register(other)
    with pytest.raises(irjax.UserError, match="another method 'spire'"):
        methods.register(dataclasses.replace(other, name="spire"))
