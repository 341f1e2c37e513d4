"""Compiled programs that are kept for the next process."""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from irjax.detector import programs
from irjax.errors import Note

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
    kept = {path.name for path in folder.glob("*-cache")}
    assert kept
    again = predict(image, "--out", str(image / "again"))
    assert "hits 0" not in again and {path.name for path in folder.glob("*-cache")} == kept
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


def test_where_programs_are_kept(settings, tmp_path, monkeypatch):
    here = jax.config.jax_compilation_cache_dir
    assert here and programs.keep_programs() == pathlib.Path(here)  # set outside
    assert programs.keep_programs(tmp_path / "a/b") == tmp_path / "a/b"
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "a/b")
    assert jax.config.jax_compilation_cache_max_size == programs.MOST
    (tmp_path / "file").write_text("")
    with pytest.warns(Note, match="compiled programs are not kept"):
        assert programs.keep_programs(tmp_path / "file/below") is None
