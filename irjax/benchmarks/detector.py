"""Speed of a detector, and its ratio to the machine's peak, for `irjax benchmark`."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from irjax.benchmarks.costs import count_parameters
from irjax.benchmarks.counting import by_module, count_macs
from irjax.benchmarks.pytorch import torch_class, torch_in_onnxruntime, torch_inference
from irjax.benchmarks.timing import Run, Turns, circumstances, in_turns, once_each, random_variables, summary
from irjax.benchmarks.training import time_training
from irjax.detector.detector import Detector, DetectorConfig
from irjax.detector.loading import load
from irjax.detector.onnx import Network, Runtime, open_network, to_onnx
from irjax.errors import writing
from irjax.methods.registry import find_method, method_names

_MATMUL_SIDE = {"cpu": 2048}  # other platforms use a size that fills an accelerator
_MATMUL_SIDE_DEFAULT = 8192


def benchmark(
    model: str = "spire",
    *,
    method: str | None = None,
    sizes: Sequence[int] = (512,),
    batches: Sequence[int] = (1,),
    channels: int = 3,
    repeats: int = 30,
    bf16: bool = False,
    torch: str | None = None,
    runtimes: Sequence[Runtime] = (),
    train_batch: int = 0,
    turns: Turns | None = None,
    profile: str | os.PathLike | None = None,
) -> dict[str, Any]:
    """Times a detector, and optionally training steps.

    Args:
      model: a method's name (`irjax.methods.method_names`) or its network's, with random weights; or anything that
        `irjax.load` accepts.
      method: the method of the weights that `irjax.load` reads, where they do not tell.
      sizes: sides S of the images and of the canvas in pixels.
      batches: numbers of images in a call.
      channels: channels of the network's input, with random weights.
      repeats: timed calls of each candidate.
      bf16: compute in bfloat16.
      torch: ``FILE[:CLASS]`` of a PyTorch network to compare with: ``CLASS(channels)``, by default ``TorchHRPE`` or
        ``TorchMSHNet``, has the published layer names and receives the same weights.
      runtimes: also run the exported network in these; with `torch`, in onnxruntime PyTorch's export, too.
      train_batch: examples in a training step; 0 times no training.
      turns: turns shared with other processes, if there are any.
      profile: folder for a profile of one more call of each candidate, for each size and batch; not timed.

    Returns:
      JSON values: "device", "processors", "load" (of the minute before), "parameters", "runs" (one for each size
      and batch) and, if requested, "training". Times are in seconds.

    Raises:
      MissingFileError: if the PyTorch module does not exist.
      UserError: if the model, a size or a batch is not usable, or the PyTorch module has no such class.
    """
    where, turns = circumstances(sizes, batches, bf16), turns or Turns()
    detectors = [_detector(model, method, size, channels, bf16) for size in sizes]
    make_torch = torch_class(torch, detectors[0].config.method) if torch else None
    report: dict[str, Any] = {
        "model": model,
        **where,
        "parameters": count_parameters(detectors[0].variables),
        "runs": [
            _time_inference(d, batch, repeats, bf16, make_torch, networks, turns, profile)
            for d in detectors
            for networks in [_networks(d, runtimes)]
            for batch in batches
        ],
    }
    if train_batch:
        report["training"] = [
            time_training(d.config, train_batch, repeats=repeats, make_torch=make_torch, turns=turns) for d in detectors
        ]
    return report


def _detector(model: str, method: str | None, size: int, channels: int, bf16: bool) -> Detector:
    """Returns a detector of this size, with random weights if `model` is a method."""
    classes = {find_method(name).network.__name__.lower(): name for name in method_names()}
    name = classes.get(model.lower(), model)
    extra = {"dtype": "bfloat16"} if bf16 else {}
    if name not in method_names():
        detector = load(model, size=size, **({"method": method} if method else {}))
        config = dataclasses.replace(detector.config, model={**detector.config.model, **extra})
        return Detector(config, detector.variables)
    config = DetectorConfig(method=name, model=extra, size=size, channels=channels, normalization="imagenet")
    return Detector(config, random_variables(config.module(), jnp.zeros((1, 256, 256, channels))))


def _networks(detector: Detector, runtimes: Sequence[Runtime]) -> dict[Runtime, Network]:
    if not runtimes:
        return {}
    content = to_onnx(detector)
    return {runtime: open_network(content, detector.config.method, runtime)[0] for runtime in runtimes}


def _time_inference(
    detector: Detector,
    batch: int,
    repeats: int,
    bf16: bool,
    make_torch: Any,
    networks: Mapping[Runtime, Network],
    turns: Turns,
    profile: str | os.PathLike | None = None,
) -> dict[str, Any]:
    config, variables = detector.config, detector.variables
    size, channels = config.size, config.channels
    pixels = np.random.default_rng(0).uniform(size=(batch, size, size)).astype(np.float32)
    images = jnp.asarray(pixels)
    inputs = jnp.repeat(images[..., None], channels, axis=-1)
    apply = functools.partial(detector.module.apply, train=False)
    predict = jax.jit(detector.predict_fn).lower(variables, images).compile()
    network = jax.jit(apply).lower(variables, inputs).compile()
    side = _MATMUL_SIDE.get(jax.default_backend(), _MATMUL_SIDE_DEFAULT)
    square = jnp.ones((side, side), jnp.bfloat16 if bf16 else jnp.float32)
    matmul = jax.jit(jnp.matmul).lower(square, square).compile()

    calls: dict[str, Run] = {
        "predict_fn": lambda: predict(variables, images),
        "network": lambda: network(variables, inputs),
        "matmul": lambda: matmul(square, square),
    }
    runs: dict[str, Run] = {name: functools.partial(_wait, call) for name, call in calls.items()}
    result: dict[str, Any] = {"size": size, "batch": batch}
    runs |= {runtime: functools.partial(run, pixels) for runtime, run in networks.items()}
    if make_torch is not None:
        if "onnxruntime" in networks:
            runs["torch in onnxruntime"] = torch_in_onnxruntime(make_torch, config, variables, pixels)
        runs["torch"], heatmap = torch_inference(make_torch, config, variables, pixels, bf16)
        found = calls["network"]()
        ours = np.asarray(getattr(found, "logits", found), np.float32)
        difference = np.abs(heatmap.reshape(ours.shape) - ours).max()
        result["largest_difference"] = float(difference / max(np.abs(ours).max(), 1e-9))
    once_each(runs)
    with turns.alone():
        seconds = in_turns(runs, repeats)
        rates = {name: _queued_rate(call, batch, max(3, repeats // 3)) for name, call in calls.items()}
        if profile is not None:
            _record(pathlib.Path(profile) / f"{size}-batch-{batch}", runs)

    layers = by_module(count_macs(apply, variables, inputs))
    macs, rate = sum(layers.values()), side**3 / np.median(seconds["matmul"])
    costs = network.cost_analysis() or {}
    result |= {"multiply_adds": macs, "layers": layers, "compiler_flops": costs.get("flops"), "peak_rate": rate}
    result["floor"] = macs / rate
    for name, times in seconds.items():
        if name == "matmul":
            continue
        result[name] = {**summary(times), "over_floor": np.median(times) / result["floor"]}
        result[name]["images_per_second"] = rates.get(name, batch / np.median(times))
    if "torch" in seconds:
        result["ratio_to_torch"] = np.median(seconds["predict_fn"]) / np.median(seconds["torch"])
    return result


def _record(folder: pathlib.Path, runs: Mapping[str, Run]) -> None:
    """Writes jax.profiler's profile of one call of each."""
    with writing(folder), jax.profiler.trace(str(folder)):
        for name, run in runs.items():
            with jax.profiler.TraceAnnotation(name):
                run()


def _wait(call: Run) -> None:
    jax.block_until_ready(call())


def _queued_rate(call: Run, batch: int, calls: int) -> float:
    """Returns images per second when calls are dispatched without waiting for each other."""
    jax.block_until_ready(call())
    begin = time.perf_counter()
    results = [call() for _ in range(calls)]
    jax.block_until_ready(results)
    return batch * calls / (time.perf_counter() - begin)
