"""irjax labels."""

import json

import numpy as np
import pytest
from PIL import Image

from irjax import cli


def run(*arguments):
    cli.main([str(argument) for argument in arguments])


def error_of(*arguments):
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    message = str(stopped.value)
    assert message.startswith("error: ") and "\n" not in message and stopped.value.code in (1, 2), message
    return message


@pytest.fixture
def masks(tmp_path):
    folder = tmp_path / "masks"
    folder.mkdir()
    mask = np.zeros((24, 32), np.uint8)
    mask[4:7, 10:13] = mask[7, 13] = 255
    Image.fromarray(mask).save(folder / "a.png")
    Image.fromarray(np.zeros((24, 32), np.uint8)).save(folder / "b.png")
    return folder


def test_it_converts_and_says_what_it_did(tmp_path, masks, capsys):
    run("labels", masks, "--to", "coco", "--out", tmp_path / "a.json", "--connectivity", 4)
    text = capsys.readouterr().out
    assert f"{masks} (masks): 2 targets in 2 images, 1 without any" in text
    assert (
        "masks made binary by: all 0: no targets 1, two levels, 0 and 255 1" in text
        and "a.json" in text.splitlines()[-1]
    )
    content = json.loads((tmp_path / "a.json").read_text())
    assert [entry["bbox"] for entry in content["annotations"]] == [[10, 4, 3, 3], [13, 7, 1, 1]]
    run("labels", tmp_path / "a.json", "--to", "masks", "--radius", 1, "--out", tmp_path / "discs")
    assert "note: 1 masks have targets that touch and are one region, such as a" in capsys.readouterr().out
    assert np.asarray(Image.open(tmp_path / "discs/a.png")).astype(bool).sum() == 10
    run("labels", masks, "--to", "points", "--points", "coarse", "--seed", 5, "--out", tmp_path / "p.csv")
    assert "note: 1 images without targets have no line" in capsys.readouterr().out
    name, x, y = (tmp_path / "p.csv").read_text().splitlines()[1].split(",")
    assert name == "a" and np.asarray(Image.open(masks / "a.png"))[int(float(y)), int(float(x))] == 255


def test_every_option_reaches_the_library(tmp_path, masks, capsys):
    run("labels", masks, "--to", "voc", "--out", tmp_path / "voc")
    run("labels", tmp_path / "voc", "--from", "voc", "--box-convention", "sirst_v2", "--to", "coco", "--out",
        tmp_path / "s.json")  # fmt: skip
    content = json.loads((tmp_path / "s.json").read_text())
    assert content["annotations"][0]["bbox"] == [10, 4, 3, 3]
    run("labels", masks, "--to", "yolo", "--out", tmp_path / "yolo")
    run("labels", tmp_path / "yolo", "--images", masks, "--to", "points", "--out", tmp_path / "p.csv")
    assert "a,11.5,5.5" in (tmp_path / "p.csv").read_text()
    root = tmp_path / "set"
    (root / "images").mkdir(parents=True)
    masks.rename(root / "masks")
    for name in ("a", "b"):
        Image.fromarray(np.zeros((24, 32), np.uint8)).save(root / f"images/{name}.png")
    run("labels", root, "--split", "all", "--layout", "folder", "--to", "points", "--out", tmp_path / "q.csv")
    assert "(dataset): 1 targets in 2 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("absent", "--to", "coco", "--out", "a.json"), "there is no file or folder absent"),
        (("masks", "--to", "kitti", "--out", "a"), "invalid choice 'kitti' for argument '--to'"),
        (("masks", "--to", "coco"), "Missing from irjax labels: --out FILE_OR_DIR"),
        (("masks", "--to", "coco", "--out", "a.csv"), "a file must end in .json, got a.csv"),
        (("masks", "--to", "voc", "--out", "a.xml"), "a folder is written, and a.xml looks like a file"),
        (("masks", "--to", "points", "--out", "a.csv", "--points", "coarse", "--seed", "-1"), "must not be negative"),
        (("masks", "--to", "voc", "--out", "masks"), "masks exists already"),
        (("masks", "--from", "dataset", "--to", "voc", "--out", "a"), "in no known layout"),
    ],
)
def test_wrong_arguments(masks, monkeypatch, arguments, message):
    monkeypatch.chdir(masks.parent)
    assert message in error_of("labels", *arguments)
    assert [path.name for path in masks.parent.iterdir()] == ["masks"]


def test_two_folders_and_bad_images(tmp_path, masks, capsys):
    images = tmp_path / "frames"
    images.mkdir()
    for name in "abcdefgh":
        Image.fromarray(np.full((24, 32), 9, np.uint8)).save(images / f"{name}.png")
        if name > "c":
            Image.fromarray(np.zeros((24, 32), np.uint8)).save(masks / f"{name}.png")
    said = ("--images", "frames", "--masks", masks)
    message = error_of("labels", tmp_path, *said, "--to", "points", "--out", tmp_path / "p.csv")
    assert "no mask for" in message and "c.png" in message and "--skip-bad" in message
    run("labels", tmp_path, *said, "--skip-bad", "--to", "points", "--out", tmp_path / "p.csv")
    found = capsys.readouterr()
    assert "(dataset): 1 targets in 7 images, 6 without any, 1 left out" in found.out
    assert "note: 1 of 8 images are left out: no mask for" in found.err
    run("datasets", "list", tmp_path, *said, "--skip-bad")
    assert "all              7 images, 1 left out" in capsys.readouterr().out
    run("datasets", "inspect", tmp_path, *said)
    assert "c.png" in capsys.readouterr().out
    assert "are given together" in error_of("datasets", "list", tmp_path, "--images", "frames")
    assert "--images DIR --masks DIR" in error_of("datasets", "list", tmp_path)


def test_boxes_become_masks(tmp_path, masks):
    run("labels", masks, "--to", "voc", "--out", tmp_path / "voc")
    run("labels", tmp_path / "voc", "--to", "masks", "--out", tmp_path / "filled")
    assert np.asarray(Image.open(tmp_path / "filled/a.png")).astype(bool).sum() == 16
    run("labels", tmp_path / "voc", "--to", "masks", "--radius", 0, "--out", tmp_path / "points")
    assert np.asarray(Image.open(tmp_path / "points/a.png")).astype(bool).sum() == 1
