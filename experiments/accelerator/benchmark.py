"""Times inference and training of SPIRE and MSHNet beside their PyTorch twins on a machine that is lent for minutes.

    PYTHONPATH=. python experiments/accelerator/benchmark.py OUT --batch 1 8 32 --minutes 2

A process for each network, type and batch does what `irjax benchmark` does, which needs tyro; all start at once,
compile side by side and time one after the other. OUT gets NETWORK-DTYPE-BATCH.json and .txt of each. Those not done in
time are ended and named.
"""

from __future__ import annotations

import argparse  # tyro is missing on such machines
import contextlib
import multiprocessing
import os
import pathlib
import sys
import time
from typing import Any

from irjax.errors import stopping, writing

_TWINS = {"spire": "torch_hrpe.py", "mshnet": "torch_mshnet.py"}
_TESTS = pathlib.Path(__file__).resolve().parents[2] / "tests" / "models"
# Several processes share the memory of the device.
_ENVIRONMENT = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def options(command: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """{name: options of `irjax.benchmarks.detector.benchmark`}."""
    return {
        f"{model}-{dtype}-{batch}": {
            "model": model,
            "sizes": [command.size],
            "batches": [batch],
            "repeats": command.repeats,
            "bf16": dtype == "bfloat16",
            "torch": str(_TESTS / _TWINS[model]) if command.torch else None,
            "train_batch": batch,
        }
        for model in command.model
        for dtype in ("float32", "bfloat16")
        for batch in command.batch
    }


def run(name: str, out: pathlib.Path, chosen: dict[str, Any]) -> None:
    """Times one network, in a process of its own."""
    from irjax.benchmarks.detector import benchmark
    from irjax.benchmarks.table import detector_text
    from irjax.benchmarks.timing import Turns
    from irjax.io.files import write_json
    from irjax.training.allocator import keep_freed_memory

    log = open(out / f"{name}.txt", "w", buffering=1)
    with log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log), stopping():
        keep_freed_memory()
        with Turns(out / "turns") as turns:
            report = benchmark(**chosen, turns=turns)
        print(detector_text(report))
        write_json(out / f"{name}.json", report)


def main() -> int:
    """Runs the command; gives 1 where a benchmark failed or was ended."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("out", metavar="OUT", type=pathlib.Path)
    add("--model", nargs="+", choices=list(_TWINS), default=list(_TWINS), help="networks (default: both)")
    add("--batch", type=int, nargs="+", default=[1, 8, 32], help="batch sizes (default: 1 8 32)")
    add("--size", type=int, default=256, help="side of the images in px (default: %(default)s)")
    add("--repeats", type=int, default=30, help="timed calls of each (default: %(default)s)")
    add("--minutes", type=float, default=2, help="time of the whole command (default: %(default)g)")
    add("--no-torch", dest="torch", action="store_false", help="without the PyTorch twins")
    command = parser.parse_args()
    end = time.monotonic() + 60 * command.minutes
    with stopping(), writing(command.out):
        command.out.mkdir(parents=True, exist_ok=True)
    os.environ.update(_ENVIRONMENT)
    start = multiprocessing.get_context("spawn").Process  # JAX has threads, which a fork does not take along
    running = {name: start(target=run, args=(name, command.out, chosen)) for name, chosen in options(command).items()}
    for process in running.values():
        process.start()
    missed = []
    for name, process in running.items():
        process.join(max(0.0, end - time.monotonic()))
        if process.exitcode is None:
            process.kill()
            process.join()
            missed.append(f"{name} (ended, no time was left)")
        elif process.exitcode:
            missed.append(f"{name} ({process.exitcode})")
        log = command.out / f"{name}.txt"
        print(log.read_text() if log.exists() else "")
    if missed:
        print(f"without figures: {', '.join(missed)}", file=sys.stderr)
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
