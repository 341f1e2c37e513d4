import collections
import dataclasses
import json

import chex
import flax.linen as nn
import jax
import numpy as np
import pytest
from PIL import Image

import irjax
from irjax.data import synthetic
from irjax.data.clutter import SceneConfig
from irjax.data.splits import DataConfig
from irjax.data.synthetic import SyntheticSource
from irjax.experiments import command, spire
from irjax.layers.conv import Conv
from irjax.layers.norm import BatchNorm
from irjax.methods.detector_config import DetectorConfig
from irjax.methods.spire import METHOD, objective
from irjax.training.checkpoints import load_variables
from irjax.types import Batch

SCENES = SceneConfig(height=64, width=64, targets=(1, 3))
SMALL = [
    *("--data.size", "64", "--data.synthetic-train", "12", "--data.synthetic-val", "4", "--data.max-points", "8"),
    *("--data.scenes.height", "64", "--data.scenes.width", "64", "--model.width", "16", "--target.sigma", "1"),
    *("--loop.steps", "4", "--loop.batch-size", "4", "--loop.steps-per-dispatch", "2", "--loop.devices", "1"),
    *("--augment.crop", "48", "--loop.no-tensorboard"),
]


RENDERED = collections.Counter()  # (seed, index) of the scenes that the fixture `trained` rendered


class Small(nn.Module):
    """In the place of HRPE where nothing is loaded back: it compiles in a second."""

    stride: int = 4
    shuffle: bool = True
    reweight: bool = True
    width: int = 64
    axis_name: str | None = None
    dtype: type = np.float32

    @nn.compact
    def __call__(self, x, *, train=False):
        x = nn.relu(BatchNorm(axis_name=self.axis_name, name="norm")(Conv(4, 3, 2, name="first")(x), train=train))
        return Conv(1, 3, 2, use_bias=True, name="second")(x)[..., 0]


@pytest.fixture
def few_scenes(monkeypatch):
    """Six test scenes in the place of 400."""
    monkeypatch.setattr(
        DataConfig, "open", lambda self, split, whole=DataConfig.open: _first(whole(self, split), split == "test")
    )


