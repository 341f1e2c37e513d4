"""What the builders of all IRSTD data sets share: features, and records made from a folder in its published layout.

A builder states its layout, its splits and how many images were published; everything else is here. TensorFlow is not
needed: images go into the records as files, not as arrays.
"""

from __future__ import annotations

import io
import os
import pathlib
import warnings
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow_datasets as tfds

from irjax.data import layouts
from irjax.ops import regions


class IrstdBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Base class of the builders.

    Class attributes that a builder sets:
      LAYOUT: one of `layouts.LAYOUTS`.
      HOMEPAGE: where the data set is published.
      SPLITS: TFDS split -> the layout's split, with "{config}" for the configuration's name. An absent list is an
        absent split.
      PUBLISHED: configuration ("" where there are none) -> a sum of splits such as "train+validation" -> how many
        images were published. Another number is prepared all the same, with a warning that states both.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "As published."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Give the folder of the publication (see the homepage) as the source."

    LAYOUT = "folder"
    HOMEPAGE = ""
    SPLITS: Mapping[str, str] = {"train": "train", "validation": "val", "test": "test"}
    PUBLISHED: Mapping[str, Mapping[str, int]] = {}

    def __init__(self, *, source: str | os.PathLike | None = None, **kwargs):
        """Also takes the folder of the publication, so that the features can state its images' depth."""
        self._source = None if source is None else pathlib.Path(source)
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 1), dtype=self._depth(), doc="gray, as published"),
                    "mask": tfds.features.Image(shape=(None, None, 1), doc="255 on target pixels, 0 elsewhere"),
                    "points": tfds.features.Tensor(shape=(None, 2), dtype=np.float32, doc="centroids (x, y), pixels"),
                    "boxes": tfds.features.Tensor(
                        shape=(None, 4),
                        dtype=np.float32,
                        doc="x_min, y_min, x_max, y_max, pixels, upper edge exclusive",
                    ),
                    "areas": tfds.features.Tensor(shape=(None,), dtype=np.int32, doc="pixels of each target"),
                    "id": tfds.features.Text(doc="the published name"),
                }
            ),
            homepage=self.HOMEPAGE,
            disable_shuffling=True,  # the order of the published lists
        )

    def _depth(self) -> type[np.unsignedinteger]:
        if self._source is None:
            return np.uint8
        deep = any(source.dtype == np.uint16 for source in self.sources(self._source).values())
        return np.uint16 if deep else np.uint8

    def sources(self, root: str | os.PathLike) -> dict[str, layouts.FolderSource]:
        """TFDS split -> what the publication's folder has for it.

        Raises:
          ValueError: if it has none of the splits, or one of them is malformed (see `layouts.open_layout`).
        """
        config = self.builder_config.name if self.builder_config else ""
        wanted = {split: name.format(config=config) for split, name in self.SPLITS.items()}
        present = layouts.list_splits(root, self.LAYOUT)
        if not any(name in present for name in wanted.values()):
            raise ValueError(
                f"{root} has none of the splits {', '.join(wanted.values())} of {self.name}; "
                f"it has {', '.join(present) or 'none'}"
            )
        return {
            split: layouts.open_layout(root, name, self.LAYOUT) for split, name in wanted.items() if name in present
        }

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        sources = self.sources(self._source or dl_manager.manual_dir)
        self._compare_counts({split: len(source) for split, source in sources.items()})
        return {split: self._generate_examples(source) for split, source in sources.items()}

    def _generate_examples(self, source: layouts.FolderSource) -> Iterator[tuple[str, dict]]:
        for index, name in enumerate(source.names):
            example = source[index]
            if example.image.dtype == np.uint16 and self.info.features["image"].np_dtype == np.uint8:
                raise ValueError(f"{source.images[index]} has 16 bits; irjax.datasets.build allows for that")
            found = regions.find_regions(example.mask)
            yield (
                name,
                {
                    "image": _as_gray_png(source.images[index], example.image),
                    "mask": _png(example.mask.astype(np.uint8) * np.uint8(255)),
                    "points": found.centroids.astype(np.float32),
                    "boxes": found.boxes.astype(np.float32),
                    "areas": found.areas.astype(np.int32),
                    "id": name,
                },
            )

    def _compare_counts(self, found: Mapping[str, int]) -> None:
        config = self.builder_config.name if self.builder_config else ""
        expected = self.PUBLISHED.get(config, {})
        counts = {expression: sum(found.get(split, 0) for split in expression.split("+")) for expression in expected}
        different = [
            f"{expression} was published with {published} images, {counts[expression]} were found"
            for expression, published in expected.items()
            if counts[expression] != published
        ]
        if different:
            warnings.warn(f"{self.name}: {'; '.join(different)}", stacklevel=2)


def _as_gray_png(path: str, image: np.ndarray) -> bytes:
    """The file itself where it is a gray PNG already, else the same values as one."""
    data = pathlib.Path(path).read_bytes()
    is_gray_png = data[:8] == b"\x89PNG\r\n\x1a\n" and data[25] == 0 and data[24] in (8, 16)
    return data if is_gray_png else _png(image)


def _png(image: np.ndarray) -> bytes:
    """[H, W] uint8 or uint16 as a PNG file; lossless."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()
