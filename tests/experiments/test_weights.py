"""The command that remakes what ships."""

import json
import os
import pathlib
import subprocess
import sys
import tarfile

import jax
import numpy as np
import pytest
from PIL import Image

import irjax
from irjax.detector.weights import names
from irjax.experiments import weights

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "experiments/accelerator"
# An accelerator machine may have none of these.
ABSENT = ("tyro", "grain", "tensorflow_datasets", "array_record", "tensorboardX", "importlib_resources")


def parsed(*arguments):
    return weights.parse(["--data.root", "A", "B", "C", *arguments])


def test_it_trains_what_ships():
    assert set(weights.TRAININGS) == set(names())


@pytest.mark.parametrize("name", sorted(weights.TRAININGS))
def test_stages_share_the_minutes_and_have_the_data(name):
    command = parsed("--minutes", "90")
    stages = weights.stages(weights.TRAININGS[name], command, 30.0)
    assert sum(config.loop.minutes for config in stages.values()) == pytest.approx(30)
    for config in stages.values():
        assert config.data.root == ("A", "B", "C") and config.data.train == ("train_full", "train", "train")
        assert config.loop.steps == 0 and config.loop.validate and not config.loop.bf16
        assert config.loop.batch_size % 2 == 0  # two cores share it


@pytest.mark.parametrize("name", sorted(weights.TRAININGS))
def test_an_accelerator_gets_whole_canvases_in_large_batches(name, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    (config,) = weights.stages(weights.TRAININGS[name], parsed("--no-validation"), 30.0).values()
    assert config.loop.bf16 and config.loop.batch_size >= 16 and config.augment.crop == 0
    assert config.loop.minutes == 30 and not config.loop.validate


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--minutes", "0"], "--minutes must be positive, got 0"),
        (["--narrow", "--initial", "shipped"], "--narrow starts from random weights"),
        (["--only", "hrpe"], "invalid choice: 'hrpe'"),
        (["--data.train", "a", "b"], "names 2 splits for 3 folders"),
        (["--no-such-flag"], "unrecognized arguments: --no-such-flag; see python -m irjax.experiments.weights --help"),
    ],
)
def test_wrong_arguments(arguments, said, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        weights.main(["--data.root", "A", "B", "C", "--out", str(tmp_path / "out"), *arguments])
    assert stop.value.code in (1, 2)
    line = capsys.readouterr().err
    assert line.startswith("error: ") and said in line and line.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_table_has_every_data_set_and_its_interval():
    found = {"metrics": {"F1": 0.91234, "Fa": 2e-6}, "intervals": {"F1": (0.9, 0.93), "Fa": (1e-6, 3e-6)}, "images": 9}
    cards = {
        "spire-sirst": {"recipe": {"step": 7}, "validation": {"X val": found}},
        "mshnet-sirst": {"recipe": {"step": 8}, "validation": "not measured where they were trained"},
    }
    _, rows = weights.table(cards)
    assert rows[0][:3] == ["spire-sirst", "X val, 9", "7"] and "F1 0.912 [0.9, 0.93]" in rows[0][3]
    assert "Fa 2e-6 [1, 3]" in rows[0][3] and rows[1][3] == "not measured where they were trained"


def test_the_learning_curve_puts_stages_one_after_the_other(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(weights, "plot_learning", lambda path, loss, chosen: drawn.append((loss, chosen)))
    for number, stage in enumerate(("sirst", "sirst-tune")):
        (tmp_path / stage).mkdir()
        lines = [
            {"step": 2, "minutes": 1.0, "group": "train", "loss": 0.5},
            {"step": 2, "minutes": 1.5, "group": "val", "loss": 0.6, "f1": 0.1 + number},
            {"step": 4, "minutes": 3.0, "group": "train", "loss": None},
        ]
        log = tmp_path / stage / "metrics.jsonl"
        log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    weights.learning_curve(tmp_path, "f1", tmp_path / "curve.png")
    assert drawn == [(([1.0, 4.0], [0.5, 0.5]), ("f1", [1.5, 4.5], [0.1, 1.1]))]


@pytest.fixture
def images(tmp_path):
    """A folder of 8 images with a target each, in the layout of folders alone."""
    rng, folder = np.random.default_rng(0), tmp_path / "data"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(8):
        mask = np.zeros((128, 128), np.uint8)
        mask[40:43, 60 + number : 63 + number] = 255
        Image.fromarray(rng.integers(0, 60, mask.shape, np.uint8) + mask // 2).save(folder / f"images/{number}.png")
        Image.fromarray(mask).save(folder / f"masks/{number}.png")
    return folder


@pytest.fixture
def bare(tmp_path):
    """``run(*arguments) -> its output``: a Python program without the packages that an accelerator machine lacks."""
    (tmp_path / "site").mkdir()
    blocking = f"import sys; sys.modules.update(dict.fromkeys({ABSENT!r}))\n"
    (tmp_path / "site/sitecustomize.py").write_text(blocking)
    path = os.pathsep.join((str(tmp_path / "site"), str(ROOT)))
    environment = {"PYTHONPATH": path, "PATH": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    environment["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "")

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
        return done.stdout

    return run


@pytest.mark.slow
def test_the_whole_command_where_packages_are_absent(tmp_path, images, bare):
    arguments = ["--data.root", "data", "--data.train", "train", "--data.val", "val", "--minutes", "0.01", "--narrow"]
    arguments += ["--like", "gpu", "--batch", "2", "--only", "spire-sirst", "--out", "out"]
    printed = bare("-m", "irjax.experiments.weights", *arguments)
    detector = irjax.load(str(tmp_path / "out/spire-sirst.safetensors"))
    assert detector(np.zeros((128, 128), np.uint8)).points.shape[-1] == 2
    assert (tmp_path / "out/spire-sirst.png").stat().st_size > 5000
    assert any((tmp_path / "out/programs").iterdir())
    assert "data val, 2" in (tmp_path / "out/weights.md").read_text() and "data val, 2" in printed


@pytest.mark.slow
def test_the_scripts_for_an_accelerator_machine(tmp_path, images, bare):
    bare(SCRIPTS / "pack.py", "pack.tar", "--data.root", "data", "--data.train", "all")
    flags = ["--only", "mshnet-sirst", "spire-sirst", "--narrow", "--like", "gpu", "--batch", "2", "--minutes", "0.1"]
    bare(SCRIPTS / "train.py", "pack.tar", "trained", *flags)
    report = json.loads((tmp_path / "trained/training.json").read_text())
    # A pack's list is train.txt whatever the split was called: not every name is one that a list may have.
    assert report["data"] == {"data": {"split": "all", "images": 8}}
    assert report["parts"] == ["weights.tar.0"] and set(report["networks"]) == {"mshnet-sirst", "spire-sirst"}
    for name in report["networks"]:
        found = report["networks"][name][f"{name}/sirst"]
        assert found["steps"] > 0 and found["images_per_second"] > 0 and np.isfinite(found["losses"][-1][1])
    with tarfile.open(tmp_path / "trained/weights.tar.0") as file:
        file.extractall(tmp_path / "back", filter="data")
    for name in report["networks"]:
        detector = irjax.load(str(tmp_path / f"back/{name}.safetensors"))
        assert detector(np.zeros((128, 128), np.uint8)).points.shape[-1] == 2
        assert (tmp_path / f"back/{name}.png").stat().st_size > 5000

    flags = ["--model", "spire", "--batch", "1", "--size", "32", "--repeats", "1", "--minutes", "5", "--no-torch"]
    printed = bare(SCRIPTS / "benchmark.py", "timed", *flags)
    for dtype in ("float32", "bfloat16"):
        timed = json.loads((tmp_path / f"timed/spire-{dtype}-1.json").read_text())
        assert timed["dtype"] == dtype and timed["runs"][0]["network"]["median"] > 0
        (training,) = timed["training"]
        assert training["device_cache"]["images_per_second"] > 0 and "host_feed" not in training
    assert printed.count("training step") == 2
