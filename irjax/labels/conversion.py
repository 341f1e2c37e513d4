"""Conversion of annotation files from one format to another, as done by `irjax labels`."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from irjax.errors import FileError, MissingFileError, UsageError, UserError, check_folder, reading, writing
from irjax.io import formats
from irjax.io.files import whole_folder
from irjax.io.images import IMAGE_SUFFIXES, read_bytes, read_image, read_mask
from irjax.io.names import core, stem
from irjax.labels.targets import POINT_RULES, label_mask, name_rng, point_mask
from irjax.ops.boxes import box_centres
from irjax.ops.regions import find_regions
from irjax.types import ImageLabels, Labels

FORMATS = ("points", "coco", "yolo", "voc", "masks")
KINDS = ("masks", "dataset", "coco", "yolo", "voc", "points")

_ENDINGS = {"points": ".csv", "coco": ".json"}  # formats that are a single file; the others are folders
_FOLDER_KINDS = {"masks": IMAGE_SUFFIXES, "yolo": (".txt",), "voc": (".xml",)}
_NO_LABELS = ("classes.txt",)  # files that labelling programs write beside YOLO's


@dataclasses.dataclass(frozen=True)
class Conversion:
    """Summary of a conversion.

    Attributes:
      kind: kind of the source, one of `KINDS`.
      images: number of images.
      empty: number of images without a target.
      targets: number of targets.
      rules: {rule that made masks binary (see `irjax.data.read_mask`): number of masks}.
      notes: what was lost or changed by the conversion, one sentence each.
    """

    kind: str
    images: int
    empty: int
    targets: int
    rules: Mapping[str, int] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()


def convert(
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    to: str,
    kind: str = "auto",
    radius: float = 0.0,
    **options,
) -> Conversion:
    """Converts annotations. Everything is read and checked before anything is written.

    Args:
      source: a file or folder of one of `KINDS`.
      out: a new .csv file for "points", a new .json file for "coco"; a new or empty folder for "yolo" and "voc" (a file
        for each image) and "masks" (a PNG with 0 and 255 for each image).
      to: one of `FORMATS`.
      kind: kind of the source, or "auto" to detect it.
      radius: radius of the discs of "masks", in pixels; 0 marks one pixel for each target.
      **options: options of `read_labels`.

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
    kind = find_kind(source) if kind == "auto" else kind
    images = read_labels(source, kind, **options)
    notes = write_labels(out, images, to, radius=radius)
    numbers = [len(image.labels) for image in images]
    rules = collections.Counter(image.rule for image in images if image.rule)
    return Conversion(kind, len(images), numbers.count(0), sum(numbers), dict(rules), tuple(notes))


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
    found = {kind: files for kind in _FOLDER_KINDS if (files := _files(source, kind))}
    if len(found) > 1:
        listed = " and ".join(f"{len(files)} of {kind} ({files[0].name})" for kind, files in found.items())
        raise UserError(f"{source} mixes formats: {listed}; say which with --from, or take them apart")
    if not found:
        raise UserError(f"no image files (masks), .txt (YOLO) or .xml (VOC) files in {source}, and {reason}")
    return next(iter(found))


def read_labels(
    source: str | os.PathLike,
    kind: str,
    *,
    split: str = "all",
    layout: str = "auto",
    points: str = "centroid",
    seed: int = 0,
    connectivity: int = 8,
    images: str | os.PathLike | None = None,
    box_convention: str = "voc",
) -> list[ImageLabels]:
    """Reads annotations.

    Args:
      source: the file or folder.
      kind: one of `KINDS`.
      split: split of a data set.
      layout: layout of a data set.
      points: rule that gives the point of each target of a mask, see `irjax.labels.label_mask`.
      seed: seed of points that are drawn; the points of an image depend only on the seed and its name.
      connectivity: connectivity of the targets of a mask, 8 or 4.
      images: folder of the images that "yolo" and "points" annotate, since these formats do not state image sizes. All
        of its images are read; those without annotation have no targets.
      box_convention: for kind "voc", "voc" or "sirst_v2"; see `irjax.labels.parse_voc`.

    Returns:
      The targets of each image.

    Raises:
      MissingFileError: if there is no such file or folder.
      UserError: if an argument or a file is invalid; the message names it.
    """
    if kind not in KINDS:
        raise UsageError(f"the source must be one of {', '.join(KINDS)}, got {kind!r}")
    if points not in POINT_RULES:
        raise UsageError(f"points must be one of {', '.join(POINT_RULES)}, got {points!r}")
    if points != "centroid" and kind not in ("masks", "dataset"):
        raise UserError(f"points={points!r} are drawn inside masks, and {source} ({kind}) has none")
    if images is not None and kind not in ("yolo", "points"):
        raise UserError(f"images are wanted for yolo and points only; {source} ({kind}) says how large they are")
    if box_convention != "voc" and kind != "voc":
        raise UserError(f"a box convention is for voc, and {source} is {kind}")
    source = pathlib.Path(source)
    if not source.exists():
        raise MissingFileError(f"there is no file or folder {source}")
    if (kind in ("coco", "points")) != source.is_file():
        raise UserError(f"{source}: {kind} is a {'file' if kind in ('coco', 'points') else 'folder'}")

    def label(name: str, mask: np.ndarray) -> Labels:
        rng = None if points == "centroid" else name_rng(seed, name)
        return label_mask(mask, connectivity, points=points, rng=rng)

    if kind == "masks":
        return _read_masks(source, label)
    if kind == "dataset":
        return _read_dataset(source, split, layout, label, needs_masks=points != "centroid")
    if kind == "coco":
        return formats.read_coco_labels(source)
    if kind == "voc":
        paths = _named(source, kind)
        return [formats.parse_voc(read_bytes(path), name, path, box_convention) for name, path in paths.items()]
    files = {} if images is None else _named(pathlib.Path(images), "masks", simplify=stem)
    sizes = {name: _image_size(path) for name, path in files.items()} if files else None
    if kind == "points":
        found = formats.read_points_labels(source, sizes)
    else:
        found = _read_yolo(source, sizes)
    return [dataclasses.replace(i, file_name=files[i.name].name if i.name in files else None) for i in found]


