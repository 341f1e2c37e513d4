"""Files and folders of results: whole or not at all, of one run, and the user's own are left alone."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from irjax.errors import FileError, Note, UsageError, UserError
from irjax.io import files
from irjax.io.files import (
    WRITTEN,
    atomic_path,
    check_replaceable,
    check_unclaimed,
    output_file,
    output_folder,
    whole_folder,
    write_json,
    write_text,
)

PICTURES = (".png", ".svg")


def content(folder):
    """{path: text} of all files but the list of what was written."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_text() for name, path in found.items() if name != WRITTEN}


def write(folder, texts, command="a", **options):
    with whole_folder(folder, command, **options) as new:
        for name, text in texts.items():
            write_text(new / name, text)


# --- one rule for --out -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("out", "expected"),
    [
        ("fig", "fig/roc.png"),
        ("a/b.PNG", "a/b.PNG"),
        ("b.svg", "b.svg"),
        ("b.png/", "b.png/roc.png"),
        ("there.png", "there.png/roc.png"),
        ("lr0.05", "lr0.05/roc.png"),
        (".", "roc.png"),
        ("..", "../roc.png"),
        (".hidden", ".hidden/roc.png"),
    ],
)
def test_out_is_a_folder_unless_it_ends_as_a_file_does(tmp_path, monkeypatch, out, expected):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.png").mkdir()
    assert output_file(out, "roc.png", PICTURES) == pathlib.Path(expected)


@pytest.mark.parametrize("out", ["b.jpg", "b.xyz", "a.b/c.csv"])
def test_another_ending_is_said(out):
    with pytest.raises(UsageError, match=r"must end in \.png, \.svg, got .*a folder's name can end in /"):
        output_file(out, "roc.png", PICTURES)


def test_folders_only(tmp_path):
    for out in ("runs/spire.best", "v1.2", "runs", "x.csv/", tmp_path):
        assert output_folder(out) == pathlib.Path(out)
    for out in ("found.csv", "a.PNG", "x/report.html"):
        with pytest.raises(UsageError, match="a folder is written, and .* looks like a file"):
            output_folder(out)


# --- one file ---------------------------------------------------------------------------------------------------------


def test_a_file_that_the_block_writes_elsewhere_is_no_empty_file(tmp_path):
    with pytest.raises(FileError, match="fig"), atomic_path(tmp_path / "fig") as temporary:
        temporary.with_suffix(".png").write_text("picture")
    assert list(tmp_path.iterdir()) == []


def test_an_error_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        _ = 1 / 0
    assert content(tmp_path) == {"a.txt": "old"} and len(list(tmp_path.iterdir())) == 1


def test_new_files_have_the_permissions_of_new_files(tmp_path):
    write_text(tmp_path / "a.txt", "x")
    (tmp_path / "b.txt").write_text("x")
    assert (tmp_path / "a.txt").stat().st_mode == (tmp_path / "b.txt").stat().st_mode


# --- a folder of results ----------------------------------------------------------------------------------------------


def test_all_of_the_last_run_is_replaced(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / "my").mkdir()
    (tmp_path / "my/own.txt").write_text("mine")
    write(tmp_path, {"p.json": "1", "masks/0.png": "1", "masks/1.png": "1", "overlays/0.png": "1"})
    write(tmp_path, {"p.json": "2", "overlays/1.png": "2"})
    assert content(tmp_path) == {"mine.txt": "mine", "my/own.txt": "mine", "p.json": "2", "overlays/1.png": "2"}
    assert not (tmp_path / "masks").exists() and not list(tmp_path.glob(".irjax-unfinished-*"))


