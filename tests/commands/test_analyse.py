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
        (("--true-area", "big"), "Error parsing --true-area: could not convert string to float: 'big'"),
        (("--shift", "0"), "error: shift must be positive"),
        (("--axis", "cubic"), "invalid choice 'cubic' for argument '--axis'"),
    ],
)
def test_wrong_arguments(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["analyse", "scale-loss", *arguments])
    assert message in str(stopped.value) and "\n" not in str(stopped.value) and stopped.value.code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(SystemExit, match="taken"):
        cli.main(["analyse", "scale-loss", "--variants", "diff", "--out", str(tmp_path / "taken")])
    assert (tmp_path / "taken").read_text() == "mine"


def _roc_csv(folder, shift):
    rates = np.linspace(0, 1, 5)
    lines = [f"pixel,{1 - x},{x},{min(1, x + shift)}" for x in rates] + [f"target,{x},{x * 1e-5},{x}" for x in rates]
    folder.mkdir()
    (folder / "roc.csv").write_text("level,threshold,false_alarm_rate,detection_rate\n" + "\n".join(lines) + "\n")
    return folder


def test_several_rocs_in_one_picture(tmp_path, capsys):
    good, bad = _roc_csv(tmp_path / "good", 0.5), _roc_csv(tmp_path / "bad", 0.0)
    picture = tmp_path / "roc.png"
    cli.main(["analyse", "roc", f"a net={good}", f"chance={bad}", "--out", str(picture)])
    printed = capsys.readouterr().out
    assert "a net" in printed and "0.8750" in printed and "0.5000" in printed  # areas by trapezoids
    with Image.open(picture) as image:
        assert image.size[0] > 500
    cli.main(["analyse", "roc", f"a net={good}", "--level", "target", "--out", str(tmp_path / "roc.svg")])
    row = capsys.readouterr().out.splitlines()[2].split()
    assert row[2:] == ["0.000", "1.000", "1.000", "1.000"]  # at 1e-6, 1e-5, ...


def test_what_is_no_roc(tmp_path):
    good = _roc_csv(tmp_path / "good", 0.5)
    (tmp_path / "points").mkdir()
    (tmp_path / "points" / "roc.csv").write_text(
        "level,threshold,false_alarm_rate,detection_rate\ntarget,.5,0,1\ntarget,.6,0,1\n"
    )
    for arguments, message in (
        ([str(good)], "should be LABEL=DIR"),
        ([f"a={good}", f"a={good}"], "two evaluations are called 'a'"),
        ([f"a={tmp_path}"], "has no roc.csv"),
        ([f"a={good}", "--out", "x.xyz"], "must end in .png, .svg, .pdf, got x.xyz"),
        ([f"a={tmp_path / 'points'}"], "has no pixel curve"),
    ):
        with pytest.raises(SystemExit, match=message):
            cli.main(["analyse", "roc", "--out", str(tmp_path / "x.png"), *arguments])
    assert not (tmp_path / "x.png").exists()
