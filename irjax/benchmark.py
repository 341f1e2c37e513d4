"""How fast a detector is, and how far from what the machine could do: the work of `irjax benchmark`.

What is compared runs in turns within one process, a few calls each, so that a busy machine slows all alike.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import importlib.util
import inspect
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np

from irjax.inference import Detector, DetectorConfig, load
from irjax.models.registry import MODELS

_CALLS = 5  # of one candidate before the next one's turn
_MATMUL_SIDE = {"cpu": 2048}  # else large enough to fill an accelerator
_MATMUL_SIDE_DEFAULT = 8192
_TRAIN_CHUNK = 5  # steps from one synchronisation to the next
_TRAIN_EXAMPLES = 64

Run = Callable[[], Any]


# --- counting ---------------------------------------------------------------------------------------------------------


def count_macs(fn: Callable[..., Any], *args: Any) -> dict[str, int]:
    """Multiply-adds of the convolutions and matrix products in a function, by layer.

    They are counted from the shapes in the function's jaxpr, positions in the padding included, as papers count. Where
    the platforms run different forms, the form with more of these operations counts (a depthwise convolution that runs
    as shifted products is still one); a while loop counts once.

    Args:
      fn: a function of arrays.
      *args: arrays or `jax.ShapeDtypeStruct`.

    Returns:
      {name of the flax module, or "" outside of one: multiply-adds}.
    """
    total: collections.Counter[str] = collections.Counter()
    _count(jax.make_jaxpr(fn)(*args).jaxpr, "", total)
    return dict(total)


def _count(jaxpr: Any, scope: str, total: collections.Counter[str]) -> None:
    for equation in jaxpr.eqns:
        inner = str(equation.source_info.name_stack)
        here = f"{scope}/{inner}" if scope and inner else scope or inner
        params = equation.params
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total[here] += equation.outvars[0].aval.size * int(np.prod([left[i] for i in contracted], dtype=np.int64))
        elif equation.primitive.name == "conv_general_dilated":
            kernel, output = equation.invars[1].aval, equation.outvars[0].aval
            features = kernel.shape[params["dimension_numbers"].rhs_spec[0]]
            total[here] += output.size * (kernel.size // features)
        elif equation.primitive.name == "cond":
            branches = []
            for branch in params["branches"]:
                branches.append(collections.Counter())
                _count(branch.jaxpr, here, branches[-1])
            total.update(max(branches, key=lambda counted: sum(counted.values())))
        else:
            times = params["length"] if equation.primitive.name == "scan" else 1
            for value in params.values():
                if isinstance(value, jax.extend.core.ClosedJaxpr | jax.extend.core.Jaxpr):
                    part: collections.Counter[str] = collections.Counter()
                    _count(getattr(value, "jaxpr", value), here, part)
                    total.update({name: times * number for name, number in part.items()})


def by_module(macs: Mapping[str, int]) -> dict[str, int]:
    """Sums of `count_macs` by the network's direct submodules, in the order of the network."""
    sums: collections.Counter[str] = collections.Counter()
    for name, number in macs.items():
        parts = name.split("/")
        sums[parts[1] if len(parts) > 1 else name] += number
    return dict(sums)


# --- timing -----------------------------------------------------------------------------------------------------------


