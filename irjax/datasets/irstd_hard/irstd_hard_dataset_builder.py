"""IRSTD-Hard: the test images of three data sets whose targets are all tiny once they are resized."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import cast

from irjax.data import sources
from irjax.data.hard import HardSource
from irjax.datasets import base
from irjax.datasets.irdst import irdst_dataset_builder as irdst
from irjax.datasets.irstd_1k import irstd_1k_dataset_builder as irstd_1k
from irjax.datasets.nudt_sirst import nudt_sirst_dataset_builder as nudt_sirst
from irjax.errors import UserError
from irjax.types import Source


@dataclasses.dataclass(eq=False)
class HardConfig(base.IrstdConfig):
    """Criteria for the images that are kept.

    Attributes:
      max_area: maximum area of the targets of an image after resizing, in pixels.
      size: side of the square to which image and mask are resized, in pixels.
    """

    max_area: int = 20
    size: int = 256


class Builder(base.IrstdBuilder):
    """IRSTD-Hard, 294 images of three test parts with tiny targets alone, all 256x256.

    The rule of arXiv 2605.05804, applied to the user's copies: the test parts of IRSTD-1K, NUDT-SIRST and IRDST are
    resized to 256x256, and an image is kept if it has a target and no 8-connected one of more than 20 pixels.

    Note:
      The paper writes "smaller than 20" in its text and "1-20" in its table: `area20` follows the table, `area19` the
      text. It does not say how images are interpolated, nor which of the nearest pixels a mask takes. No lists were
      found, so the authors' choices may keep other images.
    """

    BUILDER_CONFIGS = [
        HardConfig(name="area20", description="Targets of at most 20 pixels, as the paper's table.", max_area=20),
        HardConfig(name="area19", description="Targets of fewer than 20 pixels, as the paper's text.", max_area=19),
    ]
    HOMEPAGE = "https://arxiv.org/abs/2605.05804"
    FOLDER = (
        "the publications IRSTD-1K, NUDT-SIRST and IRDST, each in a folder of its name and as its own builder reads it"
    )
    PARTS = {"IRSTD-1K": irstd_1k.Builder, "NUDT-SIRST": nudt_sirst.Builder, "IRDST": irdst.Builder}
    # The paper gives one set of counts, without saying for which limit.
    PUBLISHED = dict.fromkeys(("area20", "area19"), {"IRSTD-1K": 106, "NUDT-SIRST": 101, "IRDST": 87})

    @classmethod
    def open_splits(  # type: ignore[override]  # the configuration is required
        cls, root: str | os.PathLike, config: HardConfig
    ) -> dict[str, Source]:
        """Opens the examples by TFDS split name; there is only a test split.

        Raises:
          UserError: if one of the three publications is absent or not as its builder reads it, or no image is kept.
        """
        parts = []
        for name, builder in cls.PARTS.items():
            chosen = builder.config_for("")
            test = builder.open_splits(cls._part(pathlib.Path(root), name), chosen).get("test")
            if test is None:
                raise UserError(f"{root}: {name} has no test split, of which {cls.name} is made")
            parts.append(HardSource(test, f"{name}_", config.max_area, config.size))
        if not any(len(part) for part in parts):
            raise UserError(f"{root} has no test image whose targets have at most {config.max_area} pixels")
        return {"test": sources.Concatenation(tuple(parts))}

    def _counts(self, found: Mapping[str, Source]) -> dict[str, int]:
        test = cast("sources.Concatenation", found["test"])
        return {name: len(part) for name, part in zip(self.PARTS, test.sources, strict=True)}

    @classmethod
    def _part(cls, root: pathlib.Path, name: str) -> pathlib.Path:
        """Returns the folder of one publication in any spelling of its name: IRSTD-1K, IRSTD-1k, irstd_1k."""

        def alphanumeric(text: str) -> str:
            return "".join(character for character in text.lower() if character.isalnum())

        wanted = {alphanumeric(name), alphanumeric(f"{name}_real")}
        found = [path for path in sorted(root.iterdir()) if path.is_dir() and alphanumeric(path.name) in wanted]
        if len(found) != 1:
            count = len(found) or "no"
            raise UserError(f"{root} has {count} folders for {name}. {cls.MANUAL_DOWNLOAD_INSTRUCTIONS}")
        return found[0]
