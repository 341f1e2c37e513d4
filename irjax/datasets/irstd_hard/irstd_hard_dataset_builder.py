"""IRSTD-Hard: the test images of three data sets whose targets are all tiny once they are resized."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping

import numpy as np

from irjax.data import sources
from irjax.datasets import base
from irjax.datasets.irdst import irdst_dataset_builder as irdst
from irjax.datasets.irstd_1k import irstd_1k_dataset_builder as irstd_1k
from irjax.datasets.nudt_sirst import nudt_sirst_dataset_builder as nudt_sirst
from irjax.ops import regions
from irjax.ops.regions import resize_mask
from irjax.types import Example, Source


@dataclasses.dataclass(eq=False)
class HardConfig(base.IrstdConfig):
    """What is kept.

    Attributes:
      max_area: pixels of the largest target that an image may have, after resizing.
      size: side of the square to which image and mask are resized, in pixels.
    """

    max_area: int = 20
    size: int = 256


@dataclasses.dataclass(frozen=True)
class HardSource:
    """The images of a source that have targets, all of them tiny, resized (an `irjax.types.Source`).

    Attributes:
      source: examples with masks.
      prefix: in front of their names, which may be alike in several data sets.
      max_area: as `HardConfig.max_area`.
      size: as `HardConfig.size`.
    """

    source: Source
    prefix: str = ""
    max_area: int = 20
    size: int = 256

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, index: int) -> Example:
        """Reads example `index`; IndexError outside the source."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} of {len(self)} examples")
        example = self.source[self._kept[index]]
        mask = resize_mask(example.mask, self.size)
        image = resize_image(example.image, self.size)
        return Example(f"{self.prefix}{example.name}", image, regions.points_from_mask(mask), mask)

    @property
    def dtype(self) -> np.dtype:
        """The type that holds every image without loss."""
        return sources.image_dtype(self.source)

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every example, in order."""
        return tuple(f"{self.prefix}{self.source.names[index]}" for index in self._kept)

    @functools.cached_property
    def _kept(self) -> tuple[int, ...]:
        return tuple(index for index in range(len(self.source)) if self._is_hard(self.source[index].mask))

    def _is_hard(self, mask: np.ndarray) -> bool:
        areas = regions.find_regions(resize_mask(mask, self.size)).areas
        return len(areas) > 0 and areas.max() <= self.max_area


def resize_image(image: np.ndarray, size: int) -> np.ndarray:
    """An image [H, W] uint8 or uint16 as [size, size] of its type, bilinear; Pillow averages where it shrinks."""
    from PIL import Image

    if image.shape == (size, size):
        return image
    resized = Image.fromarray(image.astype(np.float32)).resize((size, size), Image.Resampling.BILINEAR)
    return np.clip(np.rint(np.asarray(resized)), 0, np.iinfo(image.dtype).max).astype(image.dtype)


class Builder(base.IrstdBuilder):
    """IRSTD-Hard, 294 images of three test parts with tiny targets alone, all 256x256.

    The rule of arXiv 2605.05804, applied to the user's copies: the test parts of IRSTD-1K, NUDT-SIRST and IRDST are
    resized to 256x256, and an image is kept if it has a target and no 8-connected one of more than 20 pixels.

    Note:
      The paper writes "less than 20" in its text and "1-20" in its table: `area20` is the table, `area19` the text. It
      does not say how images are interpolated, nor which of the nearest pixels a mask takes. No lists were found, so
      another choice there can keep other images.
    """

    BUILDER_CONFIGS = [
        HardConfig(name="area20", description="Targets of at most 20 pixels, as the paper's table.", max_area=20),
        HardConfig(name="area19", description="Targets of less than 20 pixels, as the paper's text.", max_area=19),
    ]
    HOMEPAGE = "https://arxiv.org/abs/2605.05804"
    FOLDER = (
        "the publications IRSTD-1K, NUDT-SIRST and IRDST, each in a folder of its name and as its own builder reads it"
    )
    PARTS = {"IRSTD-1K": irstd_1k.Builder, "NUDT-SIRST": nudt_sirst.Builder, "IRDST": irdst.Builder}
    # The paper counts once, whichever limit it means.
    PUBLISHED = dict.fromkeys(("area20", "area19"), {"IRSTD-1K": 106, "NUDT-SIRST": 101, "IRDST": 87})

    @classmethod
    def open_splits(cls, root: str | os.PathLike, config: HardConfig) -> dict[str, Source]:
        """TFDS split -> examples; there is a test split alone.

        Raises:
          ValueError: if one of the three publications is absent or not as its builder reads it, or nothing is kept.
        """
        parts = []
        for name, builder in cls.PARTS.items():
            chosen = builder.config_for("")
            test = builder.open_splits(cls._part(pathlib.Path(root), name), chosen).get("test")
            if test is None:
                raise ValueError(f"{root}: {name} has no test split, of which {cls.name} is made")
            parts.append(HardSource(test, f"{name}_", config.max_area, config.size))
        if not any(len(part) for part in parts):
            raise ValueError(f"{root} has no test image whose targets have at most {config.max_area} pixels")
        return {"test": sources.Concatenation(tuple(parts))}

    def _counts(self, found: Mapping[str, Source]) -> dict[str, int]:
        return {name: len(part) for name, part in zip(self.PARTS, found["test"].sources, strict=True)}

    @classmethod
    def _part(cls, root: pathlib.Path, name: str) -> pathlib.Path:
        """The folder of one publication, however its name is written: IRSTD-1K, IRSTD-1k, irstd_1k."""

        def plain(text: str) -> str:
            return "".join(character for character in text.lower() if character.isalnum())

        wanted = {plain(name), plain(f"{name}_real")}
        found = [path for path in sorted(root.iterdir()) if path.is_dir() and plain(path.name) in wanted]
        if len(found) != 1:
            count = len(found) or "no"
            raise ValueError(f"{root} has {count} folders for {name}. {cls.MANUAL_DOWNLOAD_INSTRUCTIONS}")
        return found[0]
