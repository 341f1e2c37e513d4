"""The command line: what it writes, and what it says when something is wrong."""

import csv
import errno
import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import irjax
from irjax import cli
from irjax.baselines import BASELINES
from irjax.detector import weights
from irjax.detector.detector import DetectorConfig
from irjax.detector.files import find_images
from irjax.errors import UserError
from irjax.io.predictions import read_predictions

CONFIG = DetectorConfig(model={"width": 16, "shuffle_units": 1}, size=64, max_detections=4, threshold=0.0)
CARD = dict.fromkeys(weights.CARD_FIELDS, "none")


@pytest.fixture(autouse=True)
def leave_the_allocator_alone(monkeypatch):
    monkeypatch.setattr("irjax.training.allocator.keep_freed_memory", lambda: False)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    images = jnp.zeros((1, CONFIG.size, CONFIG.size, CONFIG.channels))
    shapes = jax.eval_shape(CONFIG.module().init, jax.random.key(0), images)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.uniform(0.1, 0.2, leaf.shape).astype(np.float32), shapes)
    return str(weights.save_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors", variables, CONFIG, CARD))


def scene(height, width, *targets, dtype=np.uint8):
    """A dark image with one bright pixel for each target (x, y)."""
    image = np.random.default_rng(height).integers(0, 9, (height, width)).astype(dtype)
    for x, y in targets:
        image[y, x] = 200
    return image


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def truncated(path):
    save(path, scene(64, 64))
    path.write_bytes(path.read_bytes()[:200])
    return path


def run(*arguments):
    cli.main([str(argument) for argument in arguments])


def failure(*arguments):
    """The one line that a failing command prints, and its exit status."""
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    message = str(stopped.value)
    assert message.startswith("error: ") and "\n" not in message, message
    return message, stopped.value.code


def error_of(*arguments):
    """The line of a command that cannot use what it was given."""
    message, status = failure(*arguments)
    assert status == 1, message
    return message


def usage_error_of(*arguments):
    """The line of a command that was called in a wrong way."""
    message, status = failure(*arguments)
    assert status == 2, message
    return message


# --- predict ----------------------------------------------------------------------------------------------------------


def test_predict_images_of_any_size_and_depth(tmp_path, model, capsys):
    save(tmp_path / "in/a.png", scene(64, 64))
    save(tmp_path / "in/b.bmp", scene(40, 90))
    save(tmp_path / "in/c.tif", scene(100, 30, dtype=np.uint16))
    run("predict", tmp_path / "in", "--model", model, "--out", tmp_path / "out", "--overlays", 2)
    content = read_predictions(tmp_path / "out/predictions.json")
    assert list(content.predictions) == ["a.png", "b.bmp", "c.tif"]
    assert content.sizes == {"a.png": (64, 64), "b.bmp": (40, 90), "c.tif": (100, 30)}
    rows = list(csv.DictReader((tmp_path / "out/predictions.csv").read_text().splitlines()))
    assert list(rows[0]) == ["name", "x", "y", "score"]
    for name, prediction in content.predictions.items():
        own = [[float(row[column]) for column in ("x", "y", "score")] for row in rows if row["name"] == name]
        np.testing.assert_array_equal(np.array(own).reshape(-1, 3), np.c_[prediction.points, prediction.scores])
    pictures = sorted(path.name for path in (tmp_path / "out/overlays").iterdir())
    assert pictures == ["0001_a.png", "0002_b.png"]
    assert f"{len(rows)} detections in 3 of 3 images" in capsys.readouterr().out


def test_threshold_and_size_reach_the_detector(tmp_path, model):
    image = save(tmp_path / "a.png", scene(64, 64))
    for options, count in ((("--threshold", 1e9), 0), (("--size", 32, "--max-detections", 1), 1)):
        run("predict", image, "--model", model, "--out", tmp_path / "out", "--overlays", 0, *options)
        assert len(read_predictions(tmp_path / "out/predictions.json").predictions["a.png"]) == count
    assert "size must be a multiple of 4" in usage_error_of("predict", image, "--model", model, "--size", 33)


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_filters_need_no_weights(tmp_path, name):
    image = save(tmp_path / "a.png", scene(32, 48, (20, 11)))
    run("predict", image, "--model", name, "--out", tmp_path / "out")
    found = read_predictions(tmp_path / "out/predictions.json").predictions["a.png"]
    np.testing.assert_array_equal(found.points, [[20, 11]])
    mask = np.asarray(Image.open(tmp_path / "out/masks/a.png"))
    assert mask.shape == (32, 48) and mask[11, 20] >= 128 and 1 <= (mask >= 128).sum() <= 25


def test_a_split_of_a_data_set(tmp_path):
    data = tmp_path / "data"
    for index in range(3):
        image = scene(32, 32 + index, (20, 11))
        save(data / f"images/{index}.png", image)
        save(data / f"masks/{index}.png", np.where(image > 100, 255, 0).astype(np.uint8))
    for name, lines in (("train", "0\n1\n"), ("test", "2\n")):
        (data / "img_idx").mkdir(exist_ok=True)
        (data / "img_idx" / f"{name}_data.txt").write_text(lines)
    run("predict", data, "--split", "trainval", "--model", "tophat", "--out", tmp_path / "out")
    assert list(read_predictions(tmp_path / "out/predictions.json").predictions) == ["0.png", "1.png"]
    run("evaluate", "--predictions", tmp_path / "out/masks", "--truth", data, "--split", "trainval")
    assert "no split 'other'" in error_of("predict", data, "--split", "other", "--model", "tophat")
    assert "--split goes with one data set" in usage_error_of("predict", data, data, "--split", "trainval")
    for flag in (["--recursive"], ["--key", "frames"]):
        found = usage_error_of("predict", data, "--split", "trainval", *flag)
        assert f"{flag[0]} goes with files, --split with a data set" in found


def test_filters_work_at_the_size_of_the_image(tmp_path):
    image = save(tmp_path / "a.png", scene(32, 48, (20, 11)))
    assert "--size" in usage_error_of("predict", image, "--model", "tophat", "--size", 64)
    assert "--native" in usage_error_of("predict", image, "--model", "tophat", "--native")


@pytest.mark.parametrize("spoil", ["truncated", "small", "text"])
def test_a_bad_file_does_not_cost_the_good_ones(tmp_path, spoil, capsys):
    folder = tmp_path / "in"
    save(folder / "a.png", scene(32, 48, (20, 11)))
    save(folder / "c.png", scene(32, 48, (5, 6)))
    bad, reason = folder / "b.png", "not a readable image"
    if spoil == "truncated":
        truncated(bad)
    elif spoil == "small":
        save(bad, scene(15, 40))
        reason = "40x15 pixels; at least 16x16"
    else:
        bad.write_text("hello")
    arguments = ("predict", folder, "--model", "tophat", "--threshold", 0.5, "--out", tmp_path / "out")
    message = error_of(*arguments)
    assert "1 of 3 images could not be read" in message and str(bad) in message and reason in message
    content = read_predictions(tmp_path / "out/predictions.json")
    assert {name: p.points.tolist() for name, p in content.predictions.items()} == {
        "a.png": [[20, 11]],
        "c.png": [[5, 6]],
    }
    assert len((tmp_path / "out/predictions.csv").read_text().splitlines()) == 3
    assert str(bad) in capsys.readouterr().err


def test_files_of_one_name_stay_apart(tmp_path):
    one = save(tmp_path / "x/day/a.png", scene(32, 32, (8, 8)))
    two = save(tmp_path / "y/day/a.png", scene(32, 32, (20, 20)))
    three = save(tmp_path / "y/day/a.bmp", scene(32, 32, (12, 12)))
    run("predict", one, two.parent, two, "--model", "tophat", "--threshold", 0.5, "--out", tmp_path / "out")
    found = read_predictions(tmp_path / "out/predictions.json").predictions
    assert {name: p.points.tolist() for name, p in found.items()} == {
        "x/day/a.png": [[8, 8]],
        "a.bmp": [[12, 12]],
        "y/day/a.png": [[20, 20]],
    }
    assert len(list((tmp_path / "out/overlays").iterdir())) == 3
    assert find_images([three])["a.bmp"] == three


def test_folders_below_a_folder(tmp_path):
    save(tmp_path / "in/sub/a.png", scene(32, 32))
    assert "there are folders below it: sub" in error_of("predict", tmp_path / "in", "--model", "tophat")
    assert list(find_images([tmp_path / "in"], recursive=True)) == ["sub/a.png"]


def test_nothing_is_read_where_nothing_can_be_written(tmp_path, monkeypatch):
    image = save(tmp_path / "a.png", scene(32, 32))
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setattr("irjax.detector.files.read_image", lambda *_: pytest.fail("read"))
    for out in (tmp_path / "file", tmp_path / "file/below"):
        message = error_of("predict", image, "--model", "tophat", "--out", out)
        assert f"cannot write {out}: " in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("predict", "absent.png", "--model", "tophat"), "there is no file or folder absent.png"),
        (("predict", "x" * 300, "--model", "tophat"), "File name too long"),
        (("predict", ".", "--model", "no-such-weights"), "neither the name of shipped weights"),
        (("predict", ".", "--model", "absent/run"), "no file or directory absent/run"),
        (("predict", ".", "--model", "x" * 300), "File name too long"),
        (("benchmark", "--torch", "absent.py"), "no PyTorch module absent.py"),
        (("datasets", "build", "nudt_sirst", "--source", "absent"), "there is no folder absent"),
        (("datasets", "list", "absent"), "there is no folder absent"),
    ],
)
def test_what_arguments_name_cannot_be_used(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "a.png", scene(32, 32))
    assert message in error_of(*arguments)
    assert [path.name for path in tmp_path.iterdir()] in (["a.png"], ["a.png", "datasets"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("predict",), "Missing from irjax predict: FOLDER_OR_FILE"),
        (("predict", ".", "--size", "big"), "Error parsing --size: invalid literal for int() with base 10: 'big'"),
        (("predict", ".", "--model", "tophat", "--overlays", "-1"), "--overlays must be at least 0, got -1"),
        (("predict", ".", "--size", "0"), "--size must be at least 1, got 0"),
        (("predict", ".", "--max-detections", "0"), "--max-detections must be at least 1, got 0"),
        (("detect",), "invalid choice 'detect' for COMMAND, expected one of train, predict, app, evaluate, compare,"),
        (
            ("train",),
            "METHOD is missing, one of adsnet, mshnet, na_irstd, spire, MODULE:ATTRIBUTE; see irjax train --help",
        ),
        ((), "COMMAND is missing, one of train, predict, app, evaluate, compare,"),
        (("models", "absent"), "there are no weights absent"),
        (("predict", ".", "--no-such-flag"), "Unrecognized options: --no-such-flag; see irjax predict --help"),
        (("benchmark", "--sparse", "--train"), "--train does not go with --sparse"),
        (("benchmark", "--size", "30"), "size must be a multiple of 4"),
        (("benchmark", "--repeats", "0"), "repeats must be at least 1"),
        (("benchmark", "--threads", "0"), "--threads must be in 1.."),
        (("benchmark", "--batch", "0"), "each at least 1"),
        (("datasets", "build", "absent", "--source", "."), "there is no builder 'absent'"),
        (("datasets", "build", "nudt_sirst"), "nudt_sirst needs a source"),
        (("datasets", "list", ".", "--layout", "spire2"), "unknown layout 'spire2'"),
    ],
)
def test_wrong_arguments(tmp_path, monkeypatch, arguments, message, capsys):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "a.png", scene(32, 32))
    line = usage_error_of(*arguments)
    assert message in line and capsys.readouterr().err.splitlines()[-1] == line
    assert [path.name for path in tmp_path.iterdir()] in (["a.png"], ["a.png", "datasets"])