def _read_masks(folder: pathlib.Path, label: Callable) -> list[ImageLabels]:
    found = []
    for name, path in _named(folder, "masks").items():
        mask, rule = read_mask(path)
        found.append(ImageLabels(name, label(name, mask), mask.shape, name + path.suffix, rule))
    return found


def _read_dataset(
    root: pathlib.Path, split: str, layout: str, label: Callable, *, needs_masks: bool
) -> list[ImageLabels]:
    from irjax.data import open_source

    source = open_source(root, split, layout)
    files = getattr(source, "images", None)
    found = []
    for index, name in enumerate(source.names):
        example, rule = source[index], None
        if example.mask is None:
            if needs_masks:
                raise UserError(f"{root}: {name} has points and no mask to draw other points in")
            labels = Labels(example.points)
        else:
            labels = label(name, example.mask)
            rule = source.mask_rule(index) if hasattr(source, "mask_rule") else None
        file = pathlib.Path(files[index]).name if files is not None else None
        found.append(ImageLabels(name, labels, example.image.shape, file, rule))
    return found


def _read_yolo(folder: pathlib.Path, sizes: Mapping[str, tuple[int, int]] | None) -> list[ImageLabels]:
    if sizes is None:
        raise UserError(f"{folder}: YOLO boxes are shares of the image; give the folder of the images (--images)")
    paths = _named(folder, "yolo")
    if unknown := [path for name, path in paths.items() if name not in sizes]:
        raise UserError(f"{unknown[0]}: there is no image of that name")
    found = []
    for name, size in sizes.items():
        path = paths.get(name, folder)
        with reading(path):
            text = path.read_text(encoding="utf-8") if name in paths else ""
        boxes = formats.whole_boxes(formats.parse_yolo(text, size, path))
        found.append(ImageLabels(name, Labels(box_centres(boxes), boxes), size))
    return found


def _files(folder: pathlib.Path, kind: str) -> list[pathlib.Path]:
    """Returns the files of a kind in a folder by their suffix, without hidden files, sorted."""
    with reading(folder):
        entries = list(folder.iterdir())
    found = (path for path in entries if path.suffix.lower() in _FOLDER_KINDS[kind] and path.is_file())
    return sorted(path for path in found if not path.name.startswith(".") and path.name not in _NO_LABELS)


def _named(folder: pathlib.Path, kind: str, simplify: Callable[[str], str] = core) -> dict[str, pathlib.Path]:
    """Returns {name of the image: file}; names have neither file endings nor mask suffixes."""
    check_folder(folder)
    found: dict[str, pathlib.Path] = {}
    for path in _files(folder, kind):
        name = simplify(path.name)
        if name in found:
            raise UserError(f"two files are for one image, {name}: {found[name]} and {path}")
        found[name] = path
    if not found:
        raise UserError(f"{folder} is empty: no {', '.join(_FOLDER_KINDS[kind])} files")
    return found


def _image_size(path: pathlib.Path) -> tuple[int, int]:
    """Returns (height, width), from the header alone if Pillow can read it."""
    from PIL import Image

    # Pillow raises arbitrary exceptions for damaged files.
    with contextlib.suppress(Exception), Image.open(path) as image:
        return image.size[::-1]
    return read_image(path).shape


# --- writing ----------------------------------------------------------------------------------------------------------


def write_labels(out: str | os.PathLike, images: Sequence[ImageLabels], to: str, *, radius: float = 0.0) -> list[str]:
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
        for image in images:
            if to == "voc":
                text = formats.format_voc(image)
            else:
                text = formats.format_yolo(formats.known_boxes(image), formats.known_size(image))
            (folder / f"{image.name}{_FOLDER_KINDS[to][0]}").write_text(text, encoding="utf-8")
    split = sum(np.any(boxes != np.rint(boxes)) for boxes in map(formats.known_boxes, images)) if to == "voc" else 0
    return [f"{split} images have boxes that were widened to whole pixels"] if split else []


def _write_masks(folder: pathlib.Path, images: Sequence[ImageLabels], radius: float) -> list[str]:
    from PIL import Image

    joined = []
    for image in images:
        mask = point_mask(image.labels.points, formats.known_size(image), radius)
        if len(find_regions(mask)) < len(image.labels):
            joined.append(image.name)
        Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(folder / f"{image.name}.png")
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
