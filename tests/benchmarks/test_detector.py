"""Consistency of the benchmark's numbers; its times are not tested."""

import json
import pathlib
import warnings

import pytest

from irjax import cli
from irjax.benchmarks import detector
from irjax.benchmarks.detector import benchmark
from irjax.benchmarks.table import detector_text

TORCH_HRPE = pathlib.Path(__file__).parents[1] / "models/torch_hrpe.py"


def test_report_of_a_tiny_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("irjax.training.allocator.keep_freed_memory", lambda: False)
    monkeypatch.setitem(detector._MATMUL_SIDE, "cpu", 64)
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


def test_profile(tmp_path, monkeypatch):
    monkeypatch.setattr("irjax.training.allocator.keep_freed_memory", lambda: False)
    monkeypatch.setitem(detector._MATMUL_SIDE, "cpu", 64)
    folder = tmp_path / "profile"
    cli.main(["benchmark", "--size", "32", "64", "--repeats", "2", "--profile", str(folder)])
    for size in (32, 64):
        (place,) = (folder / f"{size}-batch-1/plugins/profile").iterdir()
        (file,) = place.glob("*.xplane.pb")
        assert b"predict_fn" in file.read_bytes()


def test_comparison_with_pytorch(monkeypatch):
    pytest.importorskip("torch", reason="compares with PyTorch (extra torch)")
    monkeypatch.setitem(detector._MATMUL_SIDE, "cpu", 64)
    report = benchmark(sizes=(32,), channels=1, repeats=2, torch=str(TORCH_HRPE))
    (run,) = report["runs"]
    assert report["parameters"] == 293_601
    assert run["largest_difference"] < 1e-4  # of the heatmap's range: the two run the same network
    assert run["ratio_to_torch"] == pytest.approx(run["predict_fn"]["median"] / run["torch"]["median"])
    assert "x torch" in detector_text(report)


def test_other_runtimes(monkeypatch):
    for package in ("torch", "jax2onnx", "onnxruntime", "openvino"):
        pytest.importorskip(package, reason="runs exported networks (extras torch, onnx, openvino)")
    monkeypatch.setitem(detector._MATMUL_SIDE, "cpu", 64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # PyTorch's export without onnxscript
        report = benchmark(
            sizes=(32,), channels=1, repeats=1, torch=str(TORCH_HRPE), runtimes=("onnxruntime", "openvino")
        )
    (run,) = report["runs"]
    names = ["predict_fn", "network", "onnxruntime", "openvino", "torch in onnxruntime", "torch"]
    assert [name for name in run if name in names] == names
    assert all(name in detector_text(report) for name in names)


def test_comparison_of_masks_with_pytorch(monkeypatch):
    pytest.importorskip("torch", reason="compares with PyTorch (extra torch)")
    monkeypatch.setitem(detector._MATMUL_SIDE, "cpu", 64)
    twin = TORCH_HRPE.with_name("torch_mshnet.py")
    (run,) = benchmark("mshnet", sizes=(32,), channels=1, repeats=1, torch=str(twin))["runs"]
    assert run["largest_difference"] < 1e-4
    with pytest.raises(ValueError, match="--torch knows twins of spire, mshnet; of adsnet name it"):
        benchmark("adsnet", sizes=(32,), channels=1, repeats=1, torch=str(twin))


def test_what_is_wrong_is_said(tmp_path):
    with pytest.raises(ValueError, match="'no-such-model' is neither"):
        benchmark("no-such-model")
    pytest.importorskip("torch")
    (tmp_path / "net.py").write_text("TorchHRPE = 3\n")
    with pytest.raises(ValueError, match="net.py has no torch.nn.Module called TorchHRPE"):
        benchmark(torch=str(tmp_path / "net.py"))