def test_weights_that_do_not_fit(tmp_path, model, monkeypatch):
    """A weight file whose configuration is of another network, a damaged one, and a folder that is no run."""
    image = save(tmp_path / "a.png", scene(64, 64))
    variables, config, card = weights.load_weights(model)
    monkeypatch.setattr("irjax.detector.weights.check_variables", lambda *_: None)
    wrong = DetectorConfig(model={"width": 32}, size=config.size)
    weights.save_weights(tmp_path / "wrong.safetensors", variables, wrong, card)
    monkeypatch.undo()
    monkeypatch.setattr("irjax.training.allocator.keep_freed_memory", lambda: False)
    message = error_of("predict", image, "--model", tmp_path / "wrong.safetensors")
    assert "wrong.safetensors: not the weights of spire" in message
    (tmp_path / "cut.safetensors").write_bytes(pathlib.Path(model).read_bytes()[:3000])
    message = error_of("predict", image, "--model", tmp_path / "cut.safetensors")
    assert "cut.safetensors is not a readable safetensors file" in message
    assert "is no run directory" in error_of("predict", image, "--model", tmp_path)


def test_checkpoints_with_other_keys(tmp_path):
    """A .pth with missing and extra keys, one of another method, and a file that is none."""
    torch = pytest.importorskip("torch", reason="writes .pth files (extra torch)")
    from irjax.convert import to_torch
    from irjax.models import HRPE

    shapes = jax.eval_shape(HRPE().init, jax.random.key(0), jnp.zeros((1, 32, 32, 1)))
    arrays = to_torch("spire", jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes))
    state = {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}
    image = save(tmp_path / "a.png", scene(64, 64))

    missing = {name: value for name, value in state.items() if name != "conv2.weight"}
    torch.save({**missing, "surplus.weight": torch.zeros(3)}, tmp_path / "keys.pth")
    message = error_of("predict", image, "--model", tmp_path / "keys.pth")
    assert "keys.pth is not a spire checkpoint: 1 missing: conv2.weight; 1 extra: surplus.weight" in message
    torch.save({"decoder.0.weight": torch.zeros(8, 4, 3, 3)}, tmp_path / "other.pth")
    message = error_of("predict", image, "--model", tmp_path / "other.pth")
    assert "other.pth is a checkpoint of none of the methods mshnet, spire; its keys: decoder.0.weight" in message
    (tmp_path / "text.pth").write_text("hello")
    assert "text.pth is not a PyTorch checkpoint" in error_of("predict", image, "--model", tmp_path / "text.pth")


