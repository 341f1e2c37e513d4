"""Readers for the folder layouts in which IRSTD data sets are published.

| layout | what is on disk | splits |
|---|---|---|
| `sirst_v2` | images/{targets,backgrounds}, annotations/masks/NAME_pixels0.png, splits/SPLIT.txt | the lists' names |
| `spire` | images, annotations/annotations.json (COCO keypoints), img_idx/{train,test}.txt (ids) | the lists' names |
| `spire_split` | SPLIT/SPLIT_images, SPLIT/annotations/SPLIT.json (COCO keypoints) | the folders' names |
| `mdfa` | training/{NAME_1,NAME_2}.png (image, mask), test_org, test_gt | train, test |
| `split_folders` | SPLIT/{images,masks}, or images/SPLIT and masks/SPLIT | the folders' names |
| `sirst_uavb` | images/all, masks, train.txt, val.txt (what the papers test on) | train, test |
| `basicirstd` | images, masks, img_idx/{train,test,...}_SET.txt | the part before `_SET` |
| `lists` | images, masks, SPLIT.txt there, in idx_N, in 50_50 or in ImageSets/{Segmentation,Main} | the lists' names |
| `folder` | images, masks | all |
| `yolo` | images, labels/NAME.txt, or both in {images,labels}/SPLIT or SPLIT/{images,labels} | folders, lists, or all |
| `voc` | images, Annotations/NAME.xml, ImageSets/{Main,Segmentation}/SPLIT.txt | the lists' names, or all |
| `flat` | NAME.png and NAME_mask.png (or _gt, _pixels0) in one folder, SPLIT.txt | the lists' names, or all |
| `points` | images, points.csv (name,x,y; an image without a row has no target) | all |
| `sequences` | SEQUENCE/{images or Mix,masks}, the frames numbered, SPLIT.txt at the top | the lists' names, or all |

The folder of images may also be called image, imgs, img, JPEGImages or IRSTD1k_Img, that of masks mask, labels, label,
gt, groundtruth, SegmentationClass or IRSTD1k_Label, in any case of letters; `open_layout` takes folders of other names.
Sequences may lie in SPLIT/SEQUENCE/{images,masks}. A file with several images has the examples NAME_0001, NAME_0002
and so on, whose masks are in NAME_mask.tif, NAME_0001.png or NAME/0001.png. Lists are read as `irjax.io.lists` says.

SPLIT is train, val, test, trainval or trainvaltest; the lists in a folder such as 50_50 are the splits `train_50_50`
and so on. An absent list is an absent split. Where there is no validation list, `train` and `val` are carved from the
train list (from all images where there are no lists) by a seeded draw, and the whole train list is called `trainval`.
Frames of one sequence (`irjax.io.sequences`) are drawn together.

Everything that can be checked without decoding images is checked when a layout is opened; sizes, masks and points are
checked when an example is read. No invalid file is skipped, unless `skip_bad` says so; the error names it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from irjax.bars import bar
from irjax.data import folders
from irjax.data.draws import carve_validation, units
from irjax.errors import UsageError, UserError, check_folder, note, reading
from irjax.io.headers import image_depth
from irjax.io.images import AS_STORED, Depth, Frame, least_bits, path_or_frame, read_image
from irjax.io.lists import MASK_SUFFIXES, naming_flag, read_each
from irjax.io.masks import MaskRule, MaskSet
from irjax.io.names import first_repeated, name_list
from irjax.io.points import check_points
from irjax.ops import regions
from irjax.types import Example, Labels

LAYOUTS = tuple(folders.LAYOUTS)


@dataclasses.dataclass(frozen=True)
class FolderOptions:
    """How the folder of a data set is read: the keywords of `irjax.data.open_source`, in one place.

    Attributes:
      layout: one of `LAYOUTS`, or "auto" to detect it; of `open_source` also "tfds".
      seed: seed of the draw that carves a validation split where none is published, and of the draw of "draw_train",
        "draw_val" and "draw_test".
      fraction: fraction of the train list that the carved validation split takes.
      shares: relative sizes of "draw_train", "draw_val" and "draw_test", in any unit.
      images: folder of the images, in the data set's or a path of its own, in place of a layout; goes with `masks`.
      masks: folder of the masks; may be that of the images, if masks are called NAME_mask, NAME_gt or NAME_pixels0.
      skip_bad: read every example, and leave out those without an image or a mask, that cannot be read, or whose mask
        or annotation does not fit the image. Their number is noted, and `FolderSource.skipped` says what is wrong.
      depth: which stored values of the images are black and white (see `FolderSource`).
    """

    layout: str = "auto"
    seed: int = 0
    fraction: float = 0.2
    shares: Sequence[float] = (50, 30, 20)
    images: str | os.PathLike | None = None
    masks: str | os.PathLike | None = None
    skip_bad: bool = False
    depth: Depth = AS_STORED

    @property
    def says_folders(self) -> bool:
        """Whether the folders of images and masks are said, in place of a layout."""
        return self.images is not None or self.masks is not None


@dataclasses.dataclass(frozen=True)
class FolderSource:
    """One split of a published folder; stores paths and reads files lazily (an `irjax.types.Source`).

    Attributes:
      root: the folder of the data set.
      layout: one of `LAYOUTS`.
      split: the split's name.
      names: the name of each example; unique in the split, and in the data set if its images are in one folder.
      images: the image file of each example, or its frame of a file with several.
      masks: the mask file or frame of each example, None for an image without targets; or None where the layout has
        points.
      points: [K, 2] float32 (x, y) of each example where the layout has points, else None.
      sizes: (height, width) of each example according to its annotation, or None.
      labels: the boxes and polygons of each example where the layout has them, else None; `points` are theirs.
      skipped: what was left out of the split, one sentence for each image; empty without `skip_bad`.
      mask_set: all mask files of the data set, which one rule makes binary; None: those of this source.
      image_set: all image files of the data set, whose highest value tells the bits; None: those of this source.
      depth: which stored values of the images are black and white. By default, white of files of 16 bits is that of
        the smallest of 8, 10, 12, 14 and 16 bits that holds every value of the data set.
      sequences: {name: the file or folder of its sequence}, for the examples that are frames (`irjax.io.sequences`).
    """

    root: str
    layout: str
    split: str
    names: tuple[str, ...]
    images: tuple[str | Frame, ...]
    masks: tuple[str | Frame | None, ...] | None = None
    points: tuple[np.ndarray, ...] | None = dataclasses.field(default=None, compare=False)
    sizes: tuple[tuple[int, int], ...] | None = None
    labels: tuple[Labels, ...] | None = dataclasses.field(default=None, compare=False)
    skipped: tuple[str, ...] = ()
    mask_set: MaskSet | None = dataclasses.field(default=None, compare=False)
    image_set: tuple[str | Frame, ...] | None = dataclasses.field(default=None, compare=False)
    depth: Depth = AS_STORED
    sequences: Mapping[str, str] = dataclasses.field(default_factory=dict, compare=False)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Example:
        """Reads example `index`.

        Raises:
          IndexError: if the index is outside the source.
          UserError: if a file cannot be read, the mask and the image differ in size, or a point is outside the image.
        """
        with naming_flag():
            image = self.image(index)
            if self.masks is None:
                points, mask = self._annotated_points(index, image.shape), None
            else:
                mask = self._mask(index, image.shape)
                points = regions.points_from_mask(mask)
        return Example(name=self.names[index], image=image, points=points, mask=mask)

    def image(self, index: int) -> np.ndarray:
        """Reads the image [H, W] of example `index` alone, with the errors of `irjax.io.images.read_image`."""
        image = read_image(self.images[index], self.depth)
        if image.dtype == np.uint16 and self.depth == AS_STORED:
            image = self.applied_depth.apply(image, str(self.images[index]))
        return image

    @functools.cached_property
    def dtype(self) -> np.dtype:
        """The type that holds every image without loss: uint16 if the header of any file says 16 bits."""
        scaled = bool(self.depth.range or self.depth.stretch)
        deep = scaled or any(image_depth(path) == 16 for path in _files(self.images))
        return np.dtype(np.uint16 if deep else np.uint8)

    @functools.cached_property
    def applied_depth(self) -> Depth:
        """`depth`, or what the data set's highest value tells; reads every image of a data set of 16 bits."""
        if self.depth != AS_STORED:
            return self.depth
        return depth_of_set(self.images if self.image_set is None else self.image_set)

    def mask_rule(self, index: int) -> MaskRule | None:
        """Returns how the mask of example `index` was binarised; None without a mask file."""
        path = self.masks[index] if self.masks is not None else None
        return self._set.read(path)[1] if path else None

    @functools.cached_property
    def _set(self) -> MaskSet:
        return self.mask_set or MaskSet(tuple(path for path in self.masks or () if path))

    def _mask(self, index: int, shape: tuple[int, int]) -> np.ndarray:
        assert self.masks is not None
        path = self.masks[index]
        if path is None:
            return np.zeros(shape, np.bool_)
        mask, _ = self._set.read(path)
        _check_size(path, mask.shape, self.images[index], shape)
        return mask

    def _annotated_points(self, index: int, shape: tuple[int, int]) -> np.ndarray:
        if self.sizes is not None:
            _check_size(f"the annotation of {self.names[index]}", self.sizes[index], self.images[index], shape)
        points = cast("tuple[np.ndarray, ...]", self.points)[index]  # a source has masks or points
        check_points(points, shape, str(self.images[index]))
        return points


