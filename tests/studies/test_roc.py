"""irjax analyse roc: several ROC curves in one picture."""

import numpy as np
import pytest

from irjax import cli
from irjax.io.files import whole_folder, write_text
from irjax.reports import curves
from irjax.studies.roc import draw_rocs, read_roc


def evaluation(folder):
    """What `irjax evaluate` leaves: two pixel points four decades apart, and targets."""
    lines = ["pixel,nan,0,0", "pixel,.5,1e-6,.2", "pixel,.2,1e-2,.8", "pixel,nan,1,1", "target,.5,1e-5,.5"]
    with whole_folder(folder, "irjax evaluate") as new:
        write_text(
            new / "roc.csv", "\n".join(["level,threshold,false_alarm_rate,detection_rate", *lines, "target,.2,1e-4,.9"])
        )
        write_text(new / "roc.png", "of the evaluation")
    return folder


def rows(text):
    return {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.startswith(("A ", "M "))}


@pytest.mark.parametrize(
    ("out", "written"),
    [
        ("fig", "fig/roc.png"),
        ("x.png", "x.png"),
        ("fig.pdf", "fig.pdf"),
        ("v1.2", "v1.2/roc.png"),
        ("d.svg/", "d.svg/roc.png"),
    ],
)
def test_out_is_a_folder_or_a_picture(tmp_path, monkeypatch, capsys, out, written):
    monkeypatch.chdir(tmp_path)
    evaluation(tmp_path / "e")
    for _ in range(2):  # the second takes the place of the first
        cli.main(["analyse", "roc", "A=e", "--out", out])
    assert capsys.readouterr().out.splitlines()[-1] == f"written to {written}"
    assert (tmp_path / written).stat().st_size > 5000
    seen = [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size == 0]
    assert not seen and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("out", [".", "roc.png", "mine"])
def test_pictures_of_others_are_not_replaced(tmp_path, monkeypatch, out):
    monkeypatch.chdir(evaluation(tmp_path / "e"))
    (tmp_path / "e/mine").mkdir()
    (tmp_path / "e/mine/roc.png").write_text("mine")
    with pytest.raises(SystemExit, match=r"roc\.png"):
        cli.main(["analyse", "roc", "A=.", "--out", out])
    assert (tmp_path / "e/roc.png").read_text() == "of the evaluation"
    assert (tmp_path / "e/mine/roc.png").read_text() == "mine"


def test_the_table_says_what_is_drawn(tmp_path, capsys, monkeypatch):
    shown = []
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: shown.append(figure.axes[0]))
    folder = evaluation(tmp_path / "e")
    for level, expected in (
        ("pixel", ["0.200", "0.201", "0.206", "0.260"]),
        ("target", ["-", "0.500", "0.900", "0.900"]),
    ):
        draw_rocs(tmp_path / "x.png", [f"A={folder}"], level)
        assert rows(capsys.readouterr().out)["A"][:4] == expected
        x, y = shown[-1].lines[0].get_data()
        for rate, text in zip((1e-6, 1e-5, 1e-4, 1e-3), expected, strict=True):
            if text != "-" and x[0] <= rate <= x[-1]:
                # On the screen lines are straight in the logarithm.
                assert np.interp(np.log(rate), np.log(x), y) == pytest.approx(float(text), abs=2e-3)


def test_users_cases(shared, tmp_path, capsys, monkeypatch):
    cases = shared / "cases"
    if not cases.is_dir():
        pytest.skip("needs ../shared/cases")
    cli.main(["analyse", "roc", f"A={cases / 'roc_out'}", "--out", str(tmp_path / "fig")])
    assert (tmp_path / "fig/roc.png").stat().st_size > 5000 and not list(tmp_path.glob(".*"))
    capsys.readouterr()
    shown = []
    monkeypatch.setattr(curves, "save_figure", lambda figure, path: shown.append(figure.axes[0]))
    cli.main(["analyse", "roc", f"M={cases / 'roc_picture'}", "--out", str(tmp_path / "x.png")])
    assert rows(capsys.readouterr().out)["M"][3] == "0.844"
    x, y = shown[0].lines[0].get_data()
    false, true = read_roc(cases / "roc_picture", "pixel")
    for rate in np.geomspace(2e-4, 0.9, 50):
        assert np.interp(np.log(rate), np.log(x), y) == pytest.approx(np.interp(rate, false, true), abs=1e-3)
