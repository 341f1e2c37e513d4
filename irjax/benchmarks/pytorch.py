"""PyTorch networks with the published layer names, timed next to irjax's."""

from __future__ import annotations

import importlib.util
import inspect
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from irjax.benchmarks.timing import Run
from irjax.detector.detector import DetectorConfig
from irjax.errors import MissingFileError, MissingPackageError, UserError

# Default class names of the PyTorch networks.
_TWINS = {"spire": "TorchHRPE", "mshnet": "TorchMSHNet"}


def torch_class(spec: str, method: str) -> Callable[[int], Any]:
    """Loads the class that ``FILE[:CLASS]`` names, by default the method's; the file is loaded by its path."""
    file, _, name = spec.partition(":")
    path = pathlib.Path(file)
    if not path.is_file():
        raise MissingFileError(f"no PyTorch module {path}")
    try:
        import torch
    except ImportError as error:
        raise MissingPackageError("a comparison with PyTorch needs it: pip install 'irjax[torch]'") from error

    found = importlib.util.spec_from_file_location(f"_irjax_benchmark_{path.stem}", path)
    if found is None or found.loader is None:
        raise UserError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    name = name or _TWINS.get(method, "")
    if not name:
        raise UserError(f"--torch knows twins of {', '.join(_TWINS)}; of {method} name it: FILE:CLASS")
    cls = getattr(module, name, None)
    if not (inspect.isclass(cls) and issubclass(cls, torch.nn.Module)):
        raise UserError(f"{path} has no torch.nn.Module called {name}")
    return cls


def _torch_setup(bf16: bool) -> tuple[str, Any]:
    """Returns PyTorch's device and dtype; sets the number of its threads to that of the processors.

    The device is the one that JAX uses, if possible.
    """
    import torch

    if hasattr(os, "sched_getaffinity"):
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
    return device, torch.bfloat16 if bf16 else torch.float32


def torch_inference(
    make: Callable[[int], Any], config: DetectorConfig, variables: Any, pixels: np.ndarray, bf16: bool
) -> tuple[Run, np.ndarray]:
    """Returns a run of the eager network with irjax's weights and input, and its heatmap or logits [B, 1, H, W]."""
    import torch

    device, dtype = _torch_setup(bf16)
    net = _with_weights(make, config, variables).to(device, dtype)
    images = torch.from_numpy(np.repeat(pixels[:, None], config.channels, axis=1)).to(device, dtype)

    def run() -> Any:
        with torch.inference_mode():
            heatmap = _outputs(net(images))[0]
        if device == "cuda":
            torch.cuda.synchronize()
        return heatmap

    return run, run().float().cpu().numpy()


def _with_weights(make: Callable[[int], Any], config: DetectorConfig, variables: Any) -> Any:
    import torch

    from irjax.convert import to_torch

    net = make(config.channels)
    state = to_torch(config.method, variables)
    net.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})
    return net.eval()


def torch_in_onnxruntime(make: Callable[[int], Any], config: DetectorConfig, variables: Any, pixels: np.ndarray) -> Run:
    """Returns a run by onnxruntime of the file that PyTorch exports."""
    import tempfile

    import torch

    from irjax.detector.onnx import open_network

    net = _with_weights(make, config, variables)
    images = np.repeat(pixels[:, None], config.channels, axis=1)
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "network.onnx"
        # The newer exporter, of another package, is not needed for such networks.
        options: dict[str, Any] = {"dynamo": False, "opset_version": 17}
        axes = {"canvases": {0: "batch"}}
        torch.onnx.export(
            net, (torch.from_numpy(images),), file, input_names=["canvases"], dynamic_axes=axes, **options
        )
        content = file.read_bytes()
    network, _ = open_network(content, "PyTorch's export", "onnxruntime")
    return lambda: network(images)


def _outputs(found: Any) -> list[Any]:
    """Returns the maps of a network as a list: the prediction, then its side outputs if there are any."""
    if not isinstance(found, tuple):
        return [found]
    first, sides = found
    return [first, *sides]


def torch_training(
    make: Callable[[int], Any], channels: int, size: int, batch: int, steps: int, bf16: bool
) -> dict[str, Run]:
    """Builds training steps with AdamW, without augmentation and averaging, on random arrays; bfloat16 by autocast.

    The loss is the mean squared error for a heatmap and the cross-entropy of each output for masks; its cost is small
    compared with the network's.

    Returns:
      {"torch": eager, "torch channels last", "torch compiled" (also channels last)}; each has its own network.
    """
    import torch

    device, dtype = _torch_setup(bf16)

    def training(*, last: bool, compiled: bool) -> Run:
        layout = torch.channels_last if last else torch.contiguous_format
        net = make(channels).train().to(device, memory_format=layout)
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
        images = torch.rand(batch, channels, size, size, device=device).to(memory_format=layout)
        with torch.no_grad():
            outputs = _outputs(net(images))
        targets = [(torch.rand_like(output) > 0.99).float() for output in outputs]
        forward = torch.compile(net) if compiled else net

        def loss_of(found: list[Any]) -> Any:
            if len(found) == 1:
                return torch.nn.functional.mse_loss(found[0].float(), targets[0])
            entropy = torch.nn.functional.binary_cross_entropy_with_logits
            return sum(entropy(one.float(), target) for one, target in zip(found, targets, strict=True))

        def run() -> None:
            for _ in range(steps):
                optimizer.zero_grad(set_to_none=True)
                with torch.autocast(device, dtype=dtype, enabled=bf16):
                    found = _outputs(forward(images))
                loss_of(found).backward()
                optimizer.step()
            if device == "cuda":
                torch.cuda.synchronize()

        return run

    return {
        "torch": training(last=False, compiled=False),
        "torch channels last": training(last=True, compiled=False),
        "torch compiled": training(last=True, compiled=True),
    }
