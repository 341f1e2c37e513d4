"""Networks in PyTorch, written for comparison, with random weights."""

import importlib.util
import pathlib

import pytest


@pytest.fixture(scope="session")
def torch_network():
    """(file, class, channels) to that network, its batch statistics far from their start."""
    torch = pytest.importorskip("torch", reason="compares with PyTorch (extra torch)")

    def make(file, name, channels):
        path = pathlib.Path(__file__).with_name(file)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        torch.manual_seed(0)
        net = getattr(module, name)(channels)
        with torch.no_grad():
            for part in net.modules():
                if isinstance(part, torch.nn.BatchNorm2d):
                    part.weight.uniform_(0.5, 1.5)
                    part.bias.normal_(0, 0.2)
                    part.running_mean.normal_(0, 0.2)
                    part.running_var.uniform_(0.2, 2.0)
        return net

    return make
