"""irjax compare: compares two prediction sets on the same images."""

from __future__ import annotations

import argparse

from irjax.commands.evaluate import add_scoring, add_truth, protocol_names, scoring_options, truth_options

SUMMARY = "compare two prediction sets on the same images"
DESCRIPTION = (
    "Scores two prediction sets, of any programs, on the same images and resamples them together: the difference of "
    "every metric with its paired bootstrap interval, on how many images each is better, and where they differ most."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the arguments."""
    add = parser.add_argument
    add(
        "--predictions",
        required=True,
        nargs=2,
        metavar=("A", "B"),
        help="maps or points of any format; see irjax evaluate",
    )
    add_truth(parser)
    add_scoring(parser)
    add("--protocol", metavar="NAME", help="protocol to score under (default: irjax if both are maps, else centroid)")
    add("--out", metavar="DIR", help="write comparison.json, comparison.csv and per_image.csv there")


def run(command: argparse.Namespace) -> None:
    """Runs the command."""
    from irjax.evaluation.compare import compare_files
    from irjax.evaluation.evaluate import Options
    from irjax.io.files import output_folder

    out = command.out and output_folder(command.out)
    compare_files(
        command.predictions,
        command.truth,
        **truth_options(command),
        key=command.key,
        logits=command.logits,
        options=Options(protocols=protocol_names(command.protocol), out_dir=out, **scoring_options(command)),
    )
