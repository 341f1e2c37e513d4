"""irjax analyse: studies of parts of the methods."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable

SUMMARY = "analyse methods: scale losses, kept patches, relevance, ROC curves of several evaluations"
DESCRIPTION = (
    "Analyses methods: the behaviour of losses, the patches that a network keeps, several ROC curves in one picture."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the subcommands and their arguments."""
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    scale = actions.add_parser(
        "scale-loss",
        help="weight, loss and gradient of the scale losses against the predicted area",
        description=(
            "Draws weight, loss and gradient of every scale loss against the predicted area, for discs about the "
            "target's own centre and for shifted ones, and lists which gradients are monotonic. Writes scale_loss.png, "
            ".svg, .csv (every curve) and .json (the table)."
        ),
    )
    scale.set_defaults(run=_scale_loss)
    add = scale.add_argument
    add(
        "--true-area",
        type=float,
        default=36.0,
        metavar="PX",
        help="area of the target in pixels (default: %(default)g)",
    )
    add(
        "--shift",
        type=float,
        default=2.0,
        metavar="PX",
        help="distance of the shifted predictions from the target's centre (default: %(default)g)",
    )
    add("--variants", metavar="NAMES", help="comma-separated, such as variance,diff (default: all)")
    add(
        "--axis",
        default="log",
        choices=("log", "linear"),
        help="axis of the areas: log from 1/16 to 8 times the true one, linear from 0 to 3 (default: %(default)s)",
    )
    add("--out", default="scale-loss", metavar="DIR", help="folder for the files (default: ./%(default)s)")

    patches = actions.add_parser(
        "patches",
        help="pictures of the patches that a network keeps",
        description=(
            "Draws images of a data set, the patches that a network with dropped patches keeps at each of its stages, "
            "and what it predicts, and prints how many target pixels lie in kept patches. With --as-trained it also "
            "measures what an ADSNet finds with the masks that training draws instead of prediction's."
        ),
    )
    patches.set_defaults(run=_patches)
    _add_data(patches, split=None, out="patches")
    patches.add_argument(
        "--as-trained",
        type=int,
        metavar="SEEDS",
        help="also measure with masks as in training, without noise and with the noise of this many seeds, and with "
        "all patches kept (masks.json); --number 0 draws nothing",
    )
    relevance = actions.add_parser(
        "relevance",
        help="what Na-IRSTD selects: coverage against K, relevance, features",
        description=(
            "Measures how many patches with targets the K most relevant ones hold, for every K, and draws the selected "
            "patches, the relevance of all, and the features of native branch and backbone. Writes selection.png, "
            ".json and a picture for each image."
        ),
    )
    relevance.set_defaults(run=_relevance)
    _add_data(relevance, split="val", out="relevance")
    roc = actions.add_parser(
        "roc",
        help="the ROC curves of several evaluations in one picture",
        description="Draws what several `irjax evaluate --out` wrote to roc.csv in one picture.",
    )
    roc.set_defaults(run=_roc)
    add = roc.add_argument
    add("evaluations", nargs="+", metavar="LABEL=DIR", help="a label and the folder with roc.csv")
    add("--level", default="pixel", choices=("pixel", "target"), help="level of the curves (default: %(default)s)")
    add(
        "--out",
        default="roc.png",
        metavar="FILE_OR_DIR",
        help="picture, .png, .svg or .pdf, or folder for roc.png (default: ./%(default)s)",
    )


def _add_data(parser: argparse.ArgumentParser, split: str | None, out: str) -> None:
    """Adds the arguments of commands that run a model over a data set and draw some of its images."""
    add = parser.add_argument
    add("data", metavar="DATA", help="folder of the data set")
    add("--model", required=True, help="name of shipped weights, run directory or .safetensors file")
    add("--split", default=split, help=f"split of the data set (default: {split or 'all of it'})")
    add("--layout", default="auto", help="layout of the data set (default: found automatically)")
    add("--number", type=int, default=8, metavar="N", help="images to draw, spread evenly (default: %(default)s)")
    add("--out", default=out, metavar="DIR", help="folder for the pictures (default: ./%(default)s)")


def _on_data(report: Callable[..., object], command: argparse.Namespace, folder: pathlib.Path) -> None:
    """Calls a report with the arguments of `_add_data`; it writes into the folder."""
    report(folder, command.model, command.data, split=command.split, layout=command.layout, number=command.number)


def _patches(command: argparse.Namespace) -> None:
    from irjax.io.files import output_folder, whole_folder
    from irjax.studies.patches import compare_masks, draw_kept_patches

    with whole_folder(output_folder(command.out), "irjax analyse patches") as folder:
        if command.number or command.as_trained is None:
            _on_data(draw_kept_patches, command, folder)
        if command.as_trained is not None:
            where = {"split": command.split, "layout": command.layout}
            compare_masks(folder, command.model, command.data, **where, seeds=command.as_trained)
    print(f"written to {command.out}")


def _relevance(command: argparse.Namespace) -> None:
    from irjax.io.files import output_folder, whole_folder
    from irjax.studies.relevance import analyse_relevance

    with whole_folder(output_folder(command.out), "irjax analyse relevance") as folder:
        _on_data(analyse_relevance, command, folder)
    print(f"written to {command.out}")


def _roc(command: argparse.Namespace) -> None:
    from irjax.studies.roc import draw_rocs

    draw_rocs(command.out, command.evaluations, command.level)


def _scale_loss(command: argparse.Namespace) -> None:
    from irjax.commands.evaluate import protocol_names
    from irjax.io.files import output_folder
    from irjax.losses.scale import VARIANTS
    from irjax.studies.scale_loss_report import analyse_scale_loss

    analyse_scale_loss(
        output_folder(command.out),
        true_area=command.true_area,
        shift=command.shift,
        variants=VARIANTS if command.variants is None else protocol_names(command.variants),
        axis=command.axis,
    )
