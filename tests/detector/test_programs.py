"""Compiled programs that are kept for the next process."""

import dataclasses
import os
import pathlib
import subprocess
import sys
from types import SimpleNamespace

import flax.linen as nn
import jax
import numpy as np
import pytest
from PIL import Image

from irjax.detector import programs
from irjax.errors import Note
from irjax.methods.detector_config import DetectorConfig

_PREDICT = """
import sys, logging, jax
jax.config.update("jax_disable_most_optimizations", True)
jax.config.update("jax_explain_cache_misses", False)
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name.rpartition("/")[2]))
from irjax import cli
cli.main(["predict", *sys.argv[1:]])
print("hits", hits.count("cache_hits"), "misses", hits.count("cache_misses"))
"""


def predict(tmp_path, *arguments, wait=True):
    """Starts irjax predict with the user's folder for caches in tmp_path."""
    environment = {name: value for name, value in os.environ.items() if "CACHE" not in name}
    environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    command = [sys.executable, "-c", _PREDICT, str(tmp_path / "a.png"), "--size", "64", *arguments]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    return process.communicate()[0] if wait else process


@pytest.fixture
def image(tmp_path):
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / "a.png")
    return tmp_path


@pytest.mark.skipif(sys.platform != "linux", reason="says where caches are by XDG_CACHE_HOME")
def test_a_second_process_compiles_nothing_large(image):
    folder = image / "cache/irjax/programs"
    assert "misses 0" in predict(image, "--no-cache", "--out", str(image / "none"))
    assert not folder.exists()
    # Two at a time, into one folder.
    both = [predict(image, "--out", str(image / f"out{i}"), wait=False) for i in range(2)]
    assert all("hits" in process.communicate()[0] and process.returncode == 0 for process in both)
    kept = {path.name for path in folder.rglob("*") if path.name.endswith("-cache") or path.parent.name == "traced"}
    assert len(kept) >= 4 and len(list((folder / "traced").iterdir())) == 2  # the shapes, and the network
    again = predict(image, "--out", str(image / "again"))
    assert "hits 0" not in again
    now = {path.name for path in folder.rglob("*") if path.name.endswith("-cache") or path.parent.name == "traced"}
    assert now == kept
    tables = [(image / out / "predictions.csv").read_text() for out in ("none", "out0", "out1", "again")]
    assert len(set(tables)) == 1


@pytest.fixture
def settings(monkeypatch):
    """What JAX is set to is as before after the test."""
    names = (
        "jax_compilation_cache_dir",
        "jax_compilation_cache_max_size",
        "jax_persistent_cache_min_compile_time_secs",
    )
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    """Each test begins, and leaves the process, as if nothing was to be kept."""
    monkeypatch.setattr(programs, "_traced", None)


def test_where_programs_are_kept(settings, tmp_path, monkeypatch):
    here = jax.config.jax_compilation_cache_dir
    assert here and programs.keep_programs() == pathlib.Path(here)  # set outside
    assert programs.keep_programs(tmp_path / "a/b") == tmp_path / "a/b"
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "a/b")
    assert jax.config.jax_compilation_cache_max_size == programs.MOST
    (tmp_path / "file").write_text("")
    with pytest.warns(Note, match="compiled programs are not kept"):
        assert programs.keep_programs(tmp_path / "file/below") is None


def test_what_is_traced_is_kept(tmp_path, monkeypatch, settings):
    made = []

    def make(content=b"text"):
        made.append(content)
        return content

    config = DetectorConfig()
    assert [programs.kept(config, "a", make) for _ in range(2)] == [b"text"] * 2 and len(made) == 2  # not asked to keep
    programs.keep_programs(tmp_path)
    assert [programs.kept(config, "a", make) for _ in range(2)] == [b"text"] * 2 and len(made) == 3
    programs.kept(dataclasses.replace(config, threshold=0.6), "a", make)
    assert len(made) == 3  # the network is the same
    for other, what in ((dataclasses.replace(config, size=640), "a"), (config, "b")):
        programs.kept(other, what, make)
    assert len(made) == 5 and len(list((tmp_path / "traced").iterdir())) == 3
    monkeypatch.setattr(programs, "_code", lambda: "changed")
    programs.kept(config, "a", make)
    assert len(made) == 6


def test_the_least_recently_used_go_first(tmp_path, monkeypatch, settings):
    monkeypatch.setattr(programs, "MOST_TRACED", 250)
    programs.keep_programs(tmp_path)
    config, made = DetectorConfig(), []

    def make():
        made.append(1)
        return bytes(100)

    for index, what in enumerate("aba"):
        programs.kept(config, what, make)
        for path in (tmp_path / "traced").iterdir():  # file systems may not tell times this close
            seen = path.stat().st_mtime_ns
            os.utime(path, ns=(seen - 10**9, seen - 10**9)) if index < 2 else None
    programs.kept(config, "c", make)  # in the place of b
    assert len(made) == 3
    programs.kept(config, "a", make)
    assert len(made) == 3
    programs.kept(config, "b", make)
    assert len(made) == 4


def test_networks_of_others_are_not_kept(tmp_path, monkeypatch, settings):
    class Other(nn.Module):
        """Another one's network, whose code is not known."""

    programs.keep_programs(tmp_path)
    config, made = DetectorConfig(), []
    monkeypatch.setattr(programs, "find_method", lambda name: SimpleNamespace(network=Other))
    for _ in range(2):
        programs.kept(config, "a", lambda: made.append(1) or b"")
    assert len(made) == 2 and not list((tmp_path / "traced").iterdir())
    monkeypatch.setattr(programs.export, "export", None)  # what they compute may not be exportable, either
    assert programs.network(config, lambda x: x + 1, jax.ShapeDtypeStruct((), "float32"))(1.0) == 2.0
