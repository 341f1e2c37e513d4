"""The reader of command lines: what becomes of words, and what is said of wrong ones."""

import dataclasses
import os
import subprocess
import sys
import warnings
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irjax.errors import UsageError, UserError
from irjax.flags import parse


@dataclasses.dataclass(frozen=True)
class Part:
    """A part.

    Attributes:
      side: a side in pixels.
    """

    side: int = 1

    def __post_init__(self):
        if self.side == 13:
            raise UserError("no side is 13")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """Does what its flags say, in a description that is longer than a line of a terminal of eighty columns, or of
    a wider one, and begins here.

    Attributes:
      name: a name.
      kind: a kind.
      size: a size (default: none).
      limits: two numbers.
    """

    name: str
    kind: Literal["one", "two"] = "one"
    size: int | None = None
    limits: tuple[float, float] | None = None
    part: Part = Part()


WORDS = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1).filter(lambda word: word[0] != "-")


def refusal(*words):
    with pytest.raises(UsageError) as refused:
        parse(Command, words, "irjax command")
    return str(refused.value)


@given(WORDS)
def test_values_are_taken_as_they_are(word):
    assert parse(Command, ["--name", word], "irjax command").name == word
    assert parse(Command, [f"--name={word}", "--size=3"], "irjax command") == Command(name=word, size=3)


@given(WORDS)
def test_a_word_too_many_is_named_whole(word):
    assert f"Unrecognized options: {word}; see" in refusal("--name", "x", word)


def test_none_is_no_value():
    assert parse(Command, ["--name", "None"], "irjax command") == Command(name="None")
    assert "invalid literal for int() with base 10: 'None'" in refusal("--name", "x", "--size", "None")


def test_two_numbers_are_two():
    assert parse(Command, ["--limits", "0", "4.5", "--name", "x"], "irjax command").limits == (0, 4.5)
    assert "Unrecognized options: 7" in refusal("--name", "x", "--limits", "0", "4.5", "7")
    assert "'--limits'. Expected 2 values" in refusal("--name", "x", "--limits", "0")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "Missing from irjax command: --name STR; see irjax command --help"),
        (("--name",), "Missing value for argument '--name'. Expected 1 values; see irjax command --help"),
        (
            ("--name", "x", "--kind", "three"),
            "invalid choice 'three' for argument '--kind'. Expected one of ('one', 'two'); see irjax command --help",
        ),
        (
            ("--name", "x", "--size", "big"),
            "Error parsing --size: invalid literal for int() with base 10: 'big'; see irjax command --help",
        ),
        (
            ("--nam", "x", "--name", "y"),
            "Unrecognized options: --nam, x; Perhaps you meant: --name STR; see irjax command --help",
        ),
        (("--name", "x", "--part.side", "13"), "Error parsing part: no side is 13; see irjax command --help"),
    ],
)
@pytest.mark.parametrize("columns", ["20", "80", "300"])
def test_an_error_is_one_line_in_every_terminal(monkeypatch, capsys, words, said, columns):
    monkeypatch.setenv("COLUMNS", columns)
    assert refusal(*words) == said
    assert os.environ["COLUMNS"] == columns and capsys.readouterr() == ("", "")


def test_other_flags_are_left():
    words = ["--name", "x", "--help", "--part.side", "4", "--loop", "7"]
    found = parse(Part, ["--side", "4", *words], "irjax command", return_unknown_args=True, add_help=False)
    assert found == (Part(4), words)


@pytest.mark.parametrize(("columns", "widest"), [("60", 60), ("80", 80), ("300", 100)])
def test_help_is_plain_text(monkeypatch, capsys, columns, widest):
    monkeypatch.setenv("COLUMNS", columns)
    with pytest.raises(SystemExit) as stopped:
        parse(Command, ["--help"], "irjax command")
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert widest - 25 < max(map(len, lines)) <= widest and text.isascii() and "\x1b" not in text
    assert lines[0].startswith("usage: irjax command [-h]") and lines[2].startswith("Does what its flags say")
    assert "a size (default: none)" in text and "a side in pixels. (default: 1)" in text


def test_what_is_said_on_the_way_is_printed(capsys):
    @dataclasses.dataclass(frozen=True)
    class Loud:
        size: int = 1

        def __post_init__(self):
            print("careful", file=sys.stderr)

    with warnings.catch_warnings():
        parse(Loud, [], "irjax command")
    assert capsys.readouterr().err == "careful\n"


def test_colours_are_left_out_in_a_terminal_as_well():
    code = "from irjax.cli import main; main(['predict', '--help'])"
    pty = f"import pty, sys; sys.exit(pty.spawn([{sys.executable!r}, '-c', {code!r}]) != 0)"
    done = subprocess.run([sys.executable, "-c", pty], capture_output=True, text=True, check=True)
    assert "--max-detections N" in done.stdout and "\x1b" not in done.stdout
