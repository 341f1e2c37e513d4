"""PyTorch networks with the published layer names, to be timed beside irjax's."""

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
from irjax.errors import MissingFileError, MissingPackageError, UserError
from irjax.inference import DetectorConfig


def torch_class(spec: str) -> Callable[[int], Any]:
    """The class that ``FILE[:CLASS]`` names; the file is loaded by its path."""
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
    cls = getattr(module, name or "TorchHRPE", None)
    if not (inspect.isclass(cls) and issubclass(cls, torch.nn.Module)):
        raise UserError(f"{path} has no torch.nn.Module called {name or 'TorchHRPE'}")
    return cls


def _torch_setup(bf16: bool) -> tuple[str, Any]:
    """PyTorch's device, the one JAX uses if it can; its threads become as many as there are processors."""
    import torch

    if hasattr(os, "sched_getaffinity"):
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
    return device, torch.bfloat16 if bf16 else torch.float32


def torch_inference(
    make: Callable[[int], Any], config: DetectorConfig, variables: Any, pixels: np.ndarray, bf16: bool
) -> tuple[Run, np.ndarray]:
    """A run of the eager network with the same weights and input as ours, and its heatmap."""
    import torch

    from irjax.convert import to_torch

    device, dtype = _torch_setup(bf16)
    net = make(config.channels)
    state = to_torch(config.method, variables)
    net.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})
    net = net.eval().to(device, dtype)
    images = torch.from_numpy(np.repeat(pixels[:, None], config.channels, axis=1)).to(device, dtype)

    def run() -> Any:
        with torch.inference_mode():
            heatmap = net(images)
        if device == "cuda":
            torch.cuda.synchronize()
        return heatmap

    return run, run().float().cpu().numpy()


def torch_training(make: Callable[[int], Any], channels: int, size: int, batch: int, steps: int, bf16: bool) -> Run:
    """Some eager training steps without augmentation and targets, on random arrays; bfloat16 by autocast."""
    import torch

    device, dtype = _torch_setup(bf16)
    net = make(channels).train().to(device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    images = torch.rand(batch, channels, size, size, device=device)
    with torch.no_grad():
        target = torch.rand_like(net(images[:1])).expand(batch, -1, -1)

    def run() -> None:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device, dtype=dtype, enabled=bf16):
                heatmap = net(images)
            torch.nn.functional.mse_loss(heatmap.float(), target).backward()
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return run
