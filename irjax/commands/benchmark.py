"""irjax benchmark: speed of a detector and its ratio to the machine's peak."""

from __future__ import annotations

import argparse
import os
from typing import Any

from irjax.errors import UsageError

SUMMARY = "time a detector and compare it with the machine's peak"
DESCRIPTION = (
    "Prints parameters, multiply-adds, latency and throughput of predict_fn (letterbox, network, decoding) and of "
    "the bare network, and their ratio to the floor: the multiply-adds at the rate of a large matrix product, "
    "measured in the same run. Candidates are timed in turns."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    add = parser.add_argument
    add(
        "--model", default="spire", help="a method with random weights, or what irjax.load takes (default: %(default)s)"
    )
    add(
        "--method",
        metavar="NAME|MODULE:ATTRIBUTE",
        help="a method, such as your own, as that of the model's weights; your own can then also be the model",
    )
    add("--size", type=int, nargs="+", default=[512], help="sides of the square images in px (default: %(default)s)")
    add("--batch", type=int, nargs="+", default=[1], help="batch sizes (default: %(default)s)")
    add(
        "--channels",
        type=int,
        choices=(1, 3),
        default=3,
        help="input channels of a method with random weights (default: %(default)s)",
    )
    add("--repeats", type=int, default=30, help="timed calls of each candidate (default: %(default)s)")
    add("--threads", type=int, help="processors to use (default: all)")
    add("--bf16", action="store_true", help="compute in bfloat16")
    add(
        "--train",
        action="store_true",
        help="also time training steps on synthetic scenes, from the host and cached on the device",
    )
    add("--train-batch", type=int, default=8, help="examples in a training step (default: %(default)s)")
    add(
        "--torch",
        metavar="FILE[:CLASS]",
        help="compare in turns with a PyTorch network that has the published layer names; "
        "CLASS(channels) builds it (default: TorchHRPE or TorchMSHNet; tests/models has both); training steps run "
        "eagerly, with channels last, and compiled",
    )
    add(
        "--sparse",
        action="store_true",
        help="instead of a model, time ADSNet's sparse stages and the whole network, with and without dropping patches",
    )
    add(
        "--selection",
        type=int,
        nargs="*",
        metavar="K",
        help="instead of a model, time Na-IRSTD's injection and the whole network for these numbers of selected "
        "patches (5 and 16 if none are given) and for all patches; with --train also the gradient of a training step",
    )
    add(
        "--turns",
        metavar="FILE",
        help="several such commands with the same FILE compile in parallel and time in turns",
    )
    add("--json", metavar="FILE", help="also write all numbers to this file")


def run(command: argparse.Namespace) -> None:
    """Runs the command."""
    if command.train_batch < 1:
        raise UsageError(f"--train-batch must be at least 1, got {command.train_batch}")
    if command.threads is not None:
        _limit_processors(command.threads)
    from irjax.benchmarks.table import detector_text, selection_text, sparse_text
    from irjax.io.files import write_json
    from irjax.training.allocator import keep_freed_memory

    keep_freed_memory()
    if command.method:
        from irjax.methods.registry import register_from

        command.method = register_from(command.method).name
    if command.sparse:
        report, show = _sparse(command), sparse_text
    elif command.selection is not None:
        report, show = _selection(command), selection_text
    else:
        report, show = _one_model(command), detector_text
    print(show(report))
    if command.json:
        write_json(command.json, report)


def _one_model(command: argparse.Namespace) -> dict[str, Any]:
    from irjax.benchmarks.detector import benchmark
    from irjax.benchmarks.timing import Turns

    with Turns(command.turns) as turns:
        return benchmark(
            command.model,
            method=command.method,
            sizes=command.size,
            batches=command.batch,
            channels=command.channels,
            repeats=command.repeats,
            bf16=command.bf16,
            torch=command.torch,
            train_batch=command.train_batch if command.train else 0,
            turns=turns,
        )


def _sparse(command: argparse.Namespace) -> dict[str, Any]:
    from irjax.benchmarks.sparse import benchmark_sparse

    for flag in ("train", "torch", "selection", "turns"):
        if getattr(command, flag) not in (None, False):
            raise UsageError(f"--{flag} does not go with --sparse")
    return benchmark_sparse(sizes=command.size, batches=command.batch, repeats=command.repeats, bf16=command.bf16)


def _selection(command: argparse.Namespace) -> dict[str, Any]:
    from irjax.benchmarks.selection import benchmark_selection

    for flag in ("torch", "turns"):
        if getattr(command, flag):
            raise UsageError(f"--{flag} does not go with --selection")
    return benchmark_selection(
        sizes=command.size,
        batches=command.batch,
        selected=command.selection or (5, 16),
        train_batch=command.train_batch if command.train else 0,
        repeats=command.repeats,
        bf16=command.bf16,
    )


def _limit_processors(number: int) -> None:
    """Limits this process to so many processors, before JAX creates its threads."""
    if not hasattr(os, "sched_setaffinity"):
        raise UsageError("--threads needs Linux")
    available = sorted(os.sched_getaffinity(0))
    if not 1 <= number <= len(available):
        raise UsageError(f"--threads must be in 1..{len(available)}, got {number}")
    os.sched_setaffinity(0, available[:number])
