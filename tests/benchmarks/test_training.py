"""Training steps as they are timed; the times are not tested."""

import functools
import pathlib
import types

import pytest

from irjax.benchmarks import training as training_module
from irjax.benchmarks.pytorch import torch_class
from irjax.benchmarks.training import time_training
from irjax.detector.detector import DetectorConfig

NETWORKS = {"spire": {"width": 32}, "adsnet": {"width": 16, "widths": (8, 8, 8)}}


@pytest.mark.parametrize("method", ["spire", pytest.param("adsnet", marks=pytest.mark.slow)])
def test_training_steps(method, monkeypatch):
    monkeypatch.setattr(training_module, "_CHUNK", 1)
    monkeypatch.setattr(training_module, "_EXAMPLES", 2)
    training = time_training(DetectorConfig(method=method, model=NETWORKS[method], size=32), 2, repeats=2)
    assert training["traces"] == {"device_cache": 1, "host_feed": 1}
    assert 0 <= training["host_feed"]["data_wait"] < 1
    assert training["device_cache"]["images_per_second"] == pytest.approx(2 / training["device_cache"]["median"])


def test_what_cannot_be_timed_is_said():
    with pytest.raises(ValueError, match="unknown method 'other'; known: adsnet, mshnet, na_irstd, spire"):
        time_training(types.SimpleNamespace(method="other"), 2)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile uses what torch deprecates
@pytest.mark.parametrize(
    ("method", "twin", "model"),
    [("spire", "torch_hrpe.py", {}), ("mshnet", "torch_mshnet.py:OneScale", {"widths": (4, 8), "depths": (1, 1)})],
)
def test_training_beside_pytorch(method, twin, model, monkeypatch):
    torch = pytest.importorskip("torch", reason="compares with PyTorch (extra torch)")
    if method == "spire":  # one network through PyTorch's own compiler, which takes a minute or two, is enough
        monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    monkeypatch.setattr(training_module, "_CHUNK", 1)
    monkeypatch.setattr(training_module, "_EXAMPLES", 2)
    make_torch = torch_class(str(pathlib.Path(__file__).parents[1] / "models" / twin), method)
    training = time_training(DetectorConfig(method=method, model=model, size=32), 2, repeats=2, make_torch=make_torch)
    names = ("torch", "torch channels last", "torch compiled")
    assert all(training[name]["images_per_second"] > 0 for name in names)
    assert training["ratio_to_torch"] == training["device_cache"]["median"] / training["torch"]["median"]
