"""Speed of training steps, fed from the host and from the device."""

from __future__ import annotations

import collections
import dataclasses
import importlib.util
import itertools
import time
import types
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from irjax.benchmarks.pytorch import torch_training
from irjax.benchmarks.timing import Run, Turns, in_turns, once_each, random_variables, summary
from irjax.detector.detector import DetectorConfig
from irjax.methods.method import Method
from irjax.methods.registry import find_method

_CHUNK = 5  # steps between synchronisations
_EXAMPLES = 64


def time_training(
    detector: DetectorConfig,
    batch: int,
    *,
    repeats: int = 30,
    make_torch: Callable[[int], Any] | None = None,
    turns: Turns | None = None,
) -> dict[str, Any]:
    """Times training steps on synthetic scenes, fed from the host and from the device.

    The optimiser is AdamW, without averaging and augmentation, the same as for PyTorch.

    Args:
      detector: its network is trained at its size.
      batch: examples in a step.
      repeats: timed steps of each feed, rounded to chunks of 5.
      make_torch: builds the PyTorch network to compare with, from the number of channels.
      turns: turns shared with other processes, if there are any.

    Returns:
      JSON values: "size", "batch", "traces" of each step function, times per step of "device_cache", "host_feed" (with
      "data_wait", the fraction of the time spent waiting for data; absent without grain), and those of
      `torch_training`.
    """
    from irjax.data.clutter import SceneConfig
    from irjax.data.synthetic import SyntheticSource
    from irjax.training.data import CachedFeed, HostFeed
    from irjax.training.parallel import data_parallel, replicate
    from irjax.training.state import TrainState
    from irjax.training.steps import make_train_step

    method = find_method(detector.method)
    config = _config(detector, method, batch)
    size, data, devices = detector.size, config.data, jax.local_devices()[:1]
    source = SyntheticSource(SceneConfig(height=size, width=size), 0, max(_EXAMPLES, batch))
    tx = config.optimizer.build(1000, 100)
    initial = random_variables(detector.module(), jnp.zeros((1, size, size, detector.channels)))
    traces: collections.Counter[str] = collections.Counter()

    def counted(name: str) -> Callable[[str | None], Any]:
        return lambda axis: _counting_traces(
            make_train_step(method.objective(config, axis), tx, seed_key=jax.random.key(0)), traces, name
        )

    on_cache = data_parallel(counted("device_cache"), devices, several=True)
    on_batch = data_parallel(counted("host_feed"), devices)
    cached = CachedFeed(source, data, batch, 0, method.masks, devices[0])
    states = {name: replicate(TrainState.create(jax.tree.map(jnp.array, initial), tx, averaging=False), devices)
              for name in ("device_cache", "host_feed")}  # fmt: skip
    host, steps = HostFeed(source, data, batch, 0, method.masks), itertools.count()

    def run_cached() -> None:
        states["device_cache"], metrics = on_cache(states["device_cache"], cached.batches(0, _CHUNK))
        jax.block_until_ready(metrics)

    def run_host() -> None:
        for _ in range(_CHUNK):
            states["host_feed"], metrics = on_batch(states["host_feed"], host.batch(next(steps)))
        jax.block_until_ready(metrics)

    runs: dict[str, Run] = {"device_cache": run_cached}
    if importlib.util.find_spec("grain") is not None:
        runs["host_feed"] = run_host
    if make_torch is not None:
        runs |= torch_training(make_torch, detector.channels, size, batch, _CHUNK, config.loop.bf16)
    once_each(runs)
    with (turns or Turns()).alone():
        seconds = {name: times / _CHUNK for name, times in in_turns(runs, max(2, repeats // _CHUNK)).items()}
        waits = {"device_cache": 0.0}
        if "host_feed" in runs:
            host.waited, begin = 0.0, time.perf_counter()
            run_host()
            waits["host_feed"] = host.waited / (time.perf_counter() - begin)
    return {"size": size, "batch": batch, "traces": dict(traces), **_figures(seconds, batch, waits)}


def _config(detector: DetectorConfig, method: Method, batch: int) -> Any:
    """Returns a run's config for this detector's network, with the method's defaults and without augmentation."""
    from irjax.data.augment import AugmentConfig
    from irjax.data.splits import DataConfig
    from irjax.training.configs import LoopConfig
    from irjax.training.optimizers import OptimizerConfig

    parts = {name: part() for name, part in method.parts.items()}
    names = {field.name for field in dataclasses.fields(parts["model"])}
    options = {name: value for name, value in detector.model.items() if name in names}
    parts["model"] = dataclasses.replace(parts["model"], channels=detector.channels, **options)
    bf16 = detector.model.get("dtype", "float32") == "bfloat16"
    return types.SimpleNamespace(
        **parts,
        data=DataConfig(size=detector.size),
        augment=AugmentConfig(),
        optimizer=OptimizerConfig(name="adamw", rate=1e-3, warmup_epochs=0, schedule="constant"),
        loop=LoopConfig(batch_size=batch, bf16=bf16),
    )


def _figures(seconds: Mapping[str, np.ndarray], batch: int, waits: Mapping[str, float]) -> dict[str, Any]:
    """Returns the figures of `time_training` from the times [n] of its feeds and the fractions of it they wait."""
    result: dict[str, Any] = {
        name: {**summary(times), "images_per_second": batch / np.median(times)} for name, times in seconds.items()
    }
    for name, wait in waits.items():
        result[name]["data_wait"] = wait
    if "torch" in seconds:
        result["ratio_to_torch"] = np.median(seconds["device_cache"]) / np.median(seconds["torch"])
    return result


def _counting_traces(step: Callable[..., Any], traces: collections.Counter[str], name: str) -> Callable[..., Any]:
    """Returns the same step; `traces` counts how often JAX traces it."""

    def traced(state: Any, examples: Any) -> Any:
        traces[name] += 1  # this line runs when JAX traces, not when it computes
        return step(state, examples)

    return traced