def _first(source, few):
    return dataclasses.replace(source, num_examples=6) if few else source


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run through the command, and what it printed."""
    import contextlib
    import io

    run = tmp_path_factory.mktemp("spire") / "run"
    out = io.StringIO()

    def counted(*scene, made=synthetic.synthesize):
        RENDERED[scene[1:]] += 1
        return made(*scene)

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
        patch.setattr(
            DataConfig, "open", lambda self, split, whole=DataConfig.open: _first(whole(self, split), split == "test")
        )
        patch.setattr(synthetic, "synthesize", counted)
        spire.main([*SMALL, "--run", str(run)])
    return run, out.getvalue()


# --- end to end -------------------------------------------------------------------------------------------------------


def test_the_command_prints_results_and_where_they_are(trained):
    run, printed = trained
    assert "step 4: validation" in printed and "SPIRE    F1" in printed and "top-hat  F1" in printed
    assert f"irjax.load('{run}')" in printed and str(run / "test") in printed
    names = {path.name for path in run.iterdir()}
    assert names >= {"config.json", "metrics.jsonl", "validation.json", "checkpoints", "detector.json", "test"}
    assert {path.name for path in (run / "test").iterdir()} >= {"predictions.json", "tophat.json"}
    predictions = json.loads((run / "test" / "predictions.json").read_text())
    assert predictions


def test_every_scene_is_rendered_once(trained):
    """Of training, validation and test; each is drawn, scored and seen by the top-hat filter."""
    assert RENDERED == {(seed, index): 1 for seed, number in enumerate((12, 4, 6)) for index in range(number)}


def test_the_run_loads_as_a_detector(trained):
    run, _ = trained
    detector = irjax.load(str(run))
    assert (detector.config.size, detector.config.model["width"]) == (64, 16)
    chex.assert_trees_all_equal(jax.device_get(detector.variables), load_variables(run))
    found = detector(SyntheticSource(SCENES, 9, 2)[0].image)
    assert found.points.shape[-1] == 2


def test_eval_only_writes_the_same_predictions_again(trained, few_scenes, capsys):
    run, printed = trained
    before = json.loads((run / "test" / "predictions.json").read_text())
    steps = sorted((run / "checkpoints").iterdir())
    spire.main([*SMALL, "--eval-only", str(run)])
    again = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if "SPIRE    F1" in line)
    assert line in again and "weights and log" not in again
    assert json.loads((run / "test" / "predictions.json").read_text()) == before
    assert sorted((run / "checkpoints").iterdir()) == steps


def test_the_command_called_again_does_not_train(trained, few_scenes, capsys, monkeypatch):
    from irjax.training import loop

    run, _ = trained
    monkeypatch.setattr(loop.Runner, "advance", None)
    spire.main([*SMALL, "--run", str(run)])
    assert "validation  " not in capsys.readouterr().out


@pytest.mark.slow
def test_initial_weights_from_a_run(trained, few_scenes, tmp_path):
    changes = ["--optimizer.rate", "1e-12", "--loop.averaging", "0", "--loop.steps", "1"]
    spire.main([*SMALL, *changes, "--initial", str(trained[0]), "--run", str(tmp_path / "run")])
    params = [load_variables(run)["params"] for run in (tmp_path / "run", trained[0])]
    chex.assert_trees_all_close(*params, atol=1e-6)


@pytest.mark.slow
def test_an_ablation_writes_its_table_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("irjax.methods.spire.HRPE", Small)
    arguments = [*SMALL, "--ablation", "supervision", "--seeds", "0", "1", "--run", str(tmp_path / "ablation")]
    spire.main(arguments)
    table = (tmp_path / "ablation" / "ablation.md").read_text()
    assert [line.split("|")[1].strip() for line in table.splitlines()[4:]] == ["impulse", "gaussian", "prps"]
    written = json.loads((tmp_path / "ablation" / "ablation.json").read_text())
    assert written["seeds"] == [0, 1] and set(written["variants"]["validation"]["prps"]["best_f1"]) == {
        "mean",
        "std",
        "intervals",
    }
    assert len(list((tmp_path / "ablation").glob("*-seed?/checkpoints"))) == 6
    capsys.readouterr()
    dataclasses.replace(spire.EXPERIMENT, train_stages=lambda *_: pytest.fail("trained again")).main(arguments)
    assert table.strip() in capsys.readouterr().out


@pytest.mark.parametrize("name, count", [("supervision", 3), ("scale", 3), ("stride", 3), ("components", 4)])
def test_variants_of_the_ablations(name, count):
    base = spire.quick()
    variants = spire.EXPERIMENT.ablation(name, base)
    assert len(variants) == count and base in variants.values()
    assert len({str(config) for config in variants.values()}) == count
    for config in variants.values():
        config = dataclasses.replace(config, model=dataclasses.replace(config.model, width=16))
        model = objective(config).model
        shape = jax.eval_shape(model.init_with_output, jax.random.key(0), np.zeros((1, 64, 64, 1), np.float32))[0].shape
        assert shape == (1, 64 // config.model.stride, 64 // config.model.stride)
    with pytest.raises(ValueError, match="no ablation 'width'"):
        spire.EXPERIMENT.ablation("width", base)


# --- real layouts -----------------------------------------------------------------------------------------------------


def dataset(root, *, masks, names=12):
    """Scenes as files: images/ with masks/, or with points.csv."""
    source = SyntheticSource(SCENES, 5, names)
    rows = ["name,x,y"]
    for folder in ("images", "masks") if masks else ("images",):
        (root / folder).mkdir(parents=True)
    for index in range(names):
        example = source[index]
        Image.fromarray(example.image).save(root / "images" / f"im{index}.png")
        if masks:
            Image.fromarray(example.mask.astype(np.uint8) * 255).save(root / "masks" / f"im{index}.png")
        rows += [f"im{index},{x},{y}" for x, y in example.points.tolist()]
    if not masks:
        (root / "points.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.mark.parametrize("masks", [True, False])
def test_training_on_own_images(tmp_path, monkeypatch, capsys, masks):
    monkeypatch.setattr("irjax.methods.spire.HRPE", Small)
    test = lambda *a, **k: {"metrics": {"F1": 0.5}, "best": {"f1": 0.5}}  # noqa: E731
    monkeypatch.setattr(
        command, "load", lambda run: type("D", (), {"config": DetectorConfig.of_run(METHOD, spire.quick())})
    )
    root, run = dataset(tmp_path / "data", masks=masks), tmp_path / "run"
    monkeypatch.setattr(command, "evaluate_detector", test)
    flags = ["--data.root", str(root), "--data.cache", "host" if masks else "device", "--run", str(run)]
    spire.main([*SMALL, *flags])
    about = json.loads((run / "config.json").read_text())["data"]
    assert about["train"]["examples"] + about["val"]["examples"] == 12 and about["val"]["examples"] >= 2
    assert "the validation split val" in capsys.readouterr().out


def refusal(arguments, capsys):
    """The one line of an error."""
    with pytest.raises(SystemExit) as stop:
        spire.main(arguments)
    text = capsys.readouterr().err.strip()
    assert stop.value.code in (1, 2) and text.startswith("error: ") and "\n" not in text
    return text


def test_a_name_in_train_and_val_is_refused(tmp_path, capsys):
    root = dataset(tmp_path / "data", masks=True)
    text = refusal(
        [*SMALL, "--data.root", str(root), "--data.train", "all", "--data.val", "val", "--run", str(tmp_path / "run")],
        capsys,
    )
    assert "training and validation share" in text and "im" in text and text.count("\n") == 0
    assert not (tmp_path / "run").exists()


# --- arguments --------------------------------------------------------------------------------------------------------


def test_help_explains_every_flag(capsys):
    with pytest.raises(SystemExit) as stop:
        spire.main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out

    def flags(config, prefix=""):
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            name = prefix + field.name.replace("_", "-")
            if dataclasses.is_dataclass(value):
                yield from flags(value, f"{name}.")
            else:
                yield name

    command = spire.parse([])
    missing = [
        name
        for name in flags(command)
        if f"--{name}" not in text and f"--{name.rpartition('.')[0]}.no-{name.rpartition('.')[2]}" not in text
    ]
    assert not missing
    assert "injected" in text and "directory of the run" in text


@pytest.mark.parametrize("name", sorted(spire.RECIPES))
def test_a_recipe_sets_the_defaults(name):
    command = spire.parse(["--recipe", name, "--loop.seed", "7"])
    wanted = spire.RECIPES[name]()
    assert command.config == dataclasses.replace(wanted, loop=dataclasses.replace(wanted.loop, seed=7))
    assert command.recipe == name


def test_the_gaussian_stands_where_the_papers_or_the_codes_recipe_says():
    centres = {name: make().target.centre for name, make in spire.RECIPES.items()}
    assert {name for name, centre in centres.items() if centre == "peak"} == {"paper"}
    # The step's targets follow: the brightest pixel is in the next cell.
    images = np.zeros((1, 64, 64), np.uint8)
    images[0, 32, 33] = 255
    batch = Batch(images, np.array([[[28.0, 32.0]]], np.float32), np.ones((1, 1), bool), np.zeros(1, np.int32))
    for name, column in (("paper", 8), ("official", 7)):
        _, target = objective(spire.RECIPES[name]()).prepare(batch, None)
        assert np.unravel_index(np.argmax(target[0]), (16, 16)) == (8, column)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--recipe", "fast"], "fast"),
        (["--data.cache", "disk"], "data.cache"),
        (["--loop.batch-size", "0"], "loop.batch_size"),
        (["--augment.zoom", "2", "1"], "augment.zoom"),
        (["--no-such-flag"], "no-such-flag"),
        (["--data.root", "/nowhere/at/all"], "/nowhere/at/all"),
        (["--eval-only", "/nowhere/at/all"], "/nowhere/at/all"),
        (["--test", "val_full"], "--data.root"),
        (["--data.size", "250"], "multiple of 4"),
        (["--initial", "/nowhere/at/all"], "/nowhere/at/all"),
    ],
)
def test_wrong_arguments(arguments, said, tmp_path, capsys):
    text = refusal([*SMALL, "--run", str(tmp_path / "run"), *arguments], capsys)
    assert said in text, text
    assert not (tmp_path / "run" / "checkpoints").exists()
