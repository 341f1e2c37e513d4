"""The command `irjax`: predict, evaluate, datasets, benchmark, models.

Every subcommand is a function of parsed arguments. Mistakes of the caller end in one line, ``error: ...``, and exit
status 1. What a subcommand needs is imported when it runs, so that ``irjax --help`` answers at once.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import NoReturn

import irjax

DEFAULT_MODEL = "spire-sirst"


class _Parser(argparse.ArgumentParser):
    """A parser whose errors look like all others."""

    def error(self, message: str) -> NoReturn:
        sys.exit(f"error: {message}; see {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line.

    Args:
      arguments: without the program's name; those of the process by default.

    Raises:
      SystemExit: with a message and status 1 for a mistake of the caller, 130 after an interruption.
    """
    command = _parser().parse_args(arguments)
    try:
        command.run(command)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of a pipe, such as head, has seen enough. Python would complain again when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(f"error: {_line(error)}") from error
    except RuntimeError as error:
        from irjax.training.checkpoints import CheckpointError

        if not isinstance(error, CheckpointError):
            raise
        raise SystemExit(f"error: {_line(error)}") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


# --- the parser -------------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="irjax", description="Infrared small target detection in JAX.")
    parser.add_argument("--version", action="version", version=f"irjax {irjax.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_predict(commands)
    _add_evaluate(commands)
    _add_datasets(commands)
    _add_benchmark(commands)
    models = _command(commands, "models", _models, "list the weights that ship with irjax, and what they were made of")
    models.add_argument("name", nargs="*", help="show only these, with their whole card")
    return parser


def _command(commands, name: str, run, summary: str, description: str = "") -> argparse.ArgumentParser:
    text = description or f"{summary[0].upper()}{summary[1:]}."
    parser = commands.add_parser(name, help=summary, description=text)
    parser.set_defaults(run=run)
    return parser


def _add_predict(commands) -> None:
    parser = _command(
        commands,
        "predict",
        _predict,
        "detect targets in image files",
        "Detects targets in image files of any sizes (8- or 16-bit gray or colour PNG, TIFF, BMP, JPEG). Writes "
        "predictions.json (COCO keypoints), predictions.csv (name,x,y,score; pixels of the original image, centres at "
        "integers) and pictures. A file that cannot be read is reported at the end and does not stop the others.",
    )
    parser.add_argument("images", nargs="+", metavar="FOLDER_OR_FILE", help="image files, or folders of them")
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        help="name of shipped weights (irjax models), run directory, .safetensors or published .pth file, or tophat, a "
        "filter without weights (default: %(default)s)",
    )
    parser.add_argument("--out", default="runs/predict", metavar="DIR", help="where to write (default: %(default)s)")
    parser.add_argument("--threshold", type=float, help="lowest score of a detection (default: the model's own)")
    parser.add_argument(
        "--size", type=int, help="side in pixels of the square that images are fitted into (default: the model's own)"
    )
    parser.add_argument(
        "--max-detections", type=int, metavar="N", help="most detections in an image (default: the model's own)"
    )
    parser.add_argument(
        "--overlays",
        type=int,
        default=8,
        metavar="N",
        help="draw pictures of the first N images with detections (default: %(default)s)",
    )
    parser.add_argument("--recursive", action="store_true", help="take the folders below a folder, too")


def _add_evaluate(commands) -> None:
    parser = _command(
        commands,
        "evaluate",
        _evaluate,
        "score a prediction file of any program",
        "Scores a COCO-keypoint prediction file, of irjax or of any other program, against annotated images: "
        "precision, recall, F1 and false alarms with bootstrap intervals, a threshold sweep, curves, the worst images.",
    )
    parser.add_argument("--predictions", required=True, metavar="FILE", help="COCO keypoints as JSON")
    parser.add_argument("--truth", required=True, metavar="DIR", help="data set, in a published layout or prepared")
    parser.add_argument("--split", default="all", help="split of the data set (default: %(default)s)")
    parser.add_argument("--layout", default="auto", help="layout of the folder (default: found automatically)")
    parser.add_argument("--threshold", type=float, help="drop detections with a lower score (default: keep all)")
    parser.add_argument("--out", metavar="DIR", help="write the report there (default: only print the table)")
    parser.add_argument(
        "--overlays", type=int, default=8, metavar="N", help="pictures of the N worst images (default: %(default)s)"
    )
    parser.add_argument("--protocol", default="centroid", help="one that takes points (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: %(default)s)")
    parser.add_argument("--allow-missing", action="store_true", help="accept names that are on one side only")