def test_errors_of_the_program_keep_their_traceback(tmp_path, monkeypatch):
    image = save(tmp_path / "a.png", scene(32, 32))
    monkeypatch.setattr("irjax.detector.files.read_image", lambda *_: np.zeros(3).reshape(2))
    with pytest.raises(ValueError, match="cannot reshape array") as raised:
        run("predict", image, "--model", "tophat", "--out", tmp_path / "out")
    assert not isinstance(raised.value, UserError)


def test_an_error_of_the_program_is_seen_with_its_traceback(tmp_path):
    code = (
        "import numpy as np, irjax.cli, irjax.studies.roc as roc;"
        "roc.read_roc = lambda *_: np.zeros(3).reshape(2);"
        "irjax.cli.main(['analyse', 'roc', 'a=b'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1 and "Traceback" in done.stderr and "ValueError: cannot reshape" in done.stderr


def test_a_wrong_flag_exits_with_2(tmp_path):
    command = [sys.executable, "-m", "irjax", "predict", ".", "--overlays", "-1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "error: --overlays must be at least 0, got -1\n")


MASKS = ("--predictions", "masks", "--truth", "masks")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("predict", "dangling.png", "--model", "tophat"), "there is no file or folder dangling.png"),
        (("predict", "a.png", "--model", "tophat", "--out", "taken"), "cannot write taken: File exists"),
        (
            ("predict", "a.png", "--model", "tophat", "--out", "blocked"),
            "blocked holds predictions.json/x, not of an earlier irjax predict",
        ),
        (("predict", "a.png", "--model", "run"), "run/detector.json: not a text file in UTF-8"),
        (("evaluate", "--predictions", "folder.json", "--truth", "lists"), "folder.json: no predicted maps"),
        (
            ("evaluate", "--predictions", "p.json", "--truth", "lists"),
            "cannot read lists/img_idx/train_x.txt: Is",
        ),
        (("evaluate", "--predictions", "p.json", "--truth", "points"), "points/points.csv: not a text file in UTF-8"),
        (("evaluate", "--predictions", "maps", "--truth", "masks"), "maps/a.png: not a readable map"),
        (("evaluate", "--predictions", "masks", "--truth", "prepared"), "prepared: not a readable prepared data set"),
        (
            ("evaluate", *MASKS, "--out", "taken"),
            "cannot write taken: File exists",
        ),
        (
            ("evaluate", *MASKS, "--html", "folder.json"),
            "cannot write folder.json",
        ),
        (("datasets", "inspect", "lists"), "cannot read lists/img_idx/train_x.txt: Is a directory"),
        (("labels", "points", "--to", "coco", "--out", "n.json"), "points/points.csv: not a text file in UTF-8"),
        (("labels", "masks", "--to", "coco", "--out", "taken/n.json"), "cannot write taken/n.json"),
        (("analyse", "roc", "a=points", "--out", "r.png"), "points has no roc.csv"),
        (("analyse", "roc", "a=rocs", "--out", "folder.json/../r.png"), "rocs/roc.csv: not a text file in UTF-8"),
    ],
)
def test_what_the_system_refuses_names_the_file(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "a.png", scene(32, 32))
    for folder in ("lists/images", "lists/masks", "points/images", "masks"):
        save(tmp_path / folder / "a.png", np.where(scene(32, 32, (9, 9)) > 100, 255, 0).astype(np.uint8))
    for folder in ("lists/img_idx/train_x.txt", "folder.json", "blocked/predictions.json/x", "run", "maps", "prepared"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "rocs").mkdir()
    for file in ("points/points.csv", "run/detector.json", "rocs/roc.csv", "maps/a.png"):
        (tmp_path / file).write_bytes(b"\xff\xfe\x00")
    (tmp_path / "prepared/dataset_info.json").write_text("{")
    (tmp_path / "p.json").write_text("[]")
    (tmp_path / "taken").write_text("mine")
    (tmp_path / "dangling.png").symlink_to("nowhere.png")
    assert message in error_of(*arguments)
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_full_disk_and_a_locked_folder_are_one_line(maps, monkeypatch, number):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    arguments = ("evaluate", "--predictions", maps / "maps", "--truth", maps / "masks")
    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "write_text", refuse)
        found = error_of(*arguments, "--out", maps / "out")
        assert f"cannot write {maps / 'out/evaluation.csv'}: {os.strerror(number)}" in found
        assert not (maps / "out").exists()
        assert f"cannot write {maps / 'a.html'}: {os.strerror(number)}" in error_of(
            *arguments, "--html", maps / "a.html"
        )
    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "read_bytes", refuse)
        assert f"cannot read {maps / 'masks/a_gt.png'}: {os.strerror(number)}" in error_of(*arguments)