@pytest.mark.parametrize("mine", ["p.json", "masks/7.png", "masks/notes/a.txt"])
def test_what_the_user_put_there_is_neither_replaced_nor_mixed(tmp_path, mine):
    entries = ("p.json", "masks")
    write(tmp_path, {"q.json": "1", "masks/0.png": "1"})
    (tmp_path / mine).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / mine).write_text("mine")
    before = content(tmp_path)
    with pytest.raises(UserError, match=f"holds {mine}, not of an earlier a: .* give another folder"):
        write(tmp_path, {"p.json": "2", "masks/1.png": "2"})
    # With the names known, before any work.
    with pytest.raises(UserError, match=mine), whole_folder(tmp_path, "a", entries=entries):
        pytest.fail("work began")
    assert content(tmp_path) == before


def test_links_are_not_followed(tmp_path):
    write(tmp_path / "elsewhere", {"0.png": "1"}, "")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/masks").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="holds masks, not of"):
        write(tmp_path / "out", {"masks/0.png": "2"})
    assert content(tmp_path / "elsewhere") == {"0.png": "1"}


def test_what_the_system_leaves_is_no_file_of_the_user(tmp_path):
    write(tmp_path, {"masks/0.png": "1"})
    (tmp_path / "masks/.DS_Store").write_text("")
    write(tmp_path, {"masks/1.png": "2"})
    assert content(tmp_path) == {"masks/1.png": "2"}


def test_commands_keep_to_their_own_files(tmp_path):
    write(tmp_path, {"p.json": "a"}, "a")
    write(tmp_path, {"report.csv": "b"}, "b")
    with pytest.raises(UserError, match=r"holds p\.json, not of an earlier b"):
        write(tmp_path, {"p.json": "b"}, "b")
    with pytest.raises(UserError, match=r"holds what b wrote \(report\.csv\)"):
        write(tmp_path, {"p.json": "a2"}, "a", alone=True)
    write(tmp_path, {"other.json": "a2"}, "a")
    assert content(tmp_path) == {"other.json": "a2", "report.csv": "b"}
    check_unclaimed(tmp_path / "report.csv", "b")
    with pytest.raises(UserError, match="of the results of b"):
        check_unclaimed(tmp_path / "report.csv", "a")


def test_without_a_command_nothing_is_replaced_and_no_list_is_left(tmp_path):
    write(tmp_path, {"a.txt": "1"}, "")
    with pytest.raises(UserError, match=r"holds a\.txt, not of an earlier irjax"):
        write(tmp_path, {"a.txt": "2"}, "")
    assert os.listdir(tmp_path) == ["a.txt"]


def test_an_error_in_the_block_or_while_moving_changes_nothing(tmp_path, monkeypatch):
    write(tmp_path / "out", {"p.json": "1", "masks/0.png": "1"})
    before, listed = content(tmp_path / "out"), (tmp_path / "out" / WRITTEN).read_text()
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "out", "a") as new:
        write_text(new / "p.json", "half")
        _ = 1 / 0
    assert content(tmp_path / "out") == before
    for last in range(1, 12):
        calls = iter(range(100))

        def replace(source, goal, *, last=last, calls=calls, move=os.replace):
            if pathlib.Path(source).name != WRITTEN and next(calls) == last:
                raise OSError(28, "No space left on device")
            move(source, goal)

        with monkeypatch.context() as patch:
            patch.setattr(files.os, "replace", replace)
            try:
                write(tmp_path / "out", {"p.json": "2", "q.json": "2", "overlays/0.png": "2"})
            except FileError as error:
                assert "No space left" in str(error)
                assert content(tmp_path / "out") == before and (tmp_path / "out" / WRITTEN).read_text() == listed
            else:
                break
    assert last > 5 and content(tmp_path / "out") == {"p.json": "2", "q.json": "2", "overlays/0.png": "2"}
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "new/deep", "a"):
        _ = 1 / 0
    assert not (tmp_path / "new").exists()


_KILLED = """
import os, sys, pathlib
from irjax.io import files
move, left = os.replace, int(sys.argv[2])
def replace(source, goal):
    global left
    left -= 1
    if left < 0:
        os._exit(9)
    move(source, goal)
with files.whole_folder(sys.argv[1], "a") as new:
    for name in ("p.json", "overlays/0.png", "overlays/1.png"):
        (new / name).parent.mkdir(exist_ok=True)
        (new / name).write_text("killed")
    if left < 0:
        os._exit(9)
    os.replace = replace
"""


