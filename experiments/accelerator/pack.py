"""Packs training images into one file of some 45 MB, for a machine that nothing but this file is carried to.

    python experiments/accelerator/pack.py OUT.tar --data.root SIRST-v2 NUDT-SIRST IRSTD-1K \\
        --data.train train_full train train

The images lose about a gray level (RMS): for training only. Figures come from the original images.
"""

from __future__ import annotations

import argparse  # like the other scripts here, which run where tyro is missing
import io
import json
import pathlib
import tarfile

import numpy as np
from PIL import Image

from irjax.data.sources import open_source
from irjax.errors import UsageError, UserError, stopping
from irjax.io.files import atomic_path
from irjax.io.names import flat
from irjax.types import Source

_QUALITY = 95
_SMALL = 512  # px; larger images, and those without targets, are most of a pack: WebP takes fewer bytes than JPEG


def _encoded(pixels: np.ndarray, form: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, quality=_QUALITY)
    return file.getvalue()


def add_set(pack: tarfile.TarFile, name: str, split: str, source: Source) -> None:
    """Adds a data set to the pack, in the layout `lists`: NAME/images, NAME/masks, NAME/train.txt.

    What the split is called where it comes from is in NAME/split.json: the layout knows few names.

    Raises:
      UserError: if its images have 16 bits, or no masks, or two names become one file.
    """
    if source.dtype != np.uint8:
        raise UserError(f"{name}: images of 16 bits do not go into a pack")
    names = [flat(one) for one in source.names]
    if len({*names}) < len(names):
        raise UserError(f"{name}: two images of {split} would have one file's name")

    def add(path: str, content: bytes) -> None:
        entry = tarfile.TarInfo(f"{name}/{path}")
        entry.size = len(content)
        pack.addfile(entry, io.BytesIO(content))

    for index, file in enumerate(names):
        example = source[index]
        if example.mask is None:
            raise UserError(f"{name}: {example.name} has no mask")
        small = max(example.image.shape) < _SMALL and example.mask.any()
        add(f"images/{file}.{'jpg' if small else 'webp'}", _encoded(example.image, "JPEG" if small else "WEBP"))
        add(f"masks/{file}.png", _encoded(example.mask, "PNG"))
    add("train.txt", "".join(f"{file}\n" for file in names).encode())
    add("split.json", json.dumps({"split": split, "images": len(names)}).encode())


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("out", metavar="OUT.tar", type=pathlib.Path)
    parser.add_argument("--data.root", dest="root", nargs="+", required=True, metavar="DIR")
    parser.add_argument("--data.train", dest="train", nargs="+", required=True, metavar="SPLIT")
    with stopping():
        command = parser.parse_args()
        if len(command.root) != len(command.train):
            raise UsageError(f"--data.train names {len(command.train)} splits for {len(command.root)} folders")
        with atomic_path(command.out) as unfinished, tarfile.open(unfinished, "w") as pack:
            for root, split in zip(command.root, command.train, strict=True):
                add_set(pack, pathlib.Path(root).name, split, open_source(root, split))
        print(f"{command.out}: {command.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