@pytest.mark.parametrize(
    "arguments", [("predict", "a.png", "--model", "a.pth"), ("benchmark", "--torch", "net.py", "--size", "32")]
)
def test_a_missing_package_names_its_extra(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "torch", None)
    save(tmp_path / "a.png", scene(32, 32))
    for name in ("a.pth", "net.py"):
        (tmp_path / name).write_text("")
    assert "pip install 'irjax[torch]'" in error_of(*arguments)


def test_a_broken_image_leaves_no_traceback(tmp_path):
    bad = truncated(tmp_path / "bad.png")
    command = [sys.executable, "-m", "irjax", "predict", str(bad), "--model", "tophat", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: 1 of 1 images could not be read")
    assert str(bad) in done.stderr


# --- evaluate ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def truth(tmp_path):
    """Three annotated images in the layout `points`."""
    root = tmp_path / "truth"
    for name in ("a", "b", "c"):
        save(root / f"images/{name}.png", scene(40, 60))
    (root / "points.csv").write_text("name,x,y\na,10,20\nb,30,12\nb,50,30\n")
    return root


def predictions(path, points):
    entries = [
        {"image_id": name, "category_id": 1, "keypoints": [x, y, 2], "score": score} for name, x, y, score in points
    ]
    path.write_text(json.dumps(entries))
    return path


def test_evaluate_scores_a_file_of_any_program(tmp_path, truth, capsys):
    file = predictions(tmp_path / "p.json", [("a", 11, 20, 0.9), ("b", 30, 12, 0.8), ("b", 5, 5, 0.2)])
    run("evaluate", "--predictions", file, "--truth", truth, "--out", tmp_path / "report", "--threshold", 0.5)
    metrics = json.loads((tmp_path / "report/evaluation.json").read_text())["protocols"]["centroid"]["metrics"]
    assert (metrics["TP"], metrics["FP"], metrics["FN"]) == (2, 0, 1)
    assert "0.8000" in capsys.readouterr().out
    run("evaluate", "--predictions", file, "--truth", truth)
    assert "0.6667" in capsys.readouterr().out


@pytest.fixture
def maps(tmp_path):
    """A folder of masks, and maps that find one of two targets."""
    for name, targets, found in (("a", [(10, 20)], [(10, 20)]), ("b", [(30, 12)], []), ("c", [], [])):
        for folder, points, end in (("masks", targets, "_gt"), ("maps", found, "")):
            values = np.zeros((40, 60), np.uint8)
            for x, y in points:
                values[y, x] = 255
            save(tmp_path / f"{folder}/{name}{end}.png", values)
    return tmp_path


def test_evaluate_maps_under_several_protocols(maps, capsys):
    run("evaluate", "--predictions", maps / "maps", "--truth", maps / "masks", "--protocol", "sctransnet, irjax",
        "--intervals", "--seed", 3, "--out", maps / "out", "--html", maps / "report.html", "--overlays", 1)  # fmt: skip
    text = capsys.readouterr().out
    line = next(line for line in text.splitlines() if line.startswith("Recall (Pd)"))
    assert line.count("0.5000 [") == 2 and "known flaw of sctransnet" in text
    assert json.loads((maps / "out/evaluation.json").read_text())["intervals"]["seed"] == 3
    assert (maps / "report.html").read_text().startswith("<!DOCTYPE html>")
    assert len(list((maps / "out/overlays").iterdir())) == 1


def test_compare(maps, capsys):
    arguments = ("--predictions", maps / "masks", maps / "maps", "--truth", maps / "masks", "--out", maps / "out")
    run("compare", *arguments)
    text = capsys.readouterr().out
    assert "1 : 0, p = 1" in text and "protocol irjax" in text
    (pair,) = json.loads((maps / "out/comparison.json").read_text())["pairs"]
    assert (pair["a"], pair["b"], pair["metrics"]["Pd"]["difference"]) == ("masks", "maps", 0.5)
    assert "a comparison is under one protocol, got 2" in usage_error_of(
        "compare", *arguments, "--protocol", "irjax,pal"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--split", "test"), "is a folder of masks, which has no split 'test'"),
        (("--key", "T"), "a key names an array in .npz and .mat files, and these are .png"),
        (("--logits",), "a.png: logits must be floats, got uint8"),
    ],
)
def test_evaluate_refuses_for_maps(maps, options, message):
    out = maps / "out"
    found = error_of("evaluate", "--predictions", maps / "maps", "--truth", maps / "masks", "--out", out, *options)
    assert message in found and not out.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--protocol", "irjax,IoU"), "unknown protocol 'IoU'; known: irjax, centroid, basicirstd"),
        (("--protocol", "irjax,irjax"), "protocol 'irjax' is named twice"),
        (("--canvas", "pad"), "a canvas is for protocols that resize"),
        (("--canvas", "crop"), "invalid choice 'crop' for argument '--canvas'"),
        (("--threshold", "3"), "threshold is a probability in [0, 1], got 3"),
        (("--processes", "0"), "processes must be at least 1, got 0"),
        (("--overlays", "-2"), "overlays must not be negative, got -2"),
        (("--clutter-margin", "0"), "the margin of a target's background must be at least 1, got 0"),
        (("--seed", "-1"), "the seed must not be negative, got -1"),
    ],
)
def test_evaluate_is_called_in_a_wrong_way(maps, options, message):
    out = maps / "out"
    arguments = ("evaluate", "--predictions", maps / "maps", "--truth", maps / "masks", "--out", out, *options)
    assert message in usage_error_of(*arguments) and not out.exists()


