"""irjax analyse."""

import json

import numpy as np
import pytest
from PIL import Image

from irjax import cli


def test_scale_loss_passes_its_options_on(tmp_path, capsys):
    pictures = {}
    for axis in ("log", "linear"):
        out = tmp_path / axis
        cli.main(["analyse", "scale-loss", "--true-area", "16", "--shift", "1", "--variants", "ratio, variance",
                  "--axis", axis, "--out", str(out)])  # fmt: skip
        content = json.loads((out / "scale_loss.json").read_text())
        assert content["true_area_px"] == 16 and content["shift_px"] == 1
        assert [row["variant"] for row in content["table"]] == ["none", "ratio", "variance"] * 2
        pictures[axis] = np.asarray(Image.open(out / "scale_loss.png"))
    assert not np.array_equal(pictures["log"], pictures["linear"])
    text = capsys.readouterr().out
    assert "8, 24" in text and str(tmp_path / "linear") in text.splitlines()[-1]  # minima at g -+ 2 sqrt(g)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--variants", "sls"), "error: variants must be different ones of variance, ratio"),
        (("--true-area", "-3"), "error: true_area must be positive"),
        (("--true-area", "big"), "argument --true-area: invalid float value: 'big'"),
        (("--shift", "0"), "error: shift must be positive"),
        (("--axis", "cubic"), "argument --axis: invalid choice: 'cubic'"),
    ],
)
def test_wrong_arguments(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["analyse", "scale-loss", *arguments])
    assert message in stopped.value.code and "\n" not in stopped.value.code
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(SystemExit, match="taken"):
        cli.main(["analyse", "scale-loss", "--variants", "diff", "--out", str(tmp_path / "taken")])
    assert (tmp_path / "taken").read_text() == "mine"
