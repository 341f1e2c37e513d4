"""What detectors cost: parameters, multiply-adds, latency and memory, for `irjax compare`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from irjax.baselines import BASELINES
from irjax.benchmarks.counting import count_macs
from irjax.benchmarks.timing import in_turns, once_each
from irjax.detector import programs
from irjax.detector.detector import Detector
from irjax.detector.named import DEFAULT_LIMIT, Named
from irjax.methods.detector_config import DetectorConfig

_REPEATS = 9


def measure_costs(
    models: Mapping[str, Named], image: np.ndarray, *, repeats: int = _REPEATS
) -> dict[str, dict[str, Any]]:
    """Measures detectors on this machine, in turns, one image in a call.

    Args:
      models: {title: detector}.
      image: [H, W], as stored.
      repeats: timed calls of each.

    Returns:
      {title: {"parameters", "multiply_adds" of one canvas, "latency" (median seconds of a call, from pixels to
      detections), "memory" (bytes that the compiled network needs, for one canvas, beside its weights)}}; None for what
      cannot be counted: of filters all but the latency and the memory, of exported networks all but the latency.
    """
    runs = {title: functools.partial(model.run, [image], DEFAULT_LIMIT) for title, model in models.items()}
    once_each(runs)
    seconds = in_turns(runs, repeats)
    return {
        title: {**_counted(model, image), "latency": float(np.median(seconds[title]))}
        for title, model in models.items()
    }


def count_parameters(variables: Mapping[str, Any]) -> int:
    """Returns the number of a network's parameters, without the statistics of its normalisation."""
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def network_macs(config: DetectorConfig, variables: Mapping[str, Any]) -> int:
    """Returns a network's multiply-adds (`count_macs`) for one canvas of its size; an earlier process's where kept."""
    number = programs.kept(
        config, "multiply-adds", lambda: str(sum(count_macs(*_one_canvas(config, variables)).values())).encode()
    )
    return int(number)


def _one_canvas(config: DetectorConfig, variables: Mapping[str, Any]) -> tuple[Any, ...]:
    """Returns a network's function and the shapes of its arguments."""
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), dict(variables))
    inputs = jax.ShapeDtypeStruct((1, config.size, config.size, config.channels), jnp.float32)
    return functools.partial(config.module().apply, train=False), shapes, inputs


def _counted(model: Named, image: np.ndarray) -> dict[str, Any]:
    result: dict[str, Any] = {"parameters": None, "multiply_adds": None, "memory": None}
    if isinstance(model.detector, Detector):
        detector = model.detector
        result["parameters"] = count_parameters(detector.variables)
        result["multiply_adds"] = network_macs(detector.config, detector.variables)
        result["memory"] = _memory(*_one_canvas(detector.config, detector.variables))
    elif model.name in BASELINES:
        result["memory"] = _memory(BASELINES[model.name], jax.ShapeDtypeStruct((1, *image.shape), image.dtype))
    return result


def _memory(fn: Any, *shapes: Any) -> int | None:
    analysis = jax.jit(fn).lower(*shapes).compile().memory_analysis()
    return None if analysis is None else int(analysis.temp_size_in_bytes + analysis.output_size_in_bytes)
