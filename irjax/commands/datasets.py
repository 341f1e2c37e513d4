"""irjax datasets: prepares data sets and inspects folders."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import Annotated, Any, Optional, Union

from tyro.conf import Positional

from irjax.commands.shared import DataFlags, Folder, Switch, Text, arg
from irjax.errors import UsageError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Build:
    """Prepares a data set as ArrayRecord files, without TensorFlow.

    Attributes:
      name: such as sirst_v2 or sirst_v2/v1; irjax datasets list knows them all.
      source: folder of the publication (every data set but synthetic has one).
      out: output folder (default: $IRJAX_DATA, else ./datasets).
      overwrite: replace a data set that is already prepared there.
    """

    name: Annotated[Positional[str], arg("NAME")]
    source: Folder = None
    out: Folder = None
    overwrite: Switch = False

    def run(self) -> None:
        """Prepares it and prints its splits."""
        from irjax.datasets.build import build
        from irjax.io.files import output_folder

        out = output_folder(self.out) if self.out else pathlib.Path(os.environ.get("IRJAX_DATA") or "datasets")
        folder = build(self.name, self.source, out, overwrite=self.overwrite)
        import tensorflow_datasets as tfds

        splits = tfds.builder_from_directory(str(folder)).info.splits
        print(", ".join(f"{name} {split.num_examples}" for name, split in splits.items()))
        print(f"written to {folder}  (irjax.data.open_source({str(folder)!r}, SPLIT))")


@dataclasses.dataclass(frozen=True, kw_only=True)
class List:
    """Lists the data sets that can be prepared, or a folder's layout and splits.

    Attributes:
      root: print this folder's layout and splits instead.
      skip_bad: read all images, and leave out and name those that cannot be read or have no annotation that fits.
    """

    root: Annotated[Positional[Optional[str]], arg("[DIR]")] = None
    skip_bad: Switch = False
    data: DataFlags = DataFlags()

    def run(self) -> None:
        """Prints the list."""
        if self.root is None:
            return _print_builders()
        from irjax.data import detect_layout, list_splits, open_layout

        opening = self.data.opening
        images, masks = opening["images"], opening["masks"]
        if opening["layout"] == "auto" and not (images or masks):
            opening["layout"] = detect_layout(self.root)
        print(f"{self.root}: {f'{images} and {masks}' if images else 'layout ' + opening['layout']}")
        for split in list_splits(self.root, **opening):
            source = open_layout(self.root, split, skip_bad=self.skip_bad, **opening)
            left_out = f", {len(source.skipped)} left out" if source.skipped else ""
            print(f"  {split:16} {len(source)} images{left_out}")


def _print_builders() -> None:
    from irjax.datasets.build import BUILDERS, builder_class

    for name in BUILDERS:
        builder: Any = builder_class(name)
        configs = ", ".join(f"{name}/{config.name}" for config in builder.BUILDER_CONFIGS)
        parts = (f"{name:10} ", builder.__doc__.splitlines()[0], configs and f"[{configs}]", builder.HOMEPAGE)
        print(" ".join(part for part in parts if part))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inspect:
    """Lists the contents of a folder and its defects, and draws its targets.

    Attributes:
      root: data set in a published layout.
      split: only this split (default: all published ones).
      out: write inspect.json and pictures there (default: only print).
      near: also look for near duplicates in train and val or test: a correlation above R at 32x32 (default R: .99).
    """

    root: Annotated[Positional[str], arg("DIR")]
    split: Text = None
    out: Folder = None
    near: Annotated[Union[None, tuple[float, ...]], arg("[R]")] = None
    data: DataFlags = DataFlags()

    def run(self) -> None:
        """Inspects, prints and writes."""
        from irjax.io.files import output_folder
        from irjax.studies.inspect import NEAR, inspect_folder
        from irjax.studies.inspect_text import inspection_text, write_inspection

        out = output_folder(self.out) if self.out else None
        if self.near and len(self.near) > 1:
            raise UsageError(f"--near takes one number, got {len(self.near)}")
        near = None if self.near is None else (*self.near, NEAR)[0]
        found = inspect_folder(
            self.root,
            self.data.layout,
            self.split,
            image_folder=self.data.images,
            mask_folder=self.data.masks,
            depth=self.data.depth,
            near=near,
        )
        print(inspection_text(found))
        if out:
            print(f"written to {out}: {', '.join(write_inspection(out, found))}")
