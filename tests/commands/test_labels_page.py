"""The commands and the code of docs/labels.md run as they are written."""

import json
import pathlib
import re
import shlex
import shutil

import numpy as np
import pytest
from PIL import Image

from irjax import cli

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs/labels.md"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def commands():
    return [shlex.split(line, comments=True) for block in blocks("bash") for line in block.splitlines() if line]


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for folder in ("images", "masks", "img_idx"):
        (tmp_path / "DATA" / folder).mkdir(parents=True)
    for name in "abc":
        mask = np.zeros((24, 32), np.uint8)
        mask[5:8, 9:13] = 255
        Image.fromarray(mask).save(tmp_path / f"DATA/masks/{name}.png")
        Image.fromarray(rng.integers(0, 99, mask.shape).astype(np.uint8)).save(tmp_path / f"DATA/images/{name}.png")
    for folder, copy in (("images", "frames"), ("masks", "truth")):
        shutil.copytree(tmp_path / "DATA" / folder, tmp_path / copy)
    (tmp_path / "DATA/img_idx/train_DATA.txt").write_text("a\nb\n")
    (tmp_path / "DATA/img_idx/test_DATA.txt").write_text("c\n")
    return tmp_path


def test_the_commands(data, capsys):
    assert len(commands()) >= 10
    for program, *arguments in commands():
        assert program == "irjax"
        cli.main(arguments)
    written = {path.name for path in (data / "out").iterdir()}
    assert written == {
        "points.csv",
        "coarse.csv",
        "train.json",
        "all.json",
        "filled",
        "yolo",
        "voc",
        "boxes.json",
        "discs",
        "inspect",
        "train",
    }
    boxes = json.loads((data / "out/boxes.json").read_text())["annotations"]
    assert [entry["bbox"] for entry in boxes] == [[9, 5, 4, 3]] * 3
    assert json.loads((data / "out/inspect/inspect.json").read_text())["near_duplicates_above"] == 0.99
    assert "contact_sheet.png" in capsys.readouterr().out


def test_the_code():
    (code,) = blocks("python")
    found = {}
    exec(code, found)
    np.testing.assert_array_equal(found["label_mask"](found["mask"]).boxes, [[4, 7, 7, 9]])


def test_inspect_says_what_is_wrong(data, capsys):
    (data / "DATA/images/b.png").write_text("hello")
    cli.main(["datasets", "inspect", "DATA"])
    text = capsys.readouterr().out
    assert "defect: 1 images cannot be read\n    images/b.png: not a readable image" in text
    for arguments, message in (
        (["absent"], "no folder absent"),
        (["DATA", "--split", "val"], "no published split 'val'"),
        (["DATA", "--layout", "x"], "unknown layout 'x'"),
        (["DATA", "--near", "2"], "between 0 and 1, got 2"),
        (["DATA", "--out", "DATA/images/a.png"], "a.png"),
    ):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["datasets", "inspect", *arguments])
        assert str(stopped.value).startswith("error: ") and message in str(stopped.value)
