"""Times several candidates in turns, a few calls each, so that other load on the machine affects all equally."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TextIO

import flax.linen as nn
import jax
import numpy as np

from irjax.bars import bar
from irjax.benchmarks.counting import count_macs
from irjax.errors import UsageError, writing

_CALLS = 5  # calls of one candidate in a turn

Run = Callable[[], Any]
Call = tuple[Callable[..., Any], tuple[Any, ...]]  # a function and its arguments


class Turns:
    """A block in which processes compile in parallel but time one at a time, while no other process compiles.

    Args:
      path: the file that they lock, created if absent; None: there are no other processes.
    """

    def __init__(self, path: str | os.PathLike | None = None):
        self._path = path
        self._file: TextIO | None = None

    def __enter__(self) -> Turns:
        if self._path is not None:
            with writing(self._path):
                self._file = open(self._path, "a")
            self._lock(exclusive=False)
        return self

    def __exit__(self, *_: Any) -> None:
        if self._file is not None:
            self._file.close()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Starts the block when no other process compiles or times."""
        self._lock(exclusive=True)
        try:
            yield
        finally:
            self._lock(exclusive=False)

    def _lock(self, *, exclusive: bool) -> None:
        if self._file is not None:
            try:
                import fcntl
            except ImportError as error:
                raise UsageError("--turns needs Linux or macOS") from error
            fcntl.flock(self._file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)


def circumstances(sizes: Sequence[int], batches: Sequence[int], bf16: bool) -> dict[str, Any]:
    """Returns the conditions of a benchmark, with the load of the last minute.

    Returns:
      {"device", "processors", "load", "jax", "xla_flags", "dtype"}.

    Raises:
      UsageError: if there is no size or no batch, or one is below 1.
    """
    if not sizes or not batches or min(*sizes, *batches) < 1:
        raise UsageError(f"sizes and batches must not be empty and each at least 1, got {sizes} and {batches}")
    return {
        "device": f"{jax.devices()[0].platform} {jax.devices()[0].device_kind}",
        "processors": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "jax": jax.__version__,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "dtype": "bfloat16" if bf16 else "float32",
    }


def random_variables(module: nn.Module, *inputs: Any) -> Any:
    """Returns plausible variables for these inputs without compiling the network's own initialisation."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs))
    return jax.tree.map_with_path(functools.partial(_draw, np.random.default_rng(0)), shapes)


def _draw(rng: np.random.Generator, path: Any, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
    name = path[-1].key
    if name == "kernel":
        return rng.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape).astype(np.float32)
    low, high = (0.5, 1.5) if name in ("scale", "var") else (-0.2, 0.2)
    return rng.uniform(low, high, leaf.shape).astype(np.float32)


def in_turns(runs: Mapping[str, Run], repeats: int) -> dict[str, np.ndarray]:
    """Times calls of several candidates in turns: a few calls of one, the first not counted, then of the next.

    Args:
      runs: {name: a function that returns when its work is done}; one-time work such as compilation is done before.
      repeats: timed calls of each, at least 1.

    Returns:
      {name: [repeats] seconds}.
    """
    if repeats < 1:
        raise UsageError(f"repeats must be at least 1, got {repeats}")
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in bar(range(-(-repeats // _CALLS)), "timing", unit="turn"):
        for name, run in runs.items():
            run()
            for _ in range(min(_CALLS, repeats - len(times[name]))):
                begin = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - begin)
    return {name: np.array(seconds) for name, seconds in times.items()}


def once_each(runs: Mapping[str, Run]) -> None:
    """Calls each function once, to compile and warm up."""
    for run in bar(runs.values(), "compiling", total=len(runs), unit="program"):
        run()


def compare_calls(calls: Mapping[str, Call], repeats: int) -> dict[str, dict[str, Any]]:
    """Compiles functions and times them in turns.

    Args:
      calls: {name: (function, its arguments)}.
      repeats: timed calls of each.

    Returns:
      {name: "median" in seconds, "multiply_adds", and "memory", the bytes that the compiled program needs in addition
      to its arguments and results, or None where the platform does not report it}.
    """
    compiled = {name: jax.jit(fn).lower(*args).compile() for name, (fn, args) in calls.items()}
    runs = {name: lambda name=name: jax.block_until_ready(compiled[name](*calls[name][1])) for name in calls}
    once_each(runs)
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


def summary(seconds: np.ndarray) -> dict[str, Any]:
    """Returns "median", "quartiles" and "least" of times [n] as JSON values."""
    low, median, high = np.percentile(seconds, (25, 50, 75))
    return {"median": median, "quartiles": [low, high], "least": seconds.min()}
