"""Trains the weights that ship: the networks in sequence, each for its share of the given time, on any device.

    python -m irjax.experiments.weights --data.root SIRST-v2 NUDT-SIRST IRSTD-1K --minutes 600

For each network, OUT receives its run directories, NAME.safetensors with its card, and NAME.png with its learning
curve; one table of all, weights.md, is written as well. Repeating the command resumes where it was stopped; with more
minutes, it continues from where the learning rate began to fall. Programs are compiled in parallel before the first
network's time begins, and kept in OUT/programs. The module needs no tyro, no grain and no tensorflow-datasets, and so
its flags are read by argparse, unlike all others of irjax.
"""

from __future__ import annotations

import argparse  # tyro may be missing
import concurrent.futures
import dataclasses
import functools
import json
import math
import os
import pathlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from irjax.detector.weights import load_weights
from irjax.errors import UsageError, stopping
from irjax.experiments import adsnet, mshnet, na_irstd, spire
from irjax.experiments.command import Experiment, tests_of
from irjax.experiments.ship import ship
from irjax.flags import refuse
from irjax.io.files import write_text
from irjax.reports.curves import plot_learning
from irjax.reports.tables import markdown_table, plain_table
from irjax.training.allocator import keep_freed_memory
from irjax.training.configs import replace_parts
from irjax.training.parallel import use_all_cores


@dataclasses.dataclass(frozen=True)
class Training:
    """How one network is trained.

    Attributes:
      experiment: experiment of its method.
      stages: recipe -> fraction of its time, on a CPU: first small crops, which cost least, then nearly whole windows.
      batch_size: batch size on an accelerator, with whole canvases or windows in bfloat16, in one stage.
      select: the metric that selects its checkpoints.
      shown: metrics of the table.
      narrow: options that make the network small enough to test the command itself.
    """

    experiment: Experiment
    stages: Mapping[str, float]
    batch_size: int
    select: str
    shown: Sequence[str]
    narrow: Mapping[str, Any]


MOMENT = 1e-3  # minutes; a run of this length takes one dispatch
_POINTS, _MASKS = ("F1", "Precision", "Recall", "Fa"), ("IoU", "nIoU", "Pd", "Fa")
_TWO_STAGES = {"sirst": 0.75, "sirst-tune": 0.25}
# Batches are large enough to keep a large GPU busy: 8 million pixels for SPIRE, which is cheap, a quarter for others.
TRAININGS = {
    "spire-sirst": Training(spire.EXPERIMENT, _TWO_STAGES, 32, "f1", _POINTS, {"width": 16}),
    "mshnet-sirst": Training(mshnet.EXPERIMENT, _TWO_STAGES, 32, "miou", _MASKS, {"widths": (4, 8), "depths": (1, 1)}),
    "adsnet-sirst": Training(adsnet.EXPERIMENT, _TWO_STAGES, 32, "niou", _MASKS, {"width": 32, "widths": (8, 16, 32)}),
    "na-irstd-sirst": Training(
        na_irstd.EXPERIMENT, {"sirst": 1.0}, 16, "miou", _MASKS, {"widths": (4, 8, 12, 16), "depths": (1, 1, 1, 1)}
    ),
}


