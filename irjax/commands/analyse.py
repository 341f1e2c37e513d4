"""irjax analyse: what a method's parts do by themselves, without data or training."""

from __future__ import annotations

import argparse

SUMMARY = "study a part of a method by itself: the scale losses"
DESCRIPTION = "Studies a part of a method by itself, without data or training."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the subcommands and their arguments."""
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    scale = actions.add_parser(
        "scale-loss",
        help="weight, loss and gradient of the scale losses against the predicted area",
        description=(
            "Draws weight, loss and gradient of every scale loss against the predicted area, for discs about the "
            "target's own centre and for shifted ones, and says which gradients are monotonic. Writes scale_loss.png, "
            ".svg, .csv (every curve) and .json (the table)."
        ),
    )
    scale.set_defaults(run=_scale_loss)
    add = scale.add_argument
    add("--true-area", type=float, default=36.0, metavar="PX", help="of the target, in pixels (default: %(default)g)")
    add(
        "--shift",
        type=float,
        default=2.0,
        metavar="PX",
        help="how far the shifted predictions are from the target's centre (default: %(default)g)",
    )
    add("--variants", metavar="NAMES", help="with commas between, such as variance,diff (default: all)")
    add(
        "--axis",
        default="log",
        choices=("log", "linear"),
        help="of the areas: log from 1/16 to 8 times the true one, linear from 0 to 3 times (default: %(default)s)",
    )
    add("--out", default="scale-loss", metavar="DIR", help="folder for the files (default: ./%(default)s)")


def _scale_loss(command: argparse.Namespace) -> None:
    from irjax.commands.evaluate import protocol_names
    from irjax.losses.scale import VARIANTS
    from irjax.reports.analyse import analyse_scale_loss

    analyse_scale_loss(
        command.out,
        true_area=command.true_area,
        shift=command.shift,
        variants=VARIANTS if command.variants is None else protocol_names(command.variants),
        axis=command.axis,
    )