def detect_layout(root: str | os.PathLike) -> str:
    """Returns the first of `LAYOUTS` that fits a folder.

    Raises:
      MissingFileError: if there is no such folder.
      UserError: if no layout fits, or both masks/ and points.csv do; the message says what was looked for.
    """
    root = check_folder(root)
    first = next((layout for layout in LAYOUTS if folders.fits(root, layout)), None)
    if first is None:
        marks = "; ".join(f"{layout.marks} ({name})" for name, layout in folders.LAYOUTS.items())
        raise UserError(f"{root} is in no known layout; {folders.FLAGS}. Looked for {marks}")
    if first == "folder" and folders.fits(root, "points"):
        raise UserError(f"{root} has both masks/ and points.csv: say layout='folder' or layout='points'")
    return first


def depth_of_set(files: Sequence[str | Frame]) -> Depth:
    """Returns the depth of a data set: white of 16-bit files is that of the least bits that hold every value.

    Args:
      files: all its image files or frames; if one has 16 bits, all are read. What cannot be read is left out: whoever
        needs the file is told.
    """
    deep, highest = False, 0
    for path in _files(files):
        with contextlib.suppress(UserError):
            deep = deep or image_depth(path) == 16
    for image in bar(files if deep else (), "reading"):
        with contextlib.suppress(UserError):
            values = read_image(image)
            highest = max(highest, int(values.max()) if values.dtype == np.uint16 else 0)
    bits = least_bits(highest)
    return Depth(bits=bits) if deep and bits < 16 else AS_STORED


