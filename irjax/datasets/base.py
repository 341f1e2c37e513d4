"""Base class of all data set builders: features, and records made from a folder in its published layout.

A builder states its layouts, its splits and the published number of images; everything else is here. TensorFlow is not
needed, since images are stored in the records as files, not as arrays.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import os
import pathlib
import warnings
from collections.abc import Iterator, Mapping
from typing import cast

import numpy as np
import tensorflow_datasets as tfds

from irjax.bars import bar
from irjax.data import folders, layouts, sources
from irjax.data.licences import LICENCES
from irjax.errors import UsageError, UserError
from irjax.io import images
from irjax.ops import regions
from irjax.types import Example, Source


@dataclasses.dataclass(eq=False)
class IrstdConfig(tfds.core.BuilderConfig):
    """One configuration of a data set.

    Attributes:
      lists: suffixes of "train", "val" and "test" in the layout's names of its splits; the first that exists is used.
      layouts: the layouts in which its lists are published; if empty, those of the builder.
    """

    lists: tuple[str, ...] = ("",)
    layouts: tuple[str, ...] = ()


class IrstdBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]  # untyped
    """Base class of the builders.

    Class attributes that a builder sets:
      HOMEPAGE: where the data set is published.
      FOLDER: the files that the publication's folder must contain, for the error if it does not.
      LAYOUTS: those of `layouts.LAYOUTS` in which it is published; the first that fits the folder is read.
      LISTS: as `IrstdConfig.lists`, if there are no configurations.
      INSIDE: subfolders of the publication that may contain the data, one level deeper.
      PUBLISHED: configuration ("" if there are none) -> a sum of splits such as "train+validation" -> published number
        of images. If another number is found, the data set is prepared with a warning that states both numbers.
      NEEDS_SOURCE: False if no published folder is read.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "As published."}

    HOMEPAGE = ""
    FOLDER = ""
    LAYOUTS: tuple[str, ...] = ("folder",)
    LISTS: tuple[str, ...] = ("",)
    INSIDE: tuple[str, ...] = ()
    PUBLISHED: Mapping[str, Mapping[str, int]] = {}
    NEEDS_SOURCE = True

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if cls.NEEDS_SOURCE:
            where = f"Get the data from {cls.HOMEPAGE} (in a browser), unpack them, and name the folder that holds"
            cls.MANUAL_DOWNLOAD_INSTRUCTIONS = f"{where} {cls.FOLDER}."

    def __init__(self, *, source: str | os.PathLike | None = None, **kwargs):
        """Also takes the folder of the publication, so that the features can state the bit depth of its images."""
        self._source = None if source is None else pathlib.Path(source)
        super().__init__(**kwargs)

    @classmethod
    def config_for(cls, name: str) -> tfds.core.BuilderConfig | None:
        """Returns the configuration of a name; for "", the first one, or None if there are none.

        Raises:
          UserError: if there is no such configuration; the message lists the existing ones.
        """
        known = {config.name: config for config in cls.BUILDER_CONFIGS}
        if not name:
            return next(iter(known.values()), None)
        if name not in known:
            raise UsageError(f"{cls.name} has no configuration {name!r}; it has {', '.join(known) or 'none'}")
        return known[name]

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
            license=LICENCES.get(self.name),
            disable_shuffling=True,  # keeps the order of the published lists
            metadata=tfds.core.MetadataDict(),
        )

    def _depth(self) -> type[np.unsignedinteger]:
        if self._source is None and self.NEEDS_SOURCE:
            return np.uint8
        deep = any(source.dtype == np.uint16 for source in self._sources.values())
        return np.uint16 if deep else np.uint8

    @functools.cached_property
    def _sources(self) -> dict[str, Source]:
        # `_source` is None only for a builder that reads no folder.
        return self.open_splits(cast("pathlib.Path", self._source), self.builder_config)

    @classmethod
    def open_splits(cls, root: str | os.PathLike, config: tfds.core.BuilderConfig | None = None) -> dict[str, Source]:
        """Opens the splits of the publication's folder, by the names that TFDS gives them.

        Args:
          root: the folder of the publication.
          config: one of the builder's configurations, None if it has none.

        Raises:
          UserError: if the folder is in none of the layouts or has none of the splits; the message says where to get
            the data and which files are required. Also if a split is malformed (see `layouts.open_layout`).
        """
        root = pathlib.Path(root)
        root = next((root / name for name in cls.INSIDE if (root / name).is_dir()), root)
        wanted, endings = (config.layouts or cls.LAYOUTS, config.lists) if config else (cls.LAYOUTS, cls.LISTS)
        layout = next((layout for layout in wanted if folders.fits(root, layout)), None)
        if layout is None:
            raise UserError(f"{root} is not {cls.name} as published. {cls.MANUAL_DOWNLOAD_INSTRUCTIONS}")
        present = layouts.list_splits(root, layout)
        for ending in endings:
            names = {"train": f"train{ending}", "validation": f"val{ending}", "test": f"test{ending}"}
            found = {split: name for split, name in names.items() if name in present}
            if found:
                return {split: layouts.open_layout(root, name, layout) for split, name in found.items()}
        looked = ", ".join(f"{role}{ending}" for ending in endings for role in ("train", "val", "test"))
        raise UserError(
            f"{root} has none of the splits {looked} of {cls.name}; it has {', '.join(present) or 'none'}. "
            f"{cls.MANUAL_DOWNLOAD_INSTRUCTIONS}"
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        if self._source is None and self.NEEDS_SOURCE:
            self._source = pathlib.Path(dl_manager.manual_dir)
        found = self._sources
        self._compare_counts(self._counts(found))
        self.info.metadata["sha256_of_names"] = {split: sources.split_hash(part) for split, part in found.items()}
        return {split: self._generate_examples(split, source) for split, source in found.items()}

    def _generate_examples(self, split: str, source: Source) -> Iterator[tuple[str, dict]]:
        gray, rules = [], ""
        for index, name in enumerate(bar(source.names, split)):
            example = source[index]
            if example.image.dtype == np.uint16 and self.info.features["image"].np_dtype == np.uint8:
                raise UserError(f"{self.name}, {name}: 16 bits; irjax.datasets.build allows for that")
            rule = source.mask_rule(index) if isinstance(source, layouts.FolderSource) else None
            if rule is not None and rule.gray:
                gray.append(name)
                rules = rule.name
            boxes, areas = _regions_at(example)
            assert example.mask is not None  # checked by `_regions_at`
            # A file may be stored as it is where its values are those of the example.
            folder = source if isinstance(source, layouts.FolderSource) else None
            file = folder.images[index] if folder and folder.applied_depth == images.AS_STORED else None
            yield (
                name,
                {
                    "image": _as_gray_png(file if isinstance(file, str) else None, example.image),
                    "mask": _png(example.mask.astype(np.uint8) * np.uint8(255)),
                    "points": example.points.astype(np.float32),
                    "boxes": boxes.astype(np.float32),
                    "areas": areas.astype(np.int32),
                    "id": name,
                },
            )
        if gray:
            some = ", ".join(gray[:3]) + (" ..." if len(gray) > 3 else "")
            text = f"{self.name}, {split}: {len(gray)} of {len(source)} masks are not binary; target is {rules}: {some}"
            warnings.warn(text, stacklevel=2)
        self.info.metadata.setdefault("gray_masks", {})[split] = len(gray)

    def _counts(self, found: Mapping[str, Source]) -> dict[str, int]:
        """Returns the number of images by the split names that `PUBLISHED` uses."""
        return {split: len(source) for split, source in found.items()}

    def _compare_counts(self, found: Mapping[str, int]) -> None:
        expected = self.PUBLISHED.get(self.builder_config.name if self.builder_config else "", {})
        counts = {expression: sum(found.get(split, 0) for split in expression.split("+")) for expression in expected}
        different = [
            f"{expression} was published with {published} images, {counts[expression]} were found"
            for expression, published in expected.items()
            if counts[expression] != published
        ]
        if different:
            warnings.warn(f"{self.name}: {'; '.join(different)}", stacklevel=2)


def _regions_at(example: Example) -> tuple[np.ndarray, np.ndarray]:
    """Returns boxes [K, 4] and areas [K] of the mask's regions, in the order of the example's points.

    Raises:
      UserError: if there is no mask, or the points and the regions of the mask are not the same targets.
    """
    if example.mask is None:
        raise UserError(f"{example.name}: points without a mask; a prepared data set has both")
    found = regions.find_regions(example.mask)
    points = np.asarray(example.points, np.float64).reshape(-1, 2)
    if np.array_equal(points.astype(np.float32), found.centroids.astype(np.float32)):
        return found.boxes, found.areas
    columns, rows = np.floor(points + 0.5).astype(int).T
    order = found.labels[rows, columns] - 1
    if sorted(order) != list(range(len(found))):
        raise UserError(f"{example.name}: {len(points)} points do not lie one by one in the {len(found)} regions")
    return found.boxes[order], found.areas[order]


def _as_gray_png(path: str | None, image: np.ndarray) -> bytes:
    """Returns the file itself if it is a gray PNG, else a PNG with the same values."""
    data = images.read_bytes(path) if path else b""
    is_gray_png = data[:8] == b"\x89PNG\r\n\x1a\n" and data[25] == 0 and data[24] in (8, 16)
    return data if is_gray_png else _png(image)


def _png(image: np.ndarray) -> bytes:
    """Encodes [H, W] uint8 or uint16 as a PNG file, without loss."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()
