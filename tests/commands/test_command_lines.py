"""The command lines of all commands and experiments: their help, and what is said of wrong ones."""

import dataclasses
import importlib
import pathlib
import re
import subprocess
import sys
import typing

import numpy as np
import pytest
import tifffile
from PIL import Image

from irjax import cli
from irjax.commands import COMMANDS
from irjax.errors import CommandExit, Note
from irjax.io.images import Depth

GROUPS = {name.rpartition(" ")[0] for name in COMMANDS} - {""}
LEAVES = [name for name in COMMANDS if name not in GROUPS and not name.startswith("train ")]
METHODS = ["adsnet", "mshnet", "na_irstd", "spire"]
# What each needs besides its flags.
NEEDED = {
    "export": ("spire-sirst",),
    "predict": ("a.png",),
    "evaluate": ("--predictions", "a", "--truth", "b"),
    "compare": ("--truth", "a"),
    "datasets build": ("spire",),
    "datasets inspect": ("a",),
    "labels": ("a", "--to", "coco", "--out", "b"),
    "analyse patches": ("a", "--model", "b"),
    "analyse relevance": ("a", "--model", "b"),
    "analyse roc": ("a=b",),
}


def kind_of(name):
    module = importlib.import_module(f"irjax.commands.{name.split()[0]}")
    return getattr(module, name.split()[-1].title().replace("-", ""))


def refusal(capsys, *words, status=2):
    with pytest.raises(CommandExit) as stopped:
        cli.main([str(word) for word in words])
    printed = capsys.readouterr()
    line = str(stopped.value)
    assert stopped.value.code == status and not printed.out and printed.err == f"{line}\n" and "\n" not in line
    assert line.startswith("error: ")
    return line


def help_of(capsys, *words):
    try:
        cli.main([*words, "--help"])
    except SystemExit as stopped:
        assert not stopped.code
    return capsys.readouterr().out


def flags_of(kind):
    """The flags of a command, those of its parts included."""
    for field in dataclasses.fields(kind):
        if dataclasses.is_dataclass(field.default) or field.name == "scoring":
            yield from flags_of(typing.get_type_hints(kind)[field.name])
        else:
            yield field.name


