"""What dropping patches saves, as `irjax benchmark --sparse` counts it."""

import json

import pytest

from irjax import cli


@pytest.mark.slow
def test_what_dropping_patches_saves(tmp_path, capsys):
    cli.main([*"benchmark --sparse --size 32 --batch 2 --repeats 2 --json".split(), str(tmp_path / "report.json")])
    report = json.loads((tmp_path / "report.json").read_text())
    assert [run["what"] for run in report["runs"]] == ["level 3", "level 2 and head", "network"]
    level3, level2, network = report["runs"]
    assert level3["least_ratio"] == pytest.approx(0.75) and level2["least_ratio"] == pytest.approx(0.5)
    assert 0.75 < network["least_ratio"] < 0.8 and network["gather_sparse"]["median"] > 0
    assert level3["nothing_dropped"]["multiply_adds"] == level3["masked_dense"]["multiply_adds"] == 2 * 31 * 128**2 * 16
    assert "level 2 and head" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="--train does not go with --sparse"):
        cli.main("benchmark --sparse --train".split())
    with pytest.raises(SystemExit, match="multiple of 16, got 40"):
        cli.main("benchmark --sparse --size 40".split())