def test_predictions_of_irjax_are_evaluated(tmp_path, truth, capsys):
    for name, points in (("a", [(10, 20)]), ("b", [(30, 12), (50, 30)]), ("c", [])):
        save(truth / f"images/{name}.png", scene(40, 60, *points))
    run("predict", truth / "images", "--model", "tophat", "--threshold", 0.5, "--out", tmp_path / "out")
    run("evaluate", "--predictions", tmp_path / "out/predictions.json", "--truth", truth)
    assert "F1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ('{"loss": 3}', (), "p.json: not a COCO file"),
        ("hello", (), "p.json: not a JSON file"),
        ("[]", ("--split", "test"), "has no split 'test'; available: all"),
        ("[]", ("--layout", "spire2"), "unknown layout 'spire2'"),
        ("[]", ("--protocol", "pixel"), "unknown protocol 'pixel'"),
        ("[]", ("--protocol", "irjax"), "'irjax' cannot score points, and the predictions are points"),
        ("[]", ("--key", "T"), "p.json: --key and --logits are for maps"),
        (
            '{"images": [{"id": 1, "file_name": "a"}, {"id": 2, "file_name": "a"}], "annotations": []}',
            (),
            "p.json: images[1] repeats the id 2 or the file name a",
        ),
        ('[{"image_id": "z", "keypoints": [1, 2, 2], "score": 1}]', (), "none of its 1 images is in the data set"),
    ],
)
def test_evaluate_refuses(tmp_path, truth, content, options, message):
    (tmp_path / "p.json").write_text(content)
    found, _ = failure("evaluate", "--predictions", tmp_path / "p.json", "--truth", truth, *options)
    assert message in found