@pytest.mark.parametrize("moves", range(-1, 8))
def test_a_killed_run_mixes_nothing_and_the_next_one_replaces_all(tmp_path, moves):
    out = tmp_path / "out"
    write(out, {"p.json": "old", "masks/0.png": "old", "masks/1.png": "old"})
    (out / "mine.txt").write_text("mine")
    command = [sys.executable, "-c", _KILLED, str(out), str(moves)]
    assert subprocess.run(command, check=False).returncode == 9
    seen = {text for name, text in content(out).items() if not name.startswith(".")}
    assert seen in ({"mine", "old"}, {"mine"}, {"mine", "killed"})
    write(out, {"p.json": "new"})
    assert content(out) == {"mine.txt": "mine", "p.json": "new"}
    assert sorted(os.listdir(out)) == [WRITTEN, "mine.txt", "p.json"]


def test_a_run_in_progress_is_left_alone(tmp_path):
    with whole_folder(tmp_path, "a") as first:
        write_text(first / "p.json", "first")
        write(tmp_path, {"p.json": "second"}, "a")
        assert (first / "p.json").exists()
    assert content(tmp_path) == {"p.json": "first"}


@pytest.mark.parametrize(
    "listed", [{"a": ["../mine.txt"]}, {"a": ["/", "", ".", "..", "x/../../mine.txt"]}, {"a": [3, None]}]
)
def test_a_list_that_leaves_the_folder_removes_nothing(tmp_path, listed):
    (tmp_path / "mine.txt").write_text("mine")
    write_json(tmp_path / "out" / WRITTEN, listed)
    write(tmp_path / "out", {"p.json": "1"})
    assert content(tmp_path) == {
        "mine.txt": "mine",
        "out/p.json": "1",
        f"out/{WRITTEN}": content(tmp_path)[f"out/{WRITTEN}"],
    }
    assert json.loads((tmp_path / "out" / WRITTEN).read_text()) == {"a": ["p.json"]}


@pytest.mark.parametrize("text", ["{", "[]", '{"a": "p.json"}'])
def test_a_damaged_list_is_an_error_that_names_it(tmp_path, text):
    (tmp_path / WRITTEN).write_text(text)
    with pytest.raises(FileError, match=WRITTEN):
        write(tmp_path, {"p.json": "1"})


# --- folders of versions that left no list ----------------------------------------------------------------------------

PREDICTED = ("predictions.json", "predictions.csv", "masks/a.png", "masks/seq/b.png", "overlays/0001_a.png")
EVALUATED = ("evaluation.json", "evaluation.csv", "per_image.csv", "sweep.csv", "roc.png", "overlays/01_a.png")
TESTED = ("predictions.json", "masks/a.png", "tophat.json", "points/evaluation.json", "points/pr.csv", *EVALUATED)


