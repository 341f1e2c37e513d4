"""irjax datasets: prepares data sets and inspects folders."""

from __future__ import annotations

import argparse
import os
import pathlib
from typing import Any

from irjax.commands.evaluate import add_folders

SUMMARY = "prepare data sets, list the contents of a folder and its defects"
DESCRIPTION = "Prepares data sets and lists the contents of folders."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the subcommands and their arguments."""
    actions = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    build = _action(actions, "build", _build, "prepare a data set as ArrayRecord files, without TensorFlow")
    build.add_argument("name", help="such as sirst_v2 or sirst_v2/v1; irjax datasets list knows them all")
    build.add_argument(
        "--source", metavar="DIR", help="folder of the publication (every data set but synthetic has one)"
    )
    build.add_argument("--out", metavar="DIR", help="output folder (default: $IRJAX_DATA, else ./datasets)")
    build.add_argument("--overwrite", action="store_true", help="replace a data set that is already prepared there")
    known = _action(actions, "list", _list, "list the data sets that can be prepared, or a folder's splits")
    known.add_argument("root", nargs="?", metavar="DIR", help="print this folder's layout and splits instead")
    known.add_argument("--layout", default="auto", help="layout of the folder (default: found automatically)")
    add_folders(known)
    known.add_argument(
        "--skip-bad",
        action="store_true",
        help="read all images, and leave out and name those that cannot be read or have no annotation that fits",
    )
    seen = _action(actions, "inspect", _inspect, "list the contents of a folder and its defects; draw its targets")
    seen.add_argument("root", metavar="DIR", help="data set in a published layout")
    seen.add_argument("--layout", default="auto", help="layout of the folder (default: found automatically)")
    add_folders(seen)
    seen.add_argument("--split", help="only this split (default: all published ones)")
    seen.add_argument("--out", metavar="DIR", help="write inspect.json and pictures there (default: only print)")
    seen.add_argument(
        "--near",
        nargs="?",
        type=float,
        const=0.99,
        metavar="R",
        help="also look for near duplicates in train and val or test: a correlation above R at 32x32 (default R: .99)",
    )


def _action(actions, name: str, run, summary: str) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
    parser.set_defaults(run=run)
    return parser


def data_folder() -> pathlib.Path:
    """Returns the folder for prepared data: $IRJAX_DATA, otherwise ./datasets."""
    return pathlib.Path(os.environ.get("IRJAX_DATA") or "datasets")


def _build(command: argparse.Namespace) -> None:
    from irjax.datasets.build import build
    from irjax.io.files import output_folder

    out = output_folder(command.out) if command.out else data_folder()
    folder = build(command.name, command.source, out, overwrite=command.overwrite)
    import tensorflow_datasets as tfds

    splits = tfds.builder_from_directory(str(folder)).info.splits
    print(", ".join(f"{name} {split.num_examples}" for name, split in splits.items()))
    print(f"written to {folder}  (irjax.data.open_source({str(folder)!r}, SPLIT))")


def _inspect(command: argparse.Namespace) -> None:
    from irjax.io.files import output_folder
    from irjax.studies.inspect import inspect_folder
    from irjax.studies.inspect_text import inspection_text, write_inspection

    out = output_folder(command.out) if command.out else None
    pair = {"image_folder": command.images, "mask_folder": command.masks}
    found = inspect_folder(command.root, command.layout, command.split, **pair, near=command.near)
    print(inspection_text(found))
    if out:
        print(f"written to {out}: {', '.join(write_inspection(out, found))}")


def _list(command: argparse.Namespace) -> None:
    if command.root is not None:
        from irjax.data import detect_layout, list_splits, open_layout

        pair = {"images": command.images, "masks": command.masks}
        layout = command.layout
        if layout == "auto" and not (command.images or command.masks):
            layout = detect_layout(command.root)
        named = f"{command.images} and {command.masks}" if command.images else f"layout {layout}"
        print(f"{command.root}: {named}")
        for split in list_splits(command.root, layout, **pair):
            source = open_layout(command.root, split, layout, skip_bad=command.skip_bad, **pair)
            left_out = f", {len(source.skipped)} left out" if source.skipped else ""
            print(f"  {split:16} {len(source)} images{left_out}")
        return
    from irjax.datasets.build import BUILDERS, builder_class

    for name in BUILDERS:
        builder: Any = builder_class(name)
        configs = ", ".join(f"{name}/{config.name}" for config in builder.BUILDER_CONFIGS)
        parts = (f"{name:10} ", builder.__doc__.splitlines()[0], configs and f"[{configs}]", builder.HOMEPAGE)
        print(" ".join(part for part in parts if part))
