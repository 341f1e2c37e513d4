"""The progress bar: only on a terminal, only of what takes long, of every command that goes over images."""

import io
import time
import types

import numpy as np
import pytest
from PIL import Image

from irjax import bars, cli


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """What a terminal on stderr would show; pytest replaces stderr itself."""
    shown = Terminal()
    monkeypatch.setattr(bars, "sys", types.SimpleNamespace(stderr=shown))
    return shown


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(bars, "DELAY", 0.0)


def test_the_items_come_through(terminal, at_once):
    assert list(bars.bar(iter("abc"), "reading", total=3)) == ["a", "b", "c"]
    assert "reading:   0%" in terminal.getvalue() and "0/3" in terminal.getvalue()


def test_what_is_quick_shows_nothing(terminal):
    assert bars.DELAY == 2 and list(bars.bar(range(5), "reading")) == [0, 1, 2, 3, 4]
    assert not terminal.getvalue().strip()


def test_what_takes_longer_than_the_delay_shows(terminal, monkeypatch):
    monkeypatch.setattr(bars, "DELAY", 0.2)
    for _ in bars.bar(range(4), "reading"):
        time.sleep(0.15)
    assert "reading:" in terminal.getvalue() and "0/4" not in terminal.getvalue()


def test_a_file_gets_no_bar(monkeypatch, at_once):
    monkeypatch.setattr(bars, "sys", types.SimpleNamespace(stderr=io.StringIO()))
    assert list(bars.bar(range(2), "reading")) == [0, 1] and not bars.sys.stderr.getvalue()


@pytest.fixture
def folder(tmp_path):
    for name in ("images", "masks"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(2):
            mask = np.pad(np.full((3, 3), 255, np.uint8), 20 + number)
            Image.fromarray(mask).save(tmp_path / "set" / name / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("predict {}/set/images --model tophat --overlays 0 --out {}/out", "detecting"),
        ("evaluate --predictions {}/set/masks --truth {}/set/masks --out {}/out --overlays 2", "scoring drawing"),
        ("labels {}/set/masks --to masks --out {}/out", "reading writing"),
        ("datasets inspect {}/set", "all"),
        ("compare --models tophat lef --truth {}/set --no-costs", "detecting scoring"),
    ],
)
def test_commands_show_it(words, shown, folder, terminal, at_once, monkeypatch):
    monkeypatch.setattr("irjax.training.allocator.keep_freed_memory", lambda: False)
    cli.main(words.format(*[folder] * words.count("{}")).split())
    for what in shown.split():
        assert f"{what}: " in terminal.getvalue(), terminal.getvalue()


def test_timing_shows_it(terminal, at_once):
    from irjax.benchmarks.timing import in_turns, once_each

    calls = []
    runs = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    once_each(runs)
    assert all(times.shape == (7,) for times in in_turns(runs, 7).values())
    assert "".join(calls) == "ab" + "a" * 6 + "b" * 6 + "a" * 3 + "b" * 3
    assert "compiling: " in terminal.getvalue() and "timing: " in terminal.getvalue()


def test_training_shows_what_it_reads(terminal, at_once):
    from irjax.data.splits import in_memory
    from irjax.data.synthetic import SceneConfig, SyntheticSource

    assert len(in_memory(SyntheticSource(SceneConfig(height=32, width=32), num_examples=2), False)) == 2
    assert "reading: " in terminal.getvalue()