def _files(images: Iterable[str | Frame]) -> Iterable[str]:
    """Returns the files of images, each once."""
    return dict.fromkeys(os.fspath(image) for image in images)


def list_splits(root: str | os.PathLike, layout: str = "auto", **options: Any) -> tuple[str, ...]:
    """Returns the names of the splits that `open_layout` accepts for a folder, including carved ones."""
    return tuple(_parts(root, FolderOptions(layout, **options))[2])


def open_layout(root: str | os.PathLike, split: str, layout: str = "auto", **options: Any) -> FolderSource:
    """Opens one split of a published folder.

    Args:
      root: the folder.
      split: name of the split (see `list_splits`).
      layout: one of `LAYOUTS`, or "auto" to detect it.
      **options: fields of `FolderOptions`.

    Returns:
      The examples of the split, in the order of its list.

    Raises:
      MissingFileError: if the folder does not exist.
      UserError: if the layout or the split is unknown, or the split is empty; if a listed name has no image or mask
        file, or several, or is listed twice; if lists of one family (train, val, test) share names; if annotations are
        malformed.
    """
    how = FolderOptions(layout, **options)
    root, layout, parts = _parts(root, how)
    wanted = folders.role(split)
    wanted = wanted if wanted in parts else split
    if wanted not in parts:
        role, _, family = wanted.partition("_")
        base = _base(parts, f"_{family}" if family else "") if role in ("train", "val") else None
        why = f"; {base} is one sequence, of which no validation list is drawn" if base else ""
        raise UserError(f"{root} ({layout}) has no split {split!r}; available: {', '.join(parts) or 'none'}{why}")
    part = parts[wanted]
    if not part.names:
        raise UserError(f"{root} ({layout}): split {split!r} is empty")
    where = f"{root} ({layout}), split {split!r}"
    every = {path_or_frame(path): None for one in parts.values() for path in (one.masks or {}).values()}
    pictures = {path_or_frame(path): None for one in parts.values() for path in one.images.values()}
    source = functools.partial(
        _source,
        root=root,
        layout=layout,
        split=wanted,
        mask_set=MaskSet(tuple(sorted(every, key=str))),
        image_set=tuple(sorted(pictures, key=str)),
        depth=how.depth,
    )
    if not how.skip_bad:
        _check_names(part, where)
        _check_family(parts, wanted, root)
        return source(part)

    def read(name: str) -> str:
        one = dataclasses.replace(part, names=(name,))
        _check_names(one, where)
        source(one)[0]
        return name

    _check_family(parts, wanted, root)
    good, skipped = read_each(part.names, read, skip_bad=True)
    if skipped:
        note(f"{len(skipped)} of {len(part.names)} images are left out: {name_list(skipped)}", where)
    if not good:
        raise UserError(f"{where}: none of its images can be used")
    _check_names(part := dataclasses.replace(part, names=tuple(good)), where)
    return dataclasses.replace(source(part), skipped=tuple(skipped))