def earlier(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("earlier")


@pytest.mark.parametrize(
    ("command", "old", "left"),
    [
        ("irjax predict", PREDICTED, ()),
        ("irjax evaluate", EVALUATED, ()),
        ("irjax evaluate", (*PREDICTED[:-1], *EVALUATED), PREDICTED[:-1]),  # what was scored stays beside its report
        ("irjax evaluate", ("evaluation.json", "points/evaluation.json"), ("points/evaluation.json",)),
        ("irjax compare", ("comparison.json", "comparison.csv", "per_image.csv"), ()),
        ("irjax datasets inspect", ("inspect.json", "contact_sheet.png"), ()),
        ("irjax analyse scale-loss", ("scale_loss.json", "scale_loss.svg", "scale_loss.csv"), ()),
        ("irjax analyse relevance", ("selection.json", "selection.png", "01_a.png"), ()),
        ("irjax analyse patches", ("masks.json", "01_a.png"), ()),
    ],
)
def test_results_of_an_earlier_version_are_replaced_and_said(tmp_path, command, old, left):
    earlier(tmp_path, *old, ".DS_Store")
    number = len(old) - len(left)
    with pytest.warns(Note, match=rf"{number} files that an earlier version of irjax wrote are replaced: "):
        write(tmp_path, {"new.json": "new"}, command)
    (tmp_path / ".DS_Store").unlink()
    assert content(tmp_path) == {"new.json": "new", **dict.fromkeys(left, "earlier")}
    write(tmp_path, {"new.json": "newer"}, command)  # and from then on as ever


def test_the_folder_of_an_earlier_test_is_replaced_by_both_parts_of_a_new_one(tmp_path):
    """`irjax.evaluation.detectors` writes the report while the predictions are unfinished."""
    earlier(tmp_path, *TESTED)
    entries = ("evaluation.json", "overlays", "roc.png")
    check_replaceable(tmp_path, "irjax evaluate", entries)
    with pytest.warns(Note, match="earlier version"), whole_folder(tmp_path, "irjax train") as new:
        write_text(new / "predictions.json", "new")
        write(tmp_path, {"evaluation.json": "new"}, "irjax evaluate", entries=entries)
    assert content(tmp_path) == {
        **dict.fromkeys(("predictions.json", "evaluation.json"), "new"),
        **dict.fromkeys(("tophat.json", "points/evaluation.json", "points/pr.csv"), "earlier"),
    }
    with pytest.warns(Note, match="2 files that an earlier version"):
        write(tmp_path / "points", {"evaluation.json": "new"}, "irjax evaluate")


@pytest.mark.parametrize(
    "mine",
    ["notes.txt", "masks/notes.txt", "masks/deep/a.tif", "overlays/mine.png", "predictions.json.bak", "images/a.png"],
)
def test_anything_else_in_it_makes_the_folder_the_users(tmp_path, mine):
    earlier(tmp_path, *PREDICTED, mine)
    before = content(tmp_path)
    with pytest.raises(UserError, match="not of an earlier irjax predict: .*give another folder"):
        write(tmp_path, {"predictions.json": "new"}, "irjax predict")
    assert content(tmp_path) == before


@pytest.mark.parametrize("old", [("predictions.json",), ("masks/a.png",), ("masks/a.png", "predictions.csv")])
def test_files_without_those_that_a_command_always_wrote_are_the_users(tmp_path, old):
    earlier(tmp_path, *old)
    with pytest.raises(UserError, match=f"holds {old[0]}"):
        write(tmp_path, dict.fromkeys(old, "new"), "irjax predict")


def test_predictions_are_not_replaced_beside_an_earlier_report_about_them(tmp_path):
    earlier(tmp_path, *PREDICTED, *EVALUATED)
    with pytest.raises(UserError, match=r"holds what irjax evaluate wrote \(evaluation\.csv\)"):
        write(tmp_path, {"predictions.json": "new"}, "irjax predict", alone=True)


_NAMES = st.sampled_from(["p", "q", "m/0", "m/1", "m/n/0", "o/0", "o/1"])
_STEPS = st.lists(st.tuples(st.sampled_from(["run", "mine"]), st.sets(_NAMES, min_size=1)), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_STEPS)
def test_a_folder_holds_the_users_files_and_those_of_one_run(steps):
    with tempfile.TemporaryDirectory() as name:
        folder, mine, run = pathlib.Path(name), {}, {}
        for number, (who, names) in enumerate(steps):
            if who == "mine":
                new = {n: f"mine {number}" for n in names if n not in run}
                for path, text in new.items():
                    (folder / path).parent.mkdir(parents=True, exist_ok=True)
                    (folder / path).write_text(text)
                mine |= new
            else:
                new = {n: f"run {number}" for n in names}
                entries = {n.split("/")[0] for n in (*new, *run)}
                if any(n.split("/")[0] in entries for n in mine):
                    with pytest.raises(UserError, match="not of an earlier a"):
                        write(folder, new)
                else:
                    write(folder, new)
                    run = new
            assert content(folder) == mine | run