# --- datasets, models -------------------------------------------------------------------------------------------------


def test_datasets_build_and_list(tmp_path, monkeypatch, capsys):
    from irjax.data import open_source

    root = tmp_path / "NUDT-SIRST"
    for name in ("a", "b", "c"):
        save(root / f"images/{name}.png", scene(40, 60))
        save(root / f"masks/{name}.png", np.where(scene(40, 60, (30, 20)) == 200, 255, 0).astype(np.uint8))
    (root / "img_idx").mkdir()
    for split, names in (("train", "a\n"), ("val", "b\n"), ("test", "c\n")):
        (root / f"img_idx/{split}_NUDT-SIRST.txt").write_text(names)
    monkeypatch.setenv("IRJAX_DATA", str(tmp_path / "data"))
    with pytest.warns(UserWarning, match="was published with"):
        run("datasets", "build", "nudt_sirst", "--source", root)
    assert "train 1" in capsys.readouterr().out
    found = open_source(tmp_path / "data/nudt_sirst", "test")[0]
    assert found.name == "c" and found.points.tolist() == [[30, 20]]
    assert "exists" in error_of("datasets", "build", "nudt_sirst", "--source", root)

    run("datasets", "list", root)
    assert "layout basicirstd" in (text := capsys.readouterr().out) and "val" in text
    run("datasets", "list")
    assert "sirst_v2/v1" in capsys.readouterr().out