def in_turns(runs: Mapping[str, Run], repeats: int) -> dict[str, np.ndarray]:
    """Times calls of several candidates in turns: a few calls of one, the first not counted, then of the next.

    Args:
      runs: {name: a function that returns when its work is done}.
      repeats: timed calls of each, at least 1.

    Returns:
      {name: [repeats] seconds}.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    while len(times[next(iter(runs))]) < repeats:
        for name, run in runs.items():
            run()
            for _ in range(min(_CALLS, repeats - len(times[name]))):
                begin = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - begin)
    return {name: np.array(seconds) for name, seconds in times.items()}


def compare(calls: Mapping[str, tuple[Callable[..., Any], tuple[Any, ...]]], repeats: int) -> dict[str, dict[str, Any]]:
    """Compiles functions and times them in turns.

    Args:
      calls: {name: (function, its arguments)}.
      repeats: timed calls of each.

    Returns:
      {name: "median" in seconds, "multiply_adds", and "memory", the bytes that the compiled program needs beside its
      arguments and results, or None where the platform does not say}.
    """
    compiled = {name: jax.jit(fn).lower(*args).compile() for name, (fn, args) in calls.items()}
    runs = {name: lambda name=name: jax.block_until_ready(compiled[name](*calls[name][1])) for name in calls}
    times = in_turns(runs, repeats)
    analyses = {name: program.memory_analysis() for name, program in compiled.items()}
    return {
        name: {
            "median": float(np.median(times[name])),
            "multiply_adds": sum(count_macs(fn, *args).values()),
            "memory": getattr(analyses[name], "temp_size_in_bytes", None),
        }
        for name, (fn, args) in calls.items()
    }


def _summary(seconds: np.ndarray) -> dict[str, float]:
    low, median, high = np.percentile(seconds, (25, 50, 75))
    return {"median": median, "quartiles": [low, high], "least": seconds.min()}


def _queued_rate(call: Run, batch: int, calls: int) -> float:
    """Images a second when calls are dispatched without waiting for each other."""
    jax.block_until_ready(call())
    begin = time.perf_counter()
    results = [call() for _ in range(calls)]
    jax.block_until_ready(results)
    return batch * calls / (time.perf_counter() - begin)


# --- the report -------------------------------------------------------------------------------------------------------


def benchmark(
    model: str = "spire",
    *,
    sizes: Sequence[int] = (512,),
    batches: Sequence[int] = (1,),
    channels: int = 3,
    repeats: int = 30,
    bf16: bool = False,
    torch: str | None = None,
    train_batch: int = 0,
) -> dict[str, Any]:
    """Times a detector, and training steps if asked.

    Args:
      model: a method's name in `irjax.models.registry` or its class's, with random weights; or what `irjax.load` takes.
      sizes: sides S of the images and of the canvas in pixels.
      batches: images in a call.
      channels: of the network's input, with random weights.
      repeats: timed calls of each candidate.
      bf16: compute in bfloat16.
      torch: ``FILE[:CLASS]`` of a PyTorch network to compare with: ``CLASS(channels)``, by default ``TorchHRPE``, has
        the published layer names and gets the same weights.
      train_batch: examples in a training step; 0 times no training.

    Returns:
      JSON values: "device", "processors", "load" (of the last minute, before), "parameters", "runs" (one for each size
      and batch) and, if asked, "training". Times are in seconds.

    Raises:
      FileNotFoundError: if the PyTorch module does not exist.
      ValueError: if the model, a size or a batch is not usable, or the PyTorch module has no such class.
    """
    where = circumstances(sizes, batches, bf16)
    detectors = [_detector(model, size, channels, bf16) for size in sizes]
    make_torch = _torch_class(torch) if torch else None
    report: dict[str, Any] = {
        "model": model,
        **where,
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(detectors[0].variables["params"])),
        "runs": [_time_inference(d, batch, repeats, bf16, make_torch) for d in detectors for batch in batches],
    }
    if train_batch:
        report["training"] = [
            time_training(d.config, train_batch, repeats=repeats, make_torch=make_torch) for d in detectors
        ]
    return report


def circumstances(sizes: Sequence[int], batches: Sequence[int], bf16: bool) -> dict[str, Any]:
    """What a benchmark runs on: "device", "processors", "load" of the last minute, "jax", "xla_flags" and "dtype".

    Raises:
      ValueError: if there is no size or no batch, or a batch is below 1.
    """
    if not sizes or not batches or min(batches) < 1:
        raise ValueError(f"sizes and batches must not be empty and batches at least 1, got {sizes} and {batches}")
    return {
        "device": f"{jax.devices()[0].platform} {jax.devices()[0].device_kind}",
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "jax": jax.__version__,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "dtype": "bfloat16" if bf16 else "float32",
    }


def _detector(model: str, size: int, channels: int, bf16: bool) -> Detector:
    """A detector at this size, with random weights if `model` is a method."""
    classes = {cls.__name__.lower(): method for method, cls in MODELS.items()}
    method = classes.get(model.lower(), model)
    extra = {"dtype": "bfloat16"} if bf16 else {}
    if method not in MODELS:
        detector = load(model, size=size)
        config = dataclasses.replace(detector.config, model={**detector.config.model, **extra})
        return Detector(config, detector.variables)
    config = DetectorConfig(method=method, model=extra, size=size, channels=channels, normalization="imagenet")
    return Detector(config, random_variables(config.module(), jnp.zeros((1, 256, 256, channels))))


def random_variables(module: nn.Module, *inputs: Any) -> Any:
    """Plausible variables for these inputs; a network's own initialisation would first have to be compiled."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs))
    return jax.tree.map_with_path(functools.partial(_draw, np.random.default_rng(0)), shapes)


