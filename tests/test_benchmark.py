"""The benchmark's counts and the consistency of its numbers; its times are not tested."""

import functools
import json
import pathlib
import types

import jax
import jax.numpy as jnp
import pytest

from irjax import benchmark, cli
from irjax.benchmark_selection import benchmark_selection
from irjax.inference import DetectorConfig
from irjax.models import HRPE, NaIRSTD
from irjax.reports.benchmark import as_text, selection_as_text

TORCH_HRPE = pathlib.Path(__file__).parent / "models/torch_hrpe.py"


def macs_of_hrpe(size, channels, batch=1, **options):
    module = HRPE(**options)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 32, 32, channels)))
    images = jax.ShapeDtypeStruct((batch, size, size, channels), jnp.float32)
    return benchmark.count_macs(functools.partial(module.apply, train=False), shapes, images)


def test_multiply_adds_of_the_published_network():
    counted = macs_of_hrpe(640, 3)
    assert sum(counted.values()) == pytest.approx(7.557e9, rel=1e-4)
    assert counted["HRPE/stem1/conv"] == 320 * 320 * 64 * 27
    assert counted["HRPE/encoder1/spatial/conv"] == 160 * 160 * 128 * 9  # depthwise, whatever form the CPU runs
    modules = benchmark.by_module(counted)
    assert list(modules)[:2] == ["stem1", "stem2"] and sum(modules.values()) == sum(counted.values())


def test_multiply_adds_grow_with_the_batch():
    assert sum(macs_of_hrpe(64, 1, batch=3).values()) == 3 * sum(macs_of_hrpe(64, 1).values())


def test_loops_and_branches_are_counted():
    a = jnp.zeros((4, 5))
    b = jnp.zeros((5, 6))

    def looped(a, b):
        return jax.lax.scan(lambda carry, _: (carry, a @ b), 0, length=7)[1]

    assert sum(benchmark.count_macs(looped, a, b).values()) == 7 * 4 * 5 * 6

    def either(a, b):
        return jax.lax.cond(a[0, 0] > 0, lambda: a @ b, lambda: a[:, :6].sum() * jnp.ones((4, 6)))

    assert sum(benchmark.count_macs(jax.jit(either), a, b[:, :6]).values()) == 4 * 5 * 6


def test_turns():
    order = []
    seconds = benchmark.in_turns({name: functools.partial(order.append, name) for name in "ab"}, 7)
    assert {name: len(times) for name, times in seconds.items()} == {"a": 7, "b": 7}
    assert "".join(order) == "ab" + "a" * 6 + "b" * 6 + "a" * 3 + "b" * 3
    with pytest.raises(ValueError, match="repeats"):
        benchmark.in_turns({}, 0)


def test_report_of_a_tiny_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("irjax.training.allocator.keep_freed_memory", lambda: False)
    monkeypatch.setitem(benchmark._MATMUL_SIDE, "cpu", 64)
    file = tmp_path / "report.json"
    cli.main(["benchmark", "--model", "hrpe", "--size", "32", "64", "--repeats", "2", "--json", str(file)])
    report = json.loads(file.read_text())
    assert report["parameters"] == 294_753 and [run["size"] for run in report["runs"]] == [32, 64]
    small, large = report["runs"]
    assert sum(large["layers"].values()) == large["multiply_adds"]
    assert small["compiler_flops"] is None or 0.5 < small["compiler_flops"] / (2 * small["multiply_adds"]) < 2
    for run in report["runs"]:
        for name in ("predict_fn", "network"):
            low, high = run[name]["quartiles"]
            assert 0 < run[name]["least"] <= low <= run[name]["median"] <= high
            assert run[name]["over_floor"] == pytest.approx(run[name]["median"] / run["floor"])
        assert run["floor"] == pytest.approx(run["multiply_adds"] / run["peak_rate"])
    text = capsys.readouterr().out
    assert "parameters 294,753" in text and "predict_fn" in text and "floor" in text


def test_comparison_with_pytorch(monkeypatch):
    pytest.importorskip("torch", reason="compares with PyTorch (extra torch)")
    monkeypatch.setitem(benchmark._MATMUL_SIDE, "cpu", 64)
    report = benchmark.benchmark(sizes=(32,), channels=1, repeats=2, torch=str(TORCH_HRPE))
    (run,) = report["runs"]
    assert report["parameters"] == 293_601
    assert run["largest_difference"] < 1e-4  # of the heatmap's range: the two run the same network
    assert run["ratio_to_torch"] == pytest.approx(run["predict_fn"]["median"] / run["torch"]["median"])
    assert "x torch" in as_text(report)


def test_training_steps(monkeypatch, quick_compilation):
    monkeypatch.setattr(benchmark, "_TRAIN_CHUNK", 1)
    monkeypatch.setattr(benchmark, "_TRAIN_EXAMPLES", 2)
    training = benchmark.time_training(DetectorConfig(model={"width": 32}, size=32), 2, repeats=2)
    assert training["traces"] == {"device_cache": 1, "host_feed": 1}
    assert 0 <= training["host_feed"]["data_wait"] < 1
    assert training["device_cache"]["images_per_second"] == pytest.approx(2 / training["device_cache"]["median"])
    with pytest.raises(ValueError, match="timed for spire"):
        benchmark.time_training(types.SimpleNamespace(method="other"), 2)


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(ValueError, match="'no-such-model' is neither"):
        benchmark.benchmark("no-such-model")
    pytest.importorskip("torch")
    (tmp_path / "net.py").write_text("TorchHRPE = 3\n")
    with pytest.raises(ValueError, match="net.py has no torch.nn.Module called TorchHRPE"):
        benchmark.benchmark(torch=str(tmp_path / "net.py"))


@pytest.mark.usefixtures("quick_compilation")
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


SMALL = functools.partial(
    NaIRSTD, native_width=8, widths=(16, 16, 16, 16), depths=(1, 1, 1, 1), decoder_width=16, decoder_hidden=16
)


@pytest.mark.usefixtures("quick_compilation")
def test_what_selecting_patches_saves():
    report = benchmark_selection(sizes=(64,), batches=(2,), selected=(1,), repeats=1, network=SMALL)
    runs = {run["what"]: run["forms"] for run in report["runs"]}
    assert list(runs) == ["injection", "network"]
    for forms in runs.values():
        assert list(forms) == ["1", "all"] and all(form["median"] > 0 for form in forms.values())
    injection, network = ([form["multiply_adds"] for form in forms.values()] for forms in runs.values())
    assert 4 * injection[0] == injection[1] and network[0] < network[1]
    assert "memory MB" in selection_as_text(report)


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compilation")
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