# --- help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", ["", *sorted(GROUPS)])
def test_help_lists_what_there_is(group, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = help_of(capsys, *group.split())
    assert max(map(len, text.splitlines())) <= 80 and text.startswith(f"usage: irjax {group}".rstrip() + " [-h]")
    for name, about in COMMANDS.items():
        if name.rpartition(" ")[0] == group:
            assert re.search(rf"^  {name.rpartition(' ')[2]} +{about.split()[0]}", text, re.MULTILINE), name


@pytest.mark.parametrize("name", LEAVES)
def test_help_explains_every_flag(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = help_of(capsys, *name.split())
    assert max(map(len, text.splitlines())) <= 80 and text.isascii() and "None" not in text and "''" not in text
    assert text.startswith(f"usage: irjax {name} [-h]")
    entries = re.split(r"\n  (?=[^ ])", text)  # a flag and its help
    for flag in flags_of(kind_of(name)):
        spelt = {"kind": "from"}.get(flag, flag).replace("_", "-")
        of_flag = [entry for entry in entries if re.match(rf"--{spelt}\b(?!-)", entry)]
        if not of_flag:
            assert flag in ("paths", "name", "names", "root", "source", "folder", "evaluations")  # positional
            continue
        (entry,) = of_flag
        told = re.sub(r"\((default|required)[^)]*\)", "", entry.partition(spelt)[2])
        assert len(re.findall(r"\b[a-z]{2,}\b", told)) >= 2, entry


def test_only_what_is_asked_for_is_imported():
    heavy = ("jax", "numpy", "tyro", "flax", "matplotlib")
    for words, allowed in (("--help", ""), ("datasets --help", ""), ("--version", ""), ("predict --help", "tyro"),
                           ("evaluate --help", "tyro"), ("labels --help", "tyro")):  # fmt: skip
        code = (
            "import sys; from irjax import cli\n"
            f"try: cli.main({words.split()})\nexcept SystemExit: pass\n"
            f"print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stderr == f"{[allowed] if allowed else []}\n", words


@pytest.mark.parametrize("name", METHODS)
def test_train_has_the_flags_of_the_experiment(name, capsys):
    text = help_of(capsys, "train", name)
    assert text.startswith(f"usage: irjax train {name} [-h]")
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(f"irjax.experiments.{name}").main(["--help"])
    own = capsys.readouterr().out
    assert stopped.value.code == 0 and own.startswith(f"usage: python -m irjax.experiments.{name} [-h]")
    assert own.partition("\n")[2] == text.partition("\n")[2]
    for flag in ("--data.root", "--subset {,irstd-hard}", "--loop.minutes", "--data.no-enlarge", "--data.bits"):
        assert flag in text


# --- what is wrong ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LEAVES)
def test_what_is_no_flag_is_refused(name, capsys):
    line = refusal(capsys, *name.split(), *NEEDED.get(name, ()), "--no-such-flag")
    assert "Unrecognized options: --no-such-flag" in line and line.endswith(f"; see irjax {name} --help")


@pytest.mark.parametrize("name", sorted(NEEDED))
def test_what_is_missing_is_named(name, capsys):
    line = refusal(capsys, *name.split())
    assert line.startswith(f"error: Missing from irjax {name}: ") and line.endswith(f"; see irjax {name} --help")
    for word in NEEDED[name]:
        assert not word.startswith("--") or word in line


@pytest.mark.parametrize(
    ("name", "flag", "value"),
    [
        ("predict", "--stretch", "'log'"),
        ("evaluate", "--crop", "'left'"),
        ("compare", "--scale", "'min'"),
        ("datasets list", "--stretch", "'log'"),
        ("datasets inspect", "--stretch", "'log'"),
        ("labels", "--from", "'kitti'"),
        ("benchmark", "--channels", "'2'"),
        ("analyse scale-loss", "--axis", "'cubic'"),
        ("analyse patches", "--stretch", "'log'"),
        ("analyse relevance", "--stretch", "'log'"),
        ("analyse roc", "--level", "'image'"),
    ],
)
def test_a_wrong_choice_is_refused(name, flag, value, capsys):
    line = refusal(capsys, *name.split(), *NEEDED.get(name, ()), flag, value.strip("'"))
    assert f"invalid choice {value} for argument '{flag}'. Expected one of (" in line and "None" not in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "COMMAND is missing, one of train, predict, app, evaluate,"),
        (("datasets",), "COMMAND is missing, one of build, list, inspect; see irjax datasets --help"),
        (("analyse", "rocs"), "invalid choice 'rocs' for COMMAND, expected one of scale-loss, patches,"),
        (("--verbose",), "invalid choice '--verbose' for COMMAND"),
        (("train",), "METHOD is missing, one of adsnet, mshnet, na_irstd, spire, MODULE:ATTRIBUTE;"),
        (("predict", "a.png", "--range", "0"), "'--range'. Expected 2 values"),
        (("predict", "a.png", "--range", "2", "1"), "range must be LOW HIGH with LOW below HIGH, got 2.0 1.0"),
        (("predict", "a.png", "--bits", "12", "--stretch", "minmax"), "bits and stretch exclude each other"),
        (("compare", "--predictions", "a", "--truth", "b"), "two are compared, of --predictions and --models, got 1"),
        (("datasets", "inspect", "a", "--near", ".9", ".8"), "--near takes one number, got 2"),
        (("benchmark", "--sparse", "--method", "mshnet"), "--method does not go with --sparse"),
    ],
)
def test_other_wrong_words(words, said, capsys):
    assert said in refusal(capsys, *words)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--no-such-flag",), "Unrecognized options: --no-such-flag"),
        (("stray",), "Unrecognized options: stray"),
        (("--recipe", "fast"), "invalid choice 'fast' for argument '--recipe'. Expected one of ('quick',"),
        (("--subset", "hard"), "invalid choice 'hard' for argument '--subset'. Expected one of"),
        (("--loop.steps",), "Missing value for argument '--loop.steps'"),
        (("--loop.steps", "few"), "Error parsing --loop.steps: invalid literal for int() with base 10: 'few'"),
        (("--loop.batch-size", "0"), "loop.batch_size must be at least 1, got 0"),
        (("--data.range", "1", "2", "3"), "range must be LOW HIGH"),
    ],
)
def test_experiments_refuse_in_the_same_way(name, words, said, capsys):
    line = refusal(capsys, "train", name, *words)
    assert said in line and line.endswith(f"; see irjax train {name} --help")
    with pytest.raises(CommandExit) as stopped:
        importlib.import_module(f"irjax.experiments.{name}").main(words)
    assert stopped.value.code == 2
    assert str(stopped.value) == line.replace(f"irjax train {name}", f"python -m irjax.experiments.{name}")


def test_argparse_is_left_where_tyro_may_be_missing():
    root = pathlib.Path(cli.__file__).parent
    using = [path for path in root.rglob("*.py") if re.search(r"(import|from) argparse\b", path.read_text("utf-8"))]
    assert using == [root / "experiments/weights.py"]


# --- names of before --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["--protocol", "irstd-hard"], ["--protocol=irstd-hard"]])
def test_the_subset_has_its_earlier_name(words, capsys, monkeypatch):
    from irjax.experiments import mshnet

    with pytest.warns(Note, match="^--protocol is called --subset now"):
        assert mshnet.parse(words) == mshnet.parse(["--subset", "irstd-hard"])
    monkeypatch.setattr("irjax.experiments.command.keep_freed_memory", lambda: None)
    with pytest.raises(SystemExit):
        cli.main(["train", "mshnet", "--eval-only", "mshnet-sirst", "--ship", "a.safetensors", *words])
    lines = capsys.readouterr().err.splitlines()
    assert [line[:6] for line in lines] == ["error:", "note: "] and "--subset" in lines[1]