def _source(
    part: folders.Part,
    root: pathlib.Path,
    layout: str,
    split: str,
    mask_set: MaskSet,
    image_set: tuple[str | Frame, ...],
    depth: Depth,
) -> FolderSource:
    sequences = part.sequences
    source = functools.partial(
        FolderSource,
        image_set=image_set,
        depth=depth,
        root=str(root),
        layout=layout,
        split=split,
        names=part.names,
        images=tuple(path_or_frame(part.images[name]) for name in part.names),
        sequences={name: sequences[name] for name in part.names if name in sequences},
    )
    with naming_flag():
        if part.points is None:
            return source(masks=mask_files(part), mask_set=mask_set)
        points, sizes = zip(*(part.points[name] for name in part.names), strict=True)
        labels = None if part.labels is None else tuple(part.labels[name].labels for name in part.names)
    return source(points=points, sizes=None if None in sizes else sizes, labels=labels)


def published_parts(root: str | os.PathLike, how: FolderOptions) -> tuple[pathlib.Path, str, dict[str, folders.Part]]:
    """Returns a folder, its layout and its published splits; errors are those of `open_layout`."""
    root = check_folder(root)
    if how.layout not in ("auto", *LAYOUTS):
        raise UsageError(f"unknown layout {how.layout!r}; known: auto, {', '.join(LAYOUTS)}")
    if not how.says_folders:
        layout = detect_layout(root) if how.layout == "auto" else how.layout
        return root, layout, folders.read(root, layout)
    if how.images is None or how.masks is None:
        raise UsageError("the folders of images and masks (--images, --masks) are given together")
    if how.layout not in ("auto", "folder"):
        raise UsageError(f"the folders of images and masks (--images, --masks) take the place of layout {how.layout!r}")
    image_folder, mask_folder = (
        folder if (folder := root / path).is_dir() else pathlib.Path(path) for path in (how.images, how.masks)
    )
    return root, "folder", folders.read_pair(root, image_folder, mask_folder)


def mask_files(part: folders.Part) -> tuple[str | Frame | None, ...]:
    """Returns the mask of each name of a part with masks; None where the layout says that there is no target.

    Raises:
      UserError: if a name has two masks, or none where one is required.
    """
    masks = cast("Mapping[str, pathlib.Path | Frame]", part.masks)
    paths: list[str | Frame | None] = []
    for name in part.names:
        stated = part.stated.get(name)
        candidates = [masks[mask] for mask in (part.masks_of(name) if stated is None else [stated]) if mask in masks]
        if len(candidates) > 1:
            raise UserError(f"two masks for {part.images[name]}: {candidates[0]} and {candidates[1]}")
        # SIRST-v2 stores images without targets in a separate folder; only those may lack a mask.
        if not candidates and name not in part.unmasked:
            looked = ", ".join(f"{name}{suffix}.*" for suffix in MASK_SUFFIXES)
            raise UserError(f"no mask for {part.images[name]}: looked for {looked} in {part.masks_in}")
        paths.append(path_or_frame(candidates[0]) if candidates else None)
    return tuple(paths)