def test_models_lists_cards(model, monkeypatch, capsys):
    monkeypatch.setattr(weights, "names", lambda: {"tiny": pathlib.Path(model)})
    run("models")
    text = capsys.readouterr().out
    assert text.startswith("tiny: spire, ") and "  licence: none\n" in text and "command" not in text
    run("models", "tiny")
    assert {"  licence: none", "  command: none"} <= set(capsys.readouterr().out.splitlines())


def test_models_agree_with_cards_and_files(tmp_path, capsys):
    """What is printed, what --json writes, and what the cards beside the files say."""
    import hashlib

    from irjax.benchmarks.counting import count_macs

    run("models", "--json", tmp_path / "models.json")
    printed = capsys.readouterr().out
    found = json.loads((tmp_path / "models.json").read_text())["weights"]
    assert list(found) == list(weights.names())
    for name, path in weights.names().items():
        variables, config, card = weights.load_weights(path)
        facts, said = found[name], weights.card_text(name, config, card)
        assert path.with_suffix(".md").read_text() == said and facts["card"] == card
        assert facts["bytes"] == path.stat().st_size
        assert facts["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest() and facts["sha256"] in printed
        assert facts["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
        assert f"{name}: {config.method}, {facts['parameters']:,} parameters, {facts['bytes'] / 1e6:.1f} MB" in printed
        assert f"{facts['multiply_adds'] / 1e9:.2f} GMAC" in printed
        assert f"  licence: {card['licence']}\n" in printed
        assert f"{', '.join(card['data']['sets'])}: {card['data']['train']['examples']:,} images" in printed
    config = DetectorConfig(**found["spire-sirst"]["config"])
    images = jnp.zeros((1, config.size, config.size, config.channels))
    shapes = jax.eval_shape(config.module().init, jax.random.key(0), images)
    macs = sum(count_macs(lambda v, x: config.module().apply(v, x, train=False), shapes, images).values())
    assert found["spire-sirst"]["multiply_adds"] == macs


def test_models_tables_what_shipped_weights_reached(capsys):
    run("models")
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert "weights validation split images IoU nIoU Pd F1 TP FP FN".split() in rows
    for name, path in weights.names().items():
        figures = weights.load_weights(path)[2]["validation"]
        for split, one in figures.items():
            (row,) = (row for row in rows if row[:-8] == [name, *split.split()])
            metrics = one["metrics"]
            assert row[-8] == str(one["images"]) and row[-3:] == [str(metrics[key]) for key in ("TP", "FP", "FN")]
            assert row[-7] == (f"{metrics['IoU']:.4f}" if "IoU" in metrics else "-")


def test_version(capsys):
    run("--version")
    assert capsys.readouterr().out == f"irjax {irjax.__version__}\n"