def test_underscores_are_taken_for_hyphens(capsys):
    assert "must be at least 1, got 0" in refusal(capsys, "predict", "a.png", "--max_detections", "0")


# --- depth ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def deep(tmp_path):
    """A data set of float images in degrees, which no command can read without being told what is black and white."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        image, mask = rng.uniform(20, 30, (32, 40)).astype(np.float32), np.zeros((32, 40), np.uint8)
        image[9:12, 20:23] = 60
        mask[9:12, 20:23] = 255
        for folder, values in (("images", image), ("masks", mask)):
            (tmp_path / "set" / folder).mkdir(parents=True, exist_ok=True)
            if folder == "images":
                tifffile.imwrite(tmp_path / f"set/images/{name}.tif", values)
            else:
                Image.fromarray(values).save(tmp_path / f"set/masks/{name}.png")
    return tmp_path / "set"


RANGE = ("--range", "0", "100")
TOLD = "say which are black and white: --range LOW HIGH"


def run(*words):
    cli.main([str(word) for word in words])


def test_inspect_takes_the_depth(deep, capsys):
    run("datasets", "inspect", deep)
    assert TOLD in capsys.readouterr().out
    run("datasets", "inspect", deep, *RANGE)
    text = capsys.readouterr().out
    assert TOLD not in text and "a.tif" not in text
    run("datasets", "list", deep, "--skip-bad", *RANGE)
    assert "2 images\n" in capsys.readouterr().out
    with pytest.raises(CommandExit, match="none of its images can be used"):
        run("datasets", "list", deep, "--skip-bad")
    assert TOLD in capsys.readouterr().err


def test_evaluate_takes_the_depth(deep, tmp_path, capsys):
    (tmp_path / "maps").mkdir()
    for name in ("a", "b"):
        response = np.random.default_rng(1).integers(0, 200, (32, 40), np.uint8)
        Image.fromarray(response).save(tmp_path / f"maps/{name}.png")
    words = ("evaluate", "--predictions", tmp_path / "maps", "--truth", deep, "--out")
    assert TOLD in refusal(capsys, *words, tmp_path / "unsaid", status=1)
    run(*words, tmp_path / "out", *RANGE)
    pictures = sorted((tmp_path / "out/overlays").iterdir())
    run(*words, tmp_path / "dark", "--range", "0", "1000000")
    assert len(pictures) == 2 and "signal-to-clutter" in capsys.readouterr().out
    gains = [(tmp_path / name / "clutter.csv").read_text() for name in ("out", "dark")]
    assert gains[0] != gains[1]  # a range that is too wide leaves the targets a few levels


def test_points_need_the_depth_of_their_images(deep, tmp_path, capsys):
    (deep / "masks").rename(tmp_path / "masks")
    (deep / "points.csv").write_text("name,x,y\na,21,10\nb,21,10\n")
    (tmp_path / "p.csv").write_text("name,x,y,score\na,21,10,.9\nb,21,10,.8\n")
    for words in (
        ("evaluate", "--predictions", tmp_path / "p.csv", "--truth", deep),
        ("compare", "--predictions", tmp_path / "p.csv", f"b={tmp_path / 'p.csv'}", "--truth", deep),
        ("labels", deep, "--to", "coco", "--out", tmp_path / "a.json"),
    ):
        assert TOLD in refusal(capsys, *words, status=1)
        run(*words, *RANGE)
        capsys.readouterr()


def test_a_depth_without_images_is_refused(deep, tmp_path, capsys, monkeypatch):
    masks = deep / "masks"
    line = refusal(capsys, "evaluate", "--predictions", masks, "--truth", masks, "--bits", 12, status=1)
    assert f"{masks} is a folder of masks, without images" in line
    line = refusal(capsys, "labels", masks, "--to", "coco", "--out", tmp_path / "a.json", "--bits", 12, status=1)
    assert "white 4095: that is for the images of a data set" in line
    monkeypatch.setattr("irjax.data.sources._prepared", lambda root: [root])
    line = refusal(capsys, "evaluate", "--predictions", masks, "--truth", deep, "--bits", 12, status=1)
    assert f"{deep} is prepared, with images at full scale: white 4095 is for folders" in line


@pytest.mark.parametrize(
    ("name", "function"), [("patches", "patches.draw_kept_patches"), ("relevance", "relevance.analyse_relevance")]
)
def test_analyses_pass_the_data_flags_on(name, function, tmp_path, monkeypatch):
    passed = []
    monkeypatch.setattr(f"irjax.studies.{function}", lambda out, *words, **flags: passed.append((words, flags)))
    run("analyse", name, "DATA", "--model", "m", "--images", "i", "--masks", "k", "--split", "s", "--number", 3,
        "--stretch", "minmax", "--out", tmp_path / "out")  # fmt: skip
    ((words, flags),) = passed
    assert words == ("m", "DATA") and flags.pop("depth") == Depth(stretch="minmax")
    assert flags == {"split": "s", "number": 3, "layout": "auto", "images": "i", "masks": "k"}
