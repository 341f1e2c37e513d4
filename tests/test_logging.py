"""What irjax logs, and when it is shown."""

import logging
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from irjax import cli


@pytest.fixture
def scored(tmp_path):
    """A folder of maps, one of masks, and the words of a command that scores them."""
    for name in ("maps", "masks"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.pad(np.full((3, 3), 255, np.uint8), 20)).save(tmp_path / name / "a.png")
    folders = ["--predictions", str(tmp_path / "maps"), "--truth", str(tmp_path / "masks")]
    return ["evaluate", *folders, "--out", str(tmp_path / "out"), "--overlays", "0"]


def test_only_a_flag_shows_it(scored, capsys):
    printed = {}
    for flags in ((), ("-v",), ("-vv",), ()):
        cli.main([*flags, *scored])
        found = capsys.readouterr()
        printed.setdefault(flags, []).append(found.out)
        lines = found.err.splitlines()
        assert any("irjax.metrics.parallel: scoring 1 images in 1 processes" in line for line in lines) == bool(flags)
        assert any("irjax.io.files: wrote " in line for line in lines) == (flags == ("-vv",))
    assert len({text for texts in printed.values() for text in texts}) == 1  # results are the same
    assert logging.getLogger("irjax").level == logging.NOTSET


def test_a_program_hears_it_by_its_own_means(scored, caplog, capsys):
    with caplog.at_level(logging.INFO, logger="irjax"):
        cli.main(scored)
    assert "scoring 1 images in 1 processes" in caplog.text and not capsys.readouterr().err


def test_what_is_left_out_and_kept(tmp_path, caplog, monkeypatch):
    """Files that predict cannot read, and programs from an earlier process."""
    from irjax.detector import files, programs
    from irjax.methods.detector_config import DetectorConfig

    monkeypatch.setattr(programs, "_traced", tmp_path)
    with caplog.at_level(logging.INFO, logger="irjax"):
        for _ in range(2):
            assert programs.kept(DetectorConfig(), "number", lambda: b"7") == b"7"
        (tmp_path / "bad.png").write_bytes(b"x")
        list(files._read({"bad": tmp_path / "bad.png"}, {}, files.AS_STORED))
    first, second, third = (record.getMessage() for record in caplog.records)
    assert first.startswith("spire: number made in 0.0 s and kept as ") and first.endswith(second.rpartition(" ")[2])
    assert second.startswith("spire: number is an earlier process's, ") and third.startswith("left out: ")
    assert "bad.png" in third


def test_a_library_prints_nothing_by_itself():
    code = "import logging, irjax; logging.getLogger('irjax.io').error('not shown')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout and not done.stderr
