"""Sequences: which images are frames of one recording, in which order, and which files hold several.

Frames of one sequence are near-copies. So a drawn validation list takes whole sequences, and tables of predictions say
which frame of which sequence an image is. A sequence is

- a file with several images: a video, or the pages of a TIFF, GIF, WebP, NumPy or MATLAB file, called NAME_0001, ...;
- a folder whose images are called alike but for one number, if it is counted itself, by a number or a letter, and
  another one like it counts the same numbers: ``1/0001``, ``1/0002``, ``2/0001``, ``2/0002``; ``seq_a/f7``,
  ``seq_b/f7``, and so on. Folders of classes (``sky/0001``, ``sea/0001``) are no sequences, nor are folders that share
  out the numbers of one set, nor is a folder alone;
- any folder, where the layout of a data set or a flag says so.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence

from irjax.errors import MissingPackageError, UserError, note
from irjax.io import video
from irjax.io.headers import frame_count
from irjax.io.images import IMAGE_SUFFIXES, Frame
from irjax.io.lists import index_files
from irjax.io.names import name_list, without_container, without_ending

_DIGITS = re.compile(r"(\d+)")
_COUNT = re.compile(r"\d+|(?<![^\W\d_])[^\W\d_]$|(?<=[a-z])[A-Z]$")  # 41 of seq41; the letter of b, seq_b, seqB


@dataclasses.dataclass(frozen=True)
class Place:
    """The place of an image in a sequence.

    Attributes:
      sequence: name of the sequence, by which tables call it.
      frame: number of the frame: the page from 1, or the number in the file's name; where that does not tell, the
        position in the folder, from 1.
      origin: the file or folder that holds the sequence, which identifies it.
    """

    sequence: str
    frame: int
    origin: str


def places(files: Mapping[str, str | os.PathLike | Frame], *, folders: bool = False) -> dict[str, Place]:
    """Finds the images that are frames of sequences.

    Args:
      files: {name of an image: its file}.
      folders: whether every folder is a sequence, whatever its images are called.

    Returns:
      {name: its place}, for the frames alone, in the order of `files`.
    """
    found: dict[str, Place] = {}
    single: dict[str, list[str]] = collections.defaultdict(list)
    for name, file in files.items():
        if isinstance(file, Frame) and file.page >= 0:
            before, _, after = name.rpartition(page_mark(file.page))
            found[name] = Place(before + after, file.page + 1, file.path)
        else:
            single[os.path.dirname(os.fspath(file)) or os.curdir].append(name)
    numbers = {origin: _numbers(names) for origin, names in single.items()}
    if not folders:
        kinds = {origin: (_COUNT.sub("#", _folder(origin)), numbers[origin][0]) for origin in single}
        counted = collections.Counter((kinds[origin], number) for origin in single for number in numbers[origin][1])
        single = {
            origin: names
            for origin, names in single.items()
            if "#" in kinds[origin][0] and any(counted[kinds[origin], number] > 1 for number in numbers[origin][1])
        }
    for origin, names in single.items():
        own = numbers[origin][1] or _positions(names)
        for name, number in zip(names, own, strict=True):
            folder = without_container(name).rpartition("/")[0] or pathlib.Path(origin).resolve().name
            found[name] = Place(folder, number, origin)
    return {name: found[name] for name in files if name in found}


def places_of_names(names: Iterable[str]) -> dict[str, Place]:
    """Finds the images that are frames in folders by their names alone, with ``/`` between folders; see `places`."""
    return places({name: name for name in names if "/" in name})


def counted_alike(names: Iterable[str]) -> bool:
    """Returns whether the names of a folder differ in one number alone, as those of frames do."""
    names = list(names)
    return len(names) < 2 or bool(_numbers(names)[1])


def page_mark(page: int) -> str:
    """Returns what the name of a page, counted from 0, ends with."""
    return f"_{page + 1:04d}"


def _folder(origin: str) -> str:
    """Returns the name of a folder of images; that of the folder above if it only says that it holds images."""
    *_, folder, _ = without_container(f"{pathlib.Path(origin).as_posix()}/").split("/")
    return folder


def _numbers(names: Sequence[str]) -> tuple[str, list[int]]:
    """Returns what the names of a folder have in common and the number in which each differs; "" and [] if none."""
    parts = [_DIGITS.split(without_ending(name).rpartition("/")[2]) for name in names]
    if len(names) < 2 or len({tuple(part[0::2]) for part in parts}) > 1:
        return "", []
    columns = [[int(part[place]) for part in parts] for place in range(1, len(parts[0]), 2)]
    varying = [column for column in columns if len(set(column)) > 1]
    if len(varying) != 1 or len(set(varying[0])) < len(names):
        return "", []
    return "#".join(parts[0][0::2]), varying[0]


def _positions(names: Sequence[str]) -> list[int]:
    """Returns the positions of names from 1, with numbers in them in the order of their values."""

    def natural(name: str) -> list[str | int]:
        return [int(part) if place % 2 else part for place, part in enumerate(_DIGITS.split(name))]

    order = {name: position for position, name in enumerate(sorted(names, key=natural), 1)}
    return [order[name] for name in names]


# --- files with several images ----------------------------------------------------------------------------------------


def readable(files: Sequence[pathlib.Path], where: str | os.PathLike) -> list[pathlib.Path]:
    """Returns the files without videos that cannot be read for want of a package, which a note counts.

    Raises:
      MissingPackageError: if no other file would be left.
    """
    videos = [] if video.available() else [file for file in files if video.is_video(file)]
    if not videos:
        return list(files)
    listed = name_list([file.name for file in videos])
    text = f"{len(videos)} videos are left out, since what reads them is not installed ({video.HOW}): {listed}"
    if len(videos) == len(files):
        raise MissingPackageError(f"{os.fspath(where)}: {text}")
    note(text, where)
    return [file for file in files if file not in set(videos)]


def expand(file: pathlib.Path, name: str, key: str | None = None) -> dict[str, pathlib.Path | Frame]:
    """Returns the images of a file by name: the file, or its frames.

    Args:
      file: an image file.
      name: its name, with or without ending; that of a frame is NAME_0001 with the same ending.
      key: name of the variable in a MATLAB file; None for the only array.
    """
    key = key if file.suffix.lower() == ".mat" else None
    count = frame_count(file, key)
    if count == 1:
        return {name: file if key is None else Frame(os.fspath(file), -1, key)}
    bare = without_ending(name)
    ending = name[len(bare) :]
    return {f"{bare}{page_mark(page)}{ending}": Frame(os.fspath(file), page, key) for page in range(count)}


def file_name(name: str, file: str | os.PathLike | Frame) -> str:
    """Returns the name of an image's file, without folders; of a frame, the name that a file of its own would have."""
    path = pathlib.PurePath(file)
    return name.rpartition("/")[2] + path.suffix if isinstance(file, Frame) and file.page >= 0 else path.name


def index_images(
    folder: str | os.PathLike, suffixes: Sequence[str] = IMAGE_SUFFIXES, *, nested: bool = True
) -> dict[str, pathlib.Path | Frame]:
    """Returns the images of a folder by name, frames of files with several included; see `index_files`.

    Raises:
      MissingFileError: if there is no such folder.
      MissingPackageError: if it holds nothing but videos and these cannot be read.
      UserError: if two images have the same name.
    """
    files = index_files(folder, suffixes, nested=nested)
    kept = set(readable(list(files.values()), folder)) if files else set()
    found: dict[str, pathlib.Path | Frame] = {}
    for name, file in files.items():
        if file not in kept:
            continue
        for image, place in expand(file, name).items():
            if image in found:
                raise UserError(f"two images have one name: {found[image]} and {place}")
            found[image] = place
    return found
