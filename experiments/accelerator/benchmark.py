"""Times inference and training of SPIRE and MSHNet beside their PyTorch twins on a machine that is lent for minutes.

    PYTHONPATH=. python experiments/accelerator/benchmark.py OUT --batch 1 8 32 --minutes 2

A process of `irjax benchmark` for each network, type and batch, all at once: they compile side by side and time one
after the other. OUT gets NETWORK-DTYPE-BATCH.json and .txt of each. Those not done in time are ended and named.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import subprocess
import sys
import time

from irjax.errors import stopping, writing

_TWINS = {"spire": "torch_hrpe.py", "mshnet": "torch_mshnet.py"}
_TESTS = pathlib.Path(__file__).resolve().parents[2] / "tests" / "models"
# Several processes share the memory of the device.
_ENVIRONMENT = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def commands(command: argparse.Namespace) -> dict[str, list[str]]:
    """{name: arguments of `python -m irjax`}."""
    found = {}
    for model in command.model:
        for dtype in ("float32", "bfloat16"):
            for batch in command.batch:
                name = f"{model}-{dtype}-{batch}"
                flags = ["--model", model, "--size", command.size, "--batch", batch, "--train", "--train-batch", batch]
                flags += ["--repeats", command.repeats, "--turns", command.out / "turns"]
                flags += ["--json", command.out / f"{name}.json"]
                flags += ["--bf16"] * (dtype == "bfloat16")
                flags += ["--torch", _TESTS / _TWINS[model]] * command.torch
                found[name] = ["benchmark", *map(str, flags)]
    return found


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
    running, missed = {}, []
    for name, arguments in commands(command).items():
        with open(command.out / f"{name}.txt", "w") as log:
            line = [sys.executable, "-m", "irjax", *arguments]
            running[name] = subprocess.Popen(line, stdout=log, stderr=log, env={**os.environ, **_ENVIRONMENT})
    for name, process in running.items():
        try:
            status = process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            status = "ended, no time was left"
        if status:
            missed.append(f"{name} ({status})")
        print((command.out / f"{name}.txt").read_text())
    if missed:
        print(f"without figures: {', '.join(missed)}", file=sys.stderr)
    return bool(missed)


if __name__ == "__main__":
    sys.exit(main())
