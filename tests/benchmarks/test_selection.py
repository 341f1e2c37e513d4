"""What selecting patches saves, as `irjax benchmark --selection` counts it."""

import functools

import pytest

from irjax import cli
from irjax.benchmarks.selection import benchmark_selection
from irjax.benchmarks.table import selection_text
from irjax.models import NaIRSTD

SMALL = functools.partial(
    NaIRSTD, native_width=8, widths=(16, 16, 16, 16), depths=(0, 0, 0, 0), decoder_width=16, decoder_hidden=16
)


@pytest.mark.slow
def test_what_selecting_patches_saves():
    report = benchmark_selection(sizes=(64,), batches=(2,), selected=(1,), repeats=1, network=SMALL)
    runs = {run["what"]: run["forms"] for run in report["runs"]}
    assert list(runs) == ["injection", "network"]
    for forms in runs.values():
        assert list(forms) == ["1", "all"] and all(form["median"] > 0 for form in forms.values())
    injection, network = ([form["multiply_adds"] for form in forms.values()] for forms in runs.values())
    assert 4 * injection[0] == injection[1] and network[0] < network[1]
    assert "memory MB" in selection_text(report)


@pytest.mark.slow
def test_what_recomputing_the_native_branch_costs():
    report = benchmark_selection(sizes=(64,), selected=(1,), train_batch=1, repeats=1, network=SMALL)
    runs = {run["what"]: run["forms"]["all"] for run in report["runs"]}
    assert list(runs) == ["injection", "network", "gradient", "gradient, remat"]
    assert runs["gradient, remat"]["multiply_adds"] > runs["gradient"]["multiply_adds"]


def test_what_cannot_be_selected_is_said():
    with pytest.raises(ValueError, match="multiple of 32 with at least 5 patches, got 64"):
        benchmark_selection(sizes=(64,), selected=(5,), network=SMALL)
    with pytest.raises(SystemExit, match="--selection does not go with --sparse"):
        cli.main("benchmark --sparse --selection 5".split())
    with pytest.raises(SystemExit, match="--torch does not go with --selection"):
        cli.main("benchmark --selection --torch net.py".split())