def stages(training: Training, command: argparse.Namespace, minutes: float) -> dict[str, Any]:
    """Returns the configs of a network's stages by the names of their runs; `initial` is not set."""
    data = {
        "root": tuple(command.root),
        "layout": command.layout,
        "train": tuple(command.train),
        "val": tuple(command.val if command.validation else command.train),
    }
    loop = {"steps": 0, "validate": command.validation, "tensorboard": False, "seed": command.seed}
    shares, augment = training.stages, {}
    if (command.like or jax.default_backend()) != "cpu":
        shares, augment = {"sirst": 1.0}, {"crop": 0}
        loop |= {"batch_size": training.batch_size, "bf16": True}
    if command.batch:
        loop["batch_size"] = command.batch
    configs = {}
    for recipe, share in shares.items():
        config = training.experiment.recipes[recipe]()
        if command.narrow:
            config = replace_parts(config, model=training.narrow, data={"size": 128}, loop={"steps_per_dispatch": 1})
        configs[recipe] = replace_parts(config, data=data, loop={**loop, "minutes": share * minutes}, augment=augment)
    return configs


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parses the command line."""
    program = "python -m irjax.experiments.weights"
    parser = argparse.ArgumentParser(program, description=(__doc__ or "").split("\n")[0])
    parser.error = functools.partial(refuse, program=program)  # type: ignore[method-assign]  # one line
    add = parser.add_argument
    add("--data.root", dest="root", nargs="+", required=True, metavar="DIR", help="folders of the data sets")
    add("--data.layout", dest="layout", default="auto", help="their layout (default: %(default)s)")
    add("--data.train", dest="train", nargs="+", default=("train_full", "train", "train"), metavar="SPLIT",
        help="splits to train on, one or as many as folders (default: for SIRST-v2, NUDT-SIRST, IRSTD-1K)")  # fmt: skip
    add("--data.val", dest="val", nargs="+", default=("val_full", "val", "val"), metavar="SPLIT",
        help="splits to select the checkpoints on, likewise")  # fmt: skip
    add("--minutes", type=float, default=600, metavar="M", help="time of all networks together (default: %(default)g)")
    add("--only", nargs="+", choices=list(TRAININGS), default=list(TRAININGS), metavar="NAME",
        help=f"networks to train, of {', '.join(TRAININGS)}")  # fmt: skip
    add("--initial", choices=("random", "shipped"), default="random",
        help="weights to start from: random ones, or those that ship under the same name")  # fmt: skip
    add("--no-validation", dest="validation", action="store_false",
        help="keep the last weights instead of selecting; for data without validation images")  # fmt: skip
    add("--out", type=pathlib.Path, default=pathlib.Path("runs/weights"), metavar="DIR", help="(default: %(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="seed of all random numbers (default: %(default)s)")
    add("--like", choices=("cpu", "gpu"), help="train as on this kind of device (default: the present one)")
    add("--batch", type=int, default=0, metavar="B", help="examples in a step (default: each network's own)")
    add(
        "--narrow",
        action="store_true",
        help="small networks and canvases, only for testing the command itself",
    )
    command = parser.parse_args(list(arguments))
    if not command.minutes > 0:
        raise UsageError(f"--minutes must be positive, got {command.minutes:g}")
    if command.narrow and command.initial != "random":
        raise UsageError("--narrow starts from random weights")
    return command


def compile_side_by_side(command: argparse.Namespace) -> None:
    """Compiles the steps of the trainings that have not begun, each in a thread; programs are cached in OUT/programs.

    Each is trained for a moment in a temporary folder.
    """
    jax.config.update("jax_compilation_cache_dir", str(command.out.absolute() / "programs"))

    def moment(training: Training, config: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            training.experiment.train(replace_parts(config, loop={"validate": False}), pathlib.Path(folder) / "run")

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
        running = [
            threads.submit(moment, TRAININGS[name], config)
            for name in command.only
            for recipe, config in stages(TRAININGS[name], command, MOMENT).items()
            if not (command.out / name / recipe).exists()
        ]
    for one in running:
        one.result()


def train_one(name: str, command: argparse.Namespace, minutes: float) -> dict[str, Any]:
    """Trains or resumes a network and writes its weights, card and learning curve; returns the card."""
    training, start = TRAININGS[name], name if command.initial == "shipped" else ""
    folder = command.out / name
    for recipe, config in stages(training, command, minutes).items():
        config = dataclasses.replace(config, initial=start)
        run = folder / recipe
        print(f"{name}: {config.loop.minutes:.1f} minutes of {recipe}", flush=True)
        training.experiment.train(config, run)
        start = str(run)
    learning_curve(folder, training.select, command.out / f"{name}.png")
    tests = tests_of(config.data, config.data.val) if command.validation else {}
    line = f"python -m irjax.experiments.weights {' '.join(sys.argv[1:])}"
    path = command.out / f"{name}.safetensors"
    return load_weights(ship(run, tests, path, protocols=training.experiment.protocols, command=line))[2]


def learning_curve(folder: pathlib.Path, metric: str, path: pathlib.Path) -> None:
    """Plots the loss of a network's stages in sequence, and the metric that selects their checkpoints."""
    loss: tuple[list[float], list[float]] = ([], [])
    chosen: tuple[list[float], list[float]] = ([], [])
    begin = 0.0
    for log in sorted(folder.rglob("metrics.jsonl"), key=lambda path: path.stat().st_mtime):
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        for line in lines:
            name, (minutes, values) = ("loss", loss) if line["group"] == "train" else (metric, chosen)
            if line.get(name) is not None:
                minutes.append(begin + line["minutes"])
                values.append(line[name])
        begin += lines[-1]["minutes"] if lines else 0.0
    plot_learning(path, loss, (metric, *chosen))


def table(cards: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Returns header and rows: the figures of each network on each data set, with intervals."""
    header, rows = ["weights", "images", "step", "figures"], []
    for name, card in cards.items():
        figures = card["validation"]
        step = str(card["recipe"]["step"])
        if isinstance(figures, str):
            rows.append([name, "", step, figures])
            continue
        for split, found in figures.items():
            shown = []
            for metric in TRAININGS[name].shown:
                low, high = found["intervals"].get(metric, (math.nan, math.nan))
                unit = (1e6, "e-6") if metric == "Fa" else (1, "")
                value = found["metrics"].get(metric, math.nan)
                shown.append(f"{metric} {value * unit[0]:.3g}{unit[1]} [{low * unit[0]:.3g}, {high * unit[0]:.3g}]")
            rows.append([name, f"{split}, {found['images']}", step, "  ".join(shown)])
    return header, rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    with stopping():
        command = parse(sys.argv[1:] if arguments is None else arguments)
        keep_freed_memory()
        use_all_cores()
        compile_side_by_side(command)
        cards = {name: train_one(name, command, command.minutes / len(command.only)) for name in command.only}
        header, rows = table(cards)
        write_text(command.out / "weights.md", markdown_table(header, rows) + "\n")
        print(plain_table(header, rows))
        print(f"weights, cards, learning curves: {command.out}")


if __name__ == "__main__":
    main()
