"""Trains what ships: the networks one after the other, each for its share of a time, on whatever device there is.

    python -m irjax.experiments.weights --data.root SIRST-v2 NUDT-SIRST IRSTD-1K --minutes 600

Each leaves in OUT its run directories, NAME.safetensors with its card, NAME.png with its learning curve; and there is
one table, weights.md. Given again the command goes on where it was stopped; with more minutes, from where the learning
rate began to fall. Programs are compiled side by side before the first network's time begins, and kept in OUT/programs.
It needs no tyro, no grain and no tensorflow-datasets.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import json
import math
import os
import pathlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from irjax.errors import UsageError, stopping
from irjax.experiments import adsnet, mshnet, na_irstd, spire
from irjax.experiments.command import Experiment, ship, tests_of
from irjax.reports.curves import plot_learning
from irjax.reports.files import write_text
from irjax.reports.tables import markdown_table, plain_table
from irjax.training.allocator import keep_freed_memory
from irjax.training.configs import changed
from irjax.training.parallel import use_all_cores
from irjax.weights import load_weights


@dataclasses.dataclass(frozen=True)
class Training:
    """How one network is trained.

    Attributes:
      experiment: of its method.
      stages: recipe -> share of its time, on a CPU: small crops first, which cost least, then nearly whole windows.
      batch_size: on an accelerator, of whole canvases or windows in bfloat16, in one stage.
      select: the metric that chooses its checkpoints.
      shown: metrics of the table.
      narrow: what makes the network small enough to try the command itself.
    """

    experiment: Experiment
    stages: Mapping[str, float]
    batch_size: int
    select: str
    shown: Sequence[str]
    narrow: Mapping[str, Any]


MOMENT = 1e-3  # minutes; a run of so many takes one dispatch
_POINTS, _MASKS = ("F1", "Precision", "Recall", "Fa"), ("IoU", "nIoU", "Pd", "Fa")
_TWO_STAGES = {"sirst": 0.75, "sirst-tune": 0.25}
# Batches are as many pixels as keep a large GPU busy: 8 million of SPIRE's cheap ones, a quarter of that of others'.
TRAININGS = {
    "spire-sirst": Training(spire.EXPERIMENT, _TWO_STAGES, 32, "f1", _POINTS, {"width": 16}),
    "mshnet-sirst": Training(mshnet.EXPERIMENT, _TWO_STAGES, 32, "miou", _MASKS, {"widths": (4, 8), "depths": (1, 1)}),
    "adsnet-sirst": Training(adsnet.EXPERIMENT, _TWO_STAGES, 32, "niou", _MASKS, {"width": 32, "widths": (8, 16, 32)}),
    "na-irstd-sirst": Training(
        na_irstd.EXPERIMENT, {"sirst": 1.0}, 16, "miou", _MASKS, {"widths": (4, 8, 12, 16), "depths": (1, 1, 1, 1)}
    ),
}


def stages(training: Training, command: argparse.Namespace, minutes: float) -> dict[str, Any]:
    """The configs of a network's stages by the names of their runs; `initial` is not set."""
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
            config = changed(config, model=training.narrow, data={"size": 128}, loop={"steps_per_dispatch": 1})
        configs[recipe] = changed(config, data=data, loop={**loop, "minutes": share * minutes}, augment=augment)
    return configs


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("python -m irjax.experiments.weights", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--data.root", dest="root", nargs="+", required=True, metavar="DIR", help="folders of the data sets")
    add("--data.layout", dest="layout", default="auto", help="their layout (default: %(default)s)")
    add("--data.train", dest="train", nargs="+", default=("train_full", "train", "train"), metavar="SPLIT",
        help="splits to train on, one or as many as folders (default: for SIRST-v2, NUDT-SIRST, IRSTD-1K)")  # fmt: skip
    add("--data.val", dest="val", nargs="+", default=("val_full", "val", "val"), metavar="SPLIT",
        help="splits to choose the checkpoints on, likewise")  # fmt: skip
    add("--minutes", type=float, default=600, metavar="M", help="of all networks together (default: %(default)g)")
    add("--only", nargs="+", choices=list(TRAININGS), default=list(TRAININGS), metavar="NAME",
        help=f"networks to train, of {', '.join(TRAININGS)}")  # fmt: skip
    add("--initial", choices=("random", "shipped"), default="random",
        help="weights to start from: random ones, or those that ship under the same name")  # fmt: skip
    add("--no-validation", dest="validation", action="store_false",
        help="keep the last weights instead of choosing; for data without validation images")  # fmt: skip
    add("--out", type=pathlib.Path, default=pathlib.Path("runs/weights"), metavar="DIR", help="(default: %(default)s)")
    add("--seed", type=int, default=0, metavar="N", help="of everything random (default: %(default)s)")
    add("--like", choices=("cpu", "gpu"), help="train as on such a device (default: the one there is)")
    add("--batch", type=int, default=0, metavar="B", help="examples a step (default: each network's own)")
    add(
        "--narrow",
        action="store_true",
        help="small networks and canvases, which are worth nothing: to try the command itself",
    )
    command = parser.parse_args(list(arguments))
    if not command.minutes > 0:
        raise UsageError(f"--minutes must be positive, got {command.minutes:g}")
    if command.narrow and command.initial != "random":
        raise UsageError("--narrow starts from random weights")
    return command


def compile_side_by_side(command: argparse.Namespace) -> None:
    """Compiles the steps of the trainings that are to begin, each in a thread; JAX finds the programs in OUT/programs.

    Each is trained for a moment in a folder that is thrown away.
    """
    jax.config.update("jax_compilation_cache_dir", str(command.out.absolute() / "programs"))

    def moment(training: Training, config: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            training.experiment.train(changed(config, loop={"validate": False}), pathlib.Path(folder) / "run")

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
    """Trains a network or goes on with it; writes its weights, card and learning curve; gives the card."""
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
    return load_weights(ship(training.experiment, run, tests, command.out / f"{name}.safetensors", line))[2]


def learning_curve(folder: pathlib.Path, metric: str, path: pathlib.Path) -> None:
    """Draws the loss of a network's stages, one after the other, and the metric that chooses their checkpoints."""
    loss, chosen, begin = ([], []), ([], []), 0.0
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
    """Header and rows: the figures of each network on each data set, with intervals."""
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