def _add_datasets(commands) -> None:
    parser = commands.add_parser(
        "datasets",
        help="prepare data sets, and see what is in a folder",
        description="Prepares data sets, and says what is in a folder.",
    )
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    build = _command(actions, "build", _datasets_build, "prepare a data set as ArrayRecord files, without TensorFlow")
    build.add_argument("name", help="such as sirst_v2 or sirst_v2/v1; irjax datasets list knows them all")
    build.add_argument("--source", required=True, metavar="DIR", help="folder of the publication")
    build.add_argument("--out", metavar="DIR", help="where to (default: $IRJAX_DATA, else ./datasets)")
    build.add_argument("--overwrite", action="store_true", help="replace what is prepared there already")
    known = _command(actions, "list", _datasets_list, "list the data sets that can be prepared, or a folder's splits")
    known.add_argument("root", nargs="?", metavar="DIR", help="say this folder's layout and splits instead")
    known.add_argument("--layout", default="auto", help="layout of the folder (default: found automatically)")


def _add_benchmark(commands) -> None:
    parser = _command(
        commands,
        "benchmark",
        _benchmark,
        "time a detector, and say how far from the machine's peak it is",
        "Prints parameters, multiply-adds, latency and throughput of predict_fn (letterbox, network, decoding) and of "
        "the bare network, and their ratio to the floor: the multiply-adds at the rate of a large matrix product, "
        "measured in the same run. What is compared runs in turns.",
    )
    add = parser.add_argument
    add(
        "--model", default="spire", help="a method with random weights, or what irjax.load takes (default: %(default)s)"
    )
    add("--size", type=int, nargs="+", default=[512], help="sides of the square images in px (default: %(default)s)")
    add("--batch", type=int, nargs="+", default=[1], help="batch sizes (default: %(default)s)")
    add(
        "--channels", type=int, choices=(1, 3), default=3, help="of a method with random weights (default: %(default)s)"
    )
    add("--repeats", type=int, default=30, help="timed calls of each (default: %(default)s)")
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
        help="compare with a PyTorch network with the published layer names, in turns; "
        "CLASS(channels) makes it (default: TorchHRPE; tests/models/torch_hrpe.py has one)",
    )
    add("--json", metavar="FILE", help="also write all numbers there")


# --- the subcommands --------------------------------------------------------------------------------------------------


def _predict(command: argparse.Namespace) -> None:
    from irjax.reports.predict import find_images, predict_files
    from irjax.training.allocator import keep_freed_memory

    keep_freed_memory()
    if command.overlays < 0:
        raise ValueError(f"--overlays must not be negative, got {command.overlays}")
    files = find_images(command.images, recursive=command.recursive)
    outcome = predict_files(_detect(command), files, command.out, overlays=command.overlays)
    found = sum(map(len, outcome.predictions.values()))
    print(f"{found} detections in {len(outcome.predictions)} of {len(files)} images")
    print(
        f"written to {command.out}: {', '.join(path.name for path in outcome.files[:2])}, "
        f"{len(outcome.files) - 2} pictures"
    )
    if outcome.failures:
        for reason in outcome.failures.values():
            print(f"not read: {_line(ValueError(reason))}", file=sys.stderr)
        first = next(iter(outcome.failures.values()))
        raise ValueError(f"{len(outcome.failures)} of {len(files)} images could not be read; the first: {first}")