def _parts(root: str | os.PathLike, how: FolderOptions) -> tuple[pathlib.Path, str, dict[str, folders.Part]]:
    """Returns what `published_parts` does, with the carved splits."""
    root, layout, parts = published_parts(root, how)
    if layout == "sirst_v2":  # published with validation lists
        return root, layout, parts
    for family in sorted({split.partition("_")[2] for split in parts}):
        parts |= _carved(parts, f"_{family}" if family else "", how.seed, how.fraction)
    return root, layout, parts


def _carved(parts: Mapping[str, folders.Part], suffix: str, seed: int, fraction: float) -> dict[str, folders.Part]:
    """Returns the splits that a draw adds to one family of lists; none if it has a validation list."""
    train, val, trainval = (f"{role}{suffix}" for role in ("train", "val", "trainval"))
    if val in parts or {train, trainval} <= parts.keys():
        return {}
    base = _base(parts, suffix)
    if base is None:
        return {}
    whole = parts[base]
    sequences = whole.sequences
    if len(units(whole.names, sequences)) < 2:
        return {}
    names = dict(zip((train, val), carve_validation(whole.names, fraction, seed, sequences), strict=True))
    drawn = {split: dataclasses.replace(whole, names=drawn) for split, drawn in names.items()}
    return {base if base.startswith("all") else trainval: whole} | drawn


def _base(parts: Mapping[str, folders.Part], suffix: str) -> str | None:
    """Returns the list of a family that validation is drawn from, if there is one."""
    candidates = (f"{role}{suffix}" for role in ("train", "trainval", "all"))
    return next((name for name in candidates if name in parts and len(parts[name].names) > 1), None)


def _check_names(part: folders.Part, where: str) -> None:
    names = part.names
    if (twice := first_repeated(names)) is not None:
        raise UserError(f"{where}: {twice} is listed twice")
    if missing := [name for name in names if name not in part.images]:
        problems = [part.problems[name] for name in missing if name in part.problems]
        lines = f" ({problems[0]})" if problems else ""
        with naming_flag():
            raise UserError(f"{where}: {len(missing)} listed names have no image file: {name_list(missing)}{lines}")


def _check_family(parts: Mapping[str, folders.Part], split: str, root: pathlib.Path) -> None:
    """Refuses a split that shares names with its siblings: train_full and val_full are siblings, train_v1 is not."""
    role, _, family = split.partition("_")
    roles = ("train", "val", "test")
    if role not in roles and role != "trainval":
        return
    # trainval contains train and val by definition, but must not contain a test name.
    others = ("test",) if role == "trainval" else tuple(r for r in roles if r != role)
    for other in others:
        sibling = f"{other}_{family}" if family else other
        if sibling in parts and (shared := _shared(parts[split], parts[sibling])):
            raise UserError(f"{root}: {len(shared)} names are in both {split!r} and {sibling!r}: {name_list(shared)}")


def _shared(one: folders.Part, other: folders.Part) -> list[str]:
    """Returns the shared names of identical images; splits in separate folders may use a name for different images."""
    names = sorted(set(one.names) & set(other.names))
    return [name for name in names if _same_file(one.images.get(name), other.images.get(name))]


def _same_file(one: pathlib.Path | Frame | None, other: pathlib.Path | Frame | None) -> bool:
    if one is None or other is None or one == other:
        return True
    one, other = pathlib.Path(one), pathlib.Path(other)
    with reading(one), reading(other):
        return one.stat().st_size == other.stat().st_size and one.read_bytes() == other.read_bytes()


def _check_size(what: str | Frame, size: tuple[int, int], image: str | Frame, shape: tuple[int, int]) -> None:
    if tuple(size) != tuple(shape):
        raise UserError(f"{what} is for {size[1]}x{size[0]} pixels, but the image {image} has {shape[1]}x{shape[0]}")
