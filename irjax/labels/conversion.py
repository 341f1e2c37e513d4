"""Conversion of annotation files from one format to another, as done by `irjax labels`."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from irjax.bars import bar
from irjax.errors import FileError, MissingFileError, UsageError, UserError, check_folder, note, reading, writing
from irjax.io import formats
from irjax.io.files import whole_folder
from irjax.io.headers import image_size
from irjax.io.images import AS_STORED, IMAGE_SUFFIXES, Depth, Frame, path_or_frame
from irjax.io.lists import NO_LABELS, index_files, read_each
from irjax.io.masks import MaskSet
from irjax.io.names import core, file_of, name_list
from irjax.io.sequences import file_name, index_images
from irjax.labels.targets import POINT_RULES, inverted_masks, label_mask, name_rng, target_mask
from irjax.ops.regions import find_regions
from irjax.types import ImageLabels, Labels

FORMATS = ("points", "coco", "yolo", "voc", "masks")
KINDS = ("masks", "dataset", "coco", "yolo", "voc", "labelme", "points")

_ENDINGS = {"points": ".csv", "coco": ".json"}  # formats that are a single file; the others are folders
_FOLDER_KINDS = {"masks": IMAGE_SUFFIXES, "yolo": (".txt",), "voc": (".xml",), "labelme": (".json",)}
_WITH_IMAGES = ("yolo", "points", "voc", "labelme")  # kinds that need, or can have, a folder of images


@dataclasses.dataclass(frozen=True)
class Conversion:
    """Summary of a conversion.

    Attributes:
      kind: kind of the source, one of `KINDS`.
      images: number of images.
      empty: number of images without a target.
      targets: number of targets.
      rules: {rule that made masks binary (see `irjax.io.masks`): number of masks}.
      notes: what was lost or changed by the conversion, one sentence each.
      skipped: what was wrong with the images that were left out, one sentence each.
    """

    kind: str
    images: int
    empty: int
    targets: int
    rules: Mapping[str, int] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class LabelOptions:
    """How annotations are read.

    Attributes:
      split: split of a data set.
      layout: layout of a data set.
      points: rule that gives the point of each target of a mask, see `irjax.labels.label_mask`.
      seed: seed of points that are drawn; the points of an image depend only on the seed and its name.
      connectivity: connectivity of the targets of a mask, 8 or 4.
      images: folder of the images that "yolo" and "points" annotate, since these formats do not state image sizes, and
        for files of "voc" and "labelme" that state none. All of its images are read, except with "voc"; those without
        annotation have no targets. Of a data set, the folder of its images, in place of a layout.
      masks: of a data set, the folder of its masks; goes with `images` (see `irjax.data.open_source`).
      box_convention: for kind "voc", "voc" or "sirst_v2"; see `irjax.labels.parse_voc`.
      skip_bad: leave out images whose files cannot be read, do not fit each other or are missing, with a note.
      depth: which stored values of a data set's images are black and white.
    """

    split: str = "all"
    layout: str = "auto"
    points: str = "centroid"
    seed: int = 0
    connectivity: int = 8
    images: str | os.PathLike | None = None
    masks: str | os.PathLike | None = None
    box_convention: str = "voc"
    skip_bad: bool = False
    depth: Depth = AS_STORED

    def check(self, source: pathlib.Path, kind: str) -> None:
        """Refuses options that a source of this kind does not have; raises UserError."""
        if kind not in KINDS:
            raise UsageError(f"the source must be one of {', '.join(KINDS)}, got {kind!r}")
        if self.points not in POINT_RULES:
            raise UsageError(f"points must be one of {', '.join(POINT_RULES)}, got {self.points!r}")
        if self.points != "centroid" and kind not in ("masks", "dataset"):
            raise UserError(f"points={self.points!r} are drawn inside masks, and {source} ({kind}) has none")
        if self.images is not None and kind not in (*_WITH_IMAGES, "dataset"):
            takers = ", ".join(_WITH_IMAGES)
            raise UserError(f"images are wanted for {takers} and dataset only; {source} ({kind}) states their sizes")
        if self.masks is not None and kind != "dataset":
            raise UserError(f"a folder of masks goes with one of images and a data set, and {source} is {kind}")
        if self.depth != AS_STORED and kind != "dataset":
            raise UserError(f"{self.depth.describe()}: that is for the images of a data set, and {source} is {kind}")
        if self.box_convention != "voc" and kind != "voc":
            raise UserError(f"a box convention is for voc, and {source} is {kind}")
        if self.skip_bad and kind in ("coco", "points"):
            raise UserError(f"{source} ({kind}) is one file, of which no image is left out")

    def label(self, name: str, mask: np.ndarray) -> Labels:
        """Returns the targets of the mask of an image."""
        rng = None if self.points == "centroid" else name_rng(self.seed, name)
        return label_mask(mask, self.connectivity, points=self.points, rng=rng)


def convert(
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    to: str,
    kind: str = "auto",
    radius: float | None = None,
    **options: Any,
) -> Conversion:
    """Converts annotations. Everything is read and checked before anything is written.

    Args:
      source: a file or folder of one of `KINDS`.
      out: a new .csv file for "points", a new .json file for "coco"; a new or empty folder for "yolo" and "voc" (a file
        for each image) and "masks" (a PNG with 0 and 255 for each image).
      to: one of `FORMATS`.
      kind: kind of the source, or "auto" to detect it. With `images` and `masks`, it is a data set.
      radius: for "masks", mark the points by discs of this radius in pixels; 0 marks one pixel for each target. None
        fills the polygons and boxes of the source (`irjax.ops.polygons.fill_polygons`), and marks one pixel for targets
        that have neither, or whose boxes are those of masks.
      **options: fields of `LabelOptions`.

    Returns:
      Counts, the rules that made masks binary, and what the output format could not represent.

    Raises:
      MissingFileError: if the source does not exist.
      FileError: if `out` cannot be written.
      UserError: if an argument or a file is invalid; the message names it. Nothing is written in this case.
    """
    out = pathlib.Path(out)
    _check_out(out, to)
    if radius and to != "masks":
        raise UsageError(f"a radius is for masks, not for {to}")
    if kind == "auto":
        kind = "dataset" if options.get("masks") is not None else find_kind(source)
    images, skipped = _read(pathlib.Path(source), kind, LabelOptions(**options))
    if said := inverted_masks((image.labels, image.size) for image in images if kind in ("masks", "dataset")):
        note(said, source)
    if radius is None and kind in ("masks", "dataset") and any(image.labels.areas is not None for image in images):
        radius = 0.0  # whoever has masks wants their points marked
    notes = write_labels(out, images, to, radius=radius)
    numbers = [len(image.labels) for image in images]
    rules = collections.Counter(image.rule for image in images if image.rule)
    return Conversion(kind, len(images), numbers.count(0), sum(numbers), dict(rules), tuple(notes), tuple(skipped))


# --- reading ----------------------------------------------------------------------------------------------------------


def find_kind(source: str | os.PathLike) -> str:
    """Returns which of `KINDS` a file or folder is.

    Raises:
      MissingFileError: if it does not exist.
      UserError: if it is of no kind, or a folder with files of several kinds; the message says what was found.
    """
    from irjax.data import detect_layout

    source = pathlib.Path(source)
    with reading(source):
        is_file, is_folder = source.is_file(), source.is_dir()
    if is_file:
        kinds = {".json": "coco", ".csv": "points"}
        if source.suffix.lower() not in kinds:
            raise UserError(f"{source}: a .json (COCO) or .csv (points) file, or a folder is wanted")
        return kinds[source.suffix.lower()]
    if not is_folder:
        raise MissingFileError(f"there is no file or folder {source}")
    try:
        detect_layout(source)
        return "dataset"
    except UserError as error:
        reason = error
    if any(any(source.glob("*/" * depth + "dataset_info.json")) for depth in range(4)):
        return "dataset"
    found = {kind: files for kind in _FOLDER_KINDS if (files := _files(source, kind, nested=False))}
    if found.keys() == {"masks", "labelme"}:  # LabelMe writes its files beside the images
        found.pop("masks" if found["labelme"].keys() <= found["masks"].keys() else "labelme")
    if len(found) > 1:
        listed = " and ".join(f"{len(files)} of {kind} ({min(files.values()).name})" for kind, files in found.items())
        raise UserError(f"{source} mixes formats: {listed}; say which with --from, or take them apart")
    if not found:
        raise UserError(
            f"no image files (masks), .txt (YOLO), .xml (VOC) or .json (LabelMe) files in {source}, and {reason}"
        )
    return next(iter(found))


def read_labels(source: str | os.PathLike, kind: str, **options: Any) -> list[ImageLabels]:
    """Reads annotations.

    Args:
      source: the file or folder.
      kind: one of `KINDS`.
      **options: fields of `LabelOptions`.

    Returns:
      The targets of each image.

    Raises:
      MissingFileError: if there is no such file or folder.
      UserError: if an argument or a file is invalid; the message names it.
    """
    return _read(pathlib.Path(source), kind, LabelOptions(**options))[0]


def _read(source: pathlib.Path, kind: str, how: LabelOptions) -> tuple[list[ImageLabels], list[str]]:
    """Returns what `read_labels` does, and what was wrong with the images that are left out."""
    how.check(source, kind)
    if not source.exists():
        raise MissingFileError(f"there is no file or folder {source}")
    if (kind in ("coco", "points")) != source.is_file():
        raise UserError(f"{source}: {kind} is a {'file' if kind in ('coco', 'points') else 'folder'}")
    if kind == "coco":
        return formats.read_coco_labels(source), []
    if kind == "dataset":
        return _read_dataset(source, how)
    pictures = {} if how.images is None else _named(pathlib.Path(how.images), "masks", simplify=str)
    if kind == "points":
        sizes = {name: image_size(path) for name, path in pictures.items()} if pictures else None
        return [_with_file(image, pictures) for image in formats.read_points_labels(source, sizes)], []
    if kind == "masks":
        found, skipped = _read_masks(source, how)
    else:
        found, skipped = _read_annotations(source, kind, pictures, how)
    if skipped:
        note(f"{len(skipped)} images are left out: {name_list(skipped)}", source)
    return [_with_file(image, pictures) for image in found], skipped


def _with_file(image: ImageLabels, pictures: Mapping[str, pathlib.Path | Frame]) -> ImageLabels:
    path = pictures.get(image.name)
    return image if path is None else dataclasses.replace(image, file_name=file_name(image.name, path))


def _read_masks(folder: pathlib.Path, how: LabelOptions) -> tuple[list[ImageLabels], list[str]]:
    files = _named(folder, "masks")
    masks = MaskSet(tuple(map(path_or_frame, files.values())))

    def read(name: str) -> ImageLabels:
        mask, rule = masks.read(files[name])
        file = pathlib.Path(name).name + pathlib.Path(files[name]).suffix
        return ImageLabels(name, how.label(name, mask), mask.shape, file, rule.name)

    return read_each(files, read, skip_bad=how.skip_bad)


def _read_dataset(root: pathlib.Path, how: LabelOptions) -> tuple[list[ImageLabels], list[str]]:
    from irjax.data import open_source

    source = open_source(
        root, how.split, how.layout, images=how.images, masks=how.masks, skip_bad=how.skip_bad, depth=how.depth
    )
    files = getattr(source, "images", None)
    boxes = getattr(source, "labels", None)
    found = []
    for index, name in enumerate(bar(source.names, "reading")):
        example, rule = source[index], None
        if example.mask is None:
            if how.points != "centroid":
                raise UserError(f"{root}: {name} has points and no mask to draw other points in")
            labels = Labels(example.points) if boxes is None else boxes[index]
        else:
            labels = how.label(name, example.mask)
            applied = source.mask_rule(index) if hasattr(source, "mask_rule") else None
            rule = applied.name if applied else None
        file = file_name(name, files[index]) if files is not None else None
        found.append(ImageLabels(name, labels, example.image.shape, file, rule))
    return found, list(getattr(source, "skipped", ()))


def _read_annotations(
    folder: pathlib.Path, kind: str, pictures: Mapping[str, pathlib.Path | Frame], how: LabelOptions
) -> tuple[list[ImageLabels], list[str]]:
    """Reads a folder with a file for each image."""
    if kind == "yolo" and not pictures:
        raise UserError(f"{folder}: YOLO boxes are shares of the image; give the folder of the images (--images)")
    paths = _named(folder, kind)
    names = dict.fromkeys(paths if kind == "voc" or not pictures else (*pictures, *paths))

    def read(name: str) -> ImageLabels:
        if pictures and name not in pictures:
            raise UserError(f"{paths[name]}: there is no image of that name")
        size = image_size(pictures[name]) if pictures else None
        if name not in paths:
            return ImageLabels(name, Labels(np.zeros((0, 2), np.float32), np.zeros((0, 4), np.int64)), size)
        return formats.read_annotation(paths[name], kind, name, size, how.box_convention)

    return read_each(names, read, skip_bad=how.skip_bad)


def _files(folder: pathlib.Path, kind: str, *, nested: bool = True) -> dict[str, pathlib.Path]:
    found = index_files(folder, _FOLDER_KINDS[kind], nested=nested)
    return {name: path for name, path in found.items() if path.name not in NO_LABELS}


def _named(folder: pathlib.Path, kind: str, simplify: Callable[[str], str] = core) -> dict[str, pathlib.Path | Frame]:
    """Returns {name of the image: file or frame}; names have neither file endings nor mask suffixes."""
    check_folder(folder)
    found: dict[str, pathlib.Path | Frame] = {}
    files: Mapping[str, pathlib.Path | Frame] = index_images(folder) if kind == "masks" else _files(folder, kind)
    for whole, path in files.items():
        above, slash, last = whole.rpartition("/")
        name = above + slash + simplify(last)
        if name in found:
            raise UserError(f"two files are for one image, {name}: {found[name]} and {path}")
        found[name] = path
    if not found:
        raise UserError(f"{folder} is empty: no {', '.join(_FOLDER_KINDS[kind])} files")
    return found


# --- writing ----------------------------------------------------------------------------------------------------------


def write_labels(
    out: str | os.PathLike, images: Sequence[ImageLabels], to: str, *, radius: float | None = 0.0
) -> list[str]:
    """Writes annotations, completely or not at all; arguments and errors are those of `convert`.

    Returns:
      What the format could not represent, one sentence each.
    """
    out = pathlib.Path(out)
    _check_out(out, to)
    if to == "points":
        formats.write_points_labels(out, images)
        empty = sum(not len(image.labels) for image in images)
        return [f"{empty} images without targets have no line"] if empty else []
    if to == "coco":
        formats.write_coco_labels(out, images)
        bare = sum(image.labels.boxes is None and len(image.labels) > 0 for image in images)
        return [f"{bare} images have points without boxes"] if bare else []
    with whole_folder(out) as folder:
        if to == "masks":
            return _write_masks(folder, images, radius)
        for image in bar(images, "writing"):
            if to == "voc":
                text = formats.format_voc(image)
            else:
                text = formats.format_yolo(formats.known_boxes(image), formats.known_size(image))
            _file(folder, image, _FOLDER_KINDS[to][0]).write_text(text, encoding="utf-8")
    split = sum(np.any(boxes != np.rint(boxes)) for boxes in map(formats.known_boxes, images)) if to == "voc" else 0
    notes = [f"{split} images have boxes that were widened to whole pixels"] if split else []
    outlined = sum(image.labels.polygons is not None for image in images)
    return notes + ([f"{outlined} images have polygons, of which only the boxes were written"] if outlined else [])


def _file(folder: pathlib.Path, image: ImageLabels, ending: str) -> pathlib.Path:
    """Returns the file to write for an image; its folder is made."""
    path = folder / f"{file_of(image.name)}{ending}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _write_masks(folder: pathlib.Path, images: Sequence[ImageLabels], radius: float | None) -> list[str]:
    from PIL import Image

    joined = []
    for image in bar(images, "writing"):
        mask = target_mask(image.labels, formats.known_size(image), radius)
        if len(find_regions(mask)) < len(image.labels):
            joined.append(image.name)
        Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(_file(folder, image, ".png"))
    return [f"{len(joined)} masks have targets that touch and are one region, such as {joined[0]}"] if joined else []


def _check_out(out: pathlib.Path, to: str) -> None:
    """Refuses an output that could not be written, before anything is read."""
    if to not in FORMATS:
        raise UsageError(f"the format must be one of {', '.join(FORMATS)}, got {to!r}")
    ending = _ENDINGS.get(to)
    if ending and out.suffix.lower() != ending:
        raise UsageError(f"{to} is written to one {ending} file, got {out}")
    with writing(out):
        taken = out.exists() and (ending or not out.is_dir() or any(out.iterdir()))
    if taken:
        raise UserError(f"{out} exists already; nothing is replaced: give a new {'file' if ending else 'folder'}")
    existing = next(folder for folder in out.absolute().parents if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise FileError(f"cannot write {out}: {existing} is no folder that can be written to")