def _detect(command: argparse.Namespace):
    """The detector that a command line asks for: a list of images [H, W] to Detections."""
    import jax
    import numpy as np

    from irjax.baselines import BASELINES, detect

    options = {"size": command.size, "max_detections": command.max_detections}
    options = {name: value for name, value in options.items() if value is not None}
    if command.model not in BASELINES:
        detector = irjax.load(command.model, **options)
        return lambda images: detector(images, threshold=command.threshold)
    if "size" in options:
        raise ValueError(f"--size: {command.model} works at the images' own size")

    def run(images):
        found = [detect(command.model, image[None], command.threshold, **options) for image in images]
        return jax.tree.map(lambda *parts: np.concatenate(parts), *found)

    return run


def _evaluate(command: argparse.Namespace) -> None:
    from irjax.data import open_source
    from irjax.reports.evaluate import evaluate_points

    evaluate_points(
        command.predictions,
        open_source(command.truth, command.split, command.layout),
        threshold=command.threshold,
        protocol=command.protocol,
        out_dir=command.out,
        overlays=command.overlays,
        allow_missing=command.allow_missing,
        seed=command.seed,
    )


def _datasets_build(command: argparse.Namespace) -> None:
    from irjax.datasets.build import build

    folder = build(command.name, command.source, command.out or data_folder(), overwrite=command.overwrite)
    import tensorflow_datasets as tfds

    splits = tfds.builder_from_directory(str(folder)).info.splits
    print(", ".join(f"{name} {split.num_examples}" for name, split in splits.items()))
    print(f"written to {folder}  (irjax.data.open_source({str(folder)!r}, SPLIT))")


def data_folder() -> pathlib.Path:
    """Where prepared data go: $IRJAX_DATA, else ./datasets."""
    return pathlib.Path(os.environ.get("IRJAX_DATA") or "datasets")


def _datasets_list(command: argparse.Namespace) -> None:
    if command.root is not None:
        from irjax.data import detect_layout, list_splits, open_layout

        layout = detect_layout(command.root) if command.layout == "auto" else command.layout
        print(f"{command.root}: layout {layout}")
        for split in list_splits(command.root, layout):
            print(f"  {split:16} {len(open_layout(command.root, split, layout))} images")
        return
    from irjax.datasets.build import BUILDERS, builder_class

    for name in BUILDERS:
        builder = builder_class(name)
        print(f"{name}: {(builder.__doc__ or '').strip().splitlines()[0]} {builder.HOMEPAGE}")
        for config in builder.BUILDER_CONFIGS:
            print(f"  {name}/{config.name}: {config.description}")


def _benchmark(command: argparse.Namespace) -> None:
    if command.threads is not None:
        _limit_processors(command.threads)
    from irjax import benchmark
    from irjax.reports.benchmark import as_text
    from irjax.reports.files import write_json
    from irjax.training.allocator import keep_freed_memory

    keep_freed_memory()
    report = benchmark.benchmark(
        command.model,
        sizes=command.size,
        batches=command.batch,
        channels=command.channels,
        repeats=command.repeats,
        bf16=command.bf16,
        torch=command.torch,
        train_batch=command.train_batch if command.train else 0,
    )
    print(as_text(report))
    if command.json:
        write_json(command.json, report)


def _limit_processors(number: int) -> None:
    """Leaves this process so many processors, before JAX makes its threads."""
    if not hasattr(os, "sched_setaffinity"):
        raise ValueError("--threads needs Linux")
    available = sorted(os.sched_getaffinity(0))
    if not 1 <= number <= len(available):
        raise ValueError(f"--threads must be in 1..{len(available)}, got {number}")
    os.sched_setaffinity(0, available[:number])


def _models(command: argparse.Namespace) -> None:
    import jax

    from irjax import weights

    shipped = weights.names()
    unknown = [name for name in command.name if name not in shipped]
    if unknown:
        raise ValueError(f"there are no weights {', '.join(unknown)}; there are {', '.join(shipped) or 'none'}")
    if not shipped:
        print("no weights ship with this installation")
    for name in command.name or shipped:
        variables, config, card = weights.load_weights(shipped[name])
        number = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
        print(
            f"{name}: {config.method}, {number:,} parameters, {shipped[name].stat().st_size / 1e6:.1f} MB; "
            f"images fitted into {config.size}x{config.size}, threshold {config.threshold:g}"
        )
        for field, value in card.items():
            if command.name or field in ("data", "licence", "validation"):
                print(f"  {field}: {value}")
