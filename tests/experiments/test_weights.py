"""The command that remakes what ships."""

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

import irjax
from irjax.experiments import weights
from irjax.weights import names

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
    ],
)
def test_wrong_arguments(arguments, said, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        weights.main(["--data.root", "A", "B", "C", "--out", str(tmp_path / "out"), *arguments])
    assert stop.value.code in (1, 2) and said in capsys.readouterr().err
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


@pytest.mark.slow
def test_the_whole_command_where_packages_are_absent(tmp_path):
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    for number in range(8):
        mask = np.zeros((128, 128), np.uint8)
        mask[40:43, 60 + number : 63 + number] = 255
        Image.fromarray(rng.integers(0, 60, mask.shape, np.uint8) + mask // 2).save(
            tmp_path / "data" / "images" / f"{number}.png"
        )
        Image.fromarray(mask).save(tmp_path / "data" / "masks" / f"{number}.png")
    arguments = ["--data.root", "data", "--data.train", "train", "--data.val", "val", "--minutes", "0.4", "--narrow"]
    arguments += ["--only", "spire-sirst", "mshnet-sirst", "--out", "out"]
    block = f"import sys; sys.modules.update(dict.fromkeys({ABSENT!r}))"
    program = f"{block}; from irjax.experiments.weights import main; main({arguments!r})"
    environment = {"PYTHONPATH": str(pathlib.Path(irjax.__file__).parents[1]), "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("spire-sirst", "mshnet-sirst"):
        detector = irjax.load(str(tmp_path / "out" / f"{name}.safetensors"))
        assert detector(np.zeros((128, 128), np.uint8)).points.shape[-1] == 2
        assert (tmp_path / "out" / f"{name}.png").stat().st_size > 5000
    assert "data val, 2" in (tmp_path / "out" / "weights.md").read_text()
    assert "data val, 2" in done.stdout
