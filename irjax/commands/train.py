"""irjax train: trains a method, like ``python -m irjax.experiments.METHOD``."""

from __future__ import annotations

import argparse

SUMMARY = "train a method, your own or one of irjax's"
DESCRIPTION = (
    "Trains, validates and tests a method: adsnet, mshnet, na_irstd, spire, or MODULE:ATTRIBUTE of your own "
    "(docs/own-method.md). The flags after it are those of the method: irjax train METHOD --help lists them."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    parser.add_argument(
        "method", metavar="METHOD", help="name of the method, or MODULE:ATTRIBUTE, an irjax.methods.Method"
    )
    flags = parser.add_argument("flags", nargs=argparse.REMAINDER, metavar="...", help="flags of the method")
    flags.required = False  # argparse lists it as missing otherwise


def run(command: argparse.Namespace) -> None:
    """Runs the command."""
    from irjax.experiments.command import experiment_of

    experiment_of(command.method).main(command.flags)