def _draw(rng: np.random.Generator, path: Any, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    name = path[-1].key
    if name == "kernel":
        return rng.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape).astype(np.float32)
    low, high = (0.5, 1.5) if name in ("scale", "var") else (-0.2, 0.2)
    return rng.uniform(low, high, leaf.shape).astype(np.float32)


def _time_inference(detector: Detector, batch: int, repeats: int, bf16: bool, make_torch: Any) -> dict[str, Any]:
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
    if make_torch is not None:
        runs["torch"], heatmap = _torch_inference(make_torch, config, variables, pixels, bf16)
        ours = np.asarray(calls["network"](), np.float32)
        result["largest_difference"] = float(np.abs(heatmap - ours).max() / max(np.abs(ours).max(), 1e-9))
    seconds = in_turns(runs, repeats)

    layers = by_module(count_macs(apply, variables, inputs))
    macs, rate = sum(layers.values()), side**3 / np.median(seconds["matmul"])
    costs = network.cost_analysis() or {}
    result |= {"multiply_adds": macs, "layers": layers, "compiler_flops": costs.get("flops"), "peak_rate": rate}
    result["floor"] = macs / rate
    for name, times in seconds.items():
        if name == "matmul":
            continue
        result[name] = {**_summary(times), "over_floor": np.median(times) / result["floor"]}
        rate_of = _queued_rate(calls[name], batch, max(3, repeats // 3)) if name in calls else batch / np.median(times)
        result[name]["images_per_second"] = rate_of
    if "torch" in seconds:
        result["ratio_to_torch"] = np.median(seconds["predict_fn"]) / np.median(seconds["torch"])
    return result


def _wait(call: Run) -> None:
    jax.block_until_ready(call())


# --- training ---------------------------------------------------------------------------------------------------------


def time_training(
    detector: DetectorConfig, batch: int, *, repeats: int = 30, make_torch: Callable[[int], Any] | None = None
) -> dict[str, Any]:
    """Times training steps on synthetic scenes, fed from the host and from the device.

    Args:
      detector: its network and size are trained.
      batch: examples in a step.
      repeats: timed steps of each feed, rounded to chunks of 5.
      make_torch: makes the PyTorch network to compare with, from the number of channels.

    Returns:
      JSON values: "size", "batch", "traces" of each step function, times a step of "device_cache", "host_feed" (with
      "data_wait", the share of the time spent waiting for data) and "torch" (without augmentation and targets).

    Raises:
      ValueError: for a method whose training is not known here.
    """
    from irjax.data.pipeline import Order
    from irjax.data.synthetic import SceneConfig, SyntheticSource
    from irjax.experiments import spire
    from irjax.training.data import CachedFeed, DataConfig, HostFeed, load_split
    from irjax.training.loop import LoopConfig
    from irjax.training.parallel import data_parallel, replicate
    from irjax.training.state import TrainState
    from irjax.training.steps import make_train_step

    if detector.method != "spire":
        raise ValueError(f"training is timed for spire, not for {detector.method}")
    size, devices = detector.size, jax.local_devices()[:1]
    options = dict(detector.model)
    bf16 = options.pop("dtype", "float32") == "bfloat16"
    data = DataConfig(size=size)
    config = dataclasses.replace(
        spire.paper(),
        data=data,
        model=spire.ModelConfig(channels=detector.channels, **options),
        loop=LoopConfig(batch_size=batch, bf16=bf16),
    )
    source = SyntheticSource(SceneConfig(height=size, width=size), 0, max(_TRAIN_EXAMPLES, batch))
    order = Order(len(source), 0)
    tx = config.optimizer.build(1000, 100)
    initial = random_variables(spire.spire_method(config).model, jnp.zeros((1, 64, 64, detector.channels)))
    traces: collections.Counter[str] = collections.Counter()

    def counted(name: str) -> Callable[[str | None], Any]:
        return lambda axis: _counting_traces(
            make_train_step(spire.spire_method(config, axis), tx, seed_key=jax.random.key(0)), traces, name
        )

    on_cache = data_parallel(counted("device_cache"), devices, cached=True)
    on_batch = data_parallel(counted("host_feed"), devices)
    cached = CachedFeed(load_split(source, size, data.max_points, enlarge=data.enlarge), order, batch, devices)
    host = HostFeed(source, order, batch, data, 0, False)
    states = {name: replicate(TrainState.create(jax.tree.map(jnp.array, initial), tx, averaging=False), devices)
              for name in ("device_cache", "host_feed")}  # fmt: skip

    def run_cached() -> None:
        states["device_cache"], metrics = on_cache(states["device_cache"], *cached.arguments(0, _TRAIN_CHUNK))
        jax.block_until_ready(metrics)

    def run_host() -> None:
        for _ in range(_TRAIN_CHUNK):
            states["host_feed"], metrics = on_batch(states["host_feed"], host.next())
        jax.block_until_ready(metrics)

    runs: dict[str, Run] = {"device_cache": run_cached, "host_feed": run_host}
    if make_torch is not None:
        runs["torch"] = _torch_training(make_torch, detector.channels, size, batch, bf16)
    run_host()
    host.waited, begin = 0.0, time.perf_counter()
    run_host()
    wait = host.waited / (time.perf_counter() - begin)
    chunks = max(2, repeats // _TRAIN_CHUNK)
    seconds = {name: times / _TRAIN_CHUNK for name, times in in_turns(runs, chunks).items()}
    result: dict[str, Any] = {"size": size, "batch": batch, "traces": dict(traces)}
    result |= {
        name: {**_summary(times), "images_per_second": batch / np.median(times)} for name, times in seconds.items()
    }
    result["host_feed"]["data_wait"], result["device_cache"]["data_wait"] = wait, 0.0
    if "torch" in seconds:
        result["ratio_to_torch"] = np.median(seconds["device_cache"]) / np.median(seconds["torch"])
    return result


def _counting_traces(step: Callable[..., Any], traces: collections.Counter[str], name: str) -> Callable[..., Any]:
    """The same step; `traces` counts how often JAX traces it."""

    def traced(state: Any, examples: Any) -> Any:
        traces[name] += 1  # Python runs when JAX traces, not when it computes
        return step(state, examples)

    return traced


# --- PyTorch ----------------------------------------------------------------------------------------------------------


def _torch_class(spec: str) -> Callable[[int], Any]:
    """The class that ``FILE[:CLASS]`` names; the file is loaded by its path."""
    file, _, name = spec.partition(":")
    path = pathlib.Path(file)
    if not path.is_file():
        raise FileNotFoundError(f"no PyTorch module {path}")
    try:
        import torch
    except ImportError as error:
        raise ImportError("a comparison with PyTorch needs it: pip install 'irjax[torch]'") from error

    found = importlib.util.spec_from_file_location(f"_irjax_benchmark_{path.stem}", path)
    if found is None or found.loader is None:
        raise ValueError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    cls = getattr(module, name or "TorchHRPE", None)
    if not (inspect.isclass(cls) and issubclass(cls, torch.nn.Module)):
        raise ValueError(f"{path} has no torch.nn.Module called {name or 'TorchHRPE'}")
    return cls


def _torch_setup(bf16: bool) -> tuple[str, Any]:
    """PyTorch's device, the one JAX uses if it can; its threads become as many as there are processors."""
    import torch

    if hasattr(os, "sched_getaffinity"):
        torch.set_num_threads(len(os.sched_getaffinity(0)))
    device = "cuda" if jax.default_backend() == "gpu" and torch.cuda.is_available() else "cpu"
    return device, torch.bfloat16 if bf16 else torch.float32


def _torch_inference(
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


def _torch_training(make: Callable[[int], Any], channels: int, size: int, batch: int, bf16: bool) -> Run:
    """A chunk of eager training steps without augmentation and targets, on random arrays; bfloat16 by autocast."""
    import torch

    device, dtype = _torch_setup(bf16)
    net = make(channels).train().to(device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    images = torch.rand(batch, channels, size, size, device=device)
    with torch.no_grad():
        target = torch.rand_like(net(images[:1])).expand(batch, -1, -1)

    def run() -> None:
        for _ in range(_TRAIN_CHUNK):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device, dtype=dtype, enabled=bf16):
                heatmap = net(images)
            torch.nn.functional.mse_loss(heatmap.float(), target).backward()
            optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return run
