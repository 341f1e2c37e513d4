"""Folders and split lists: which files of a folder count, and which file a line of a list means.

A list has one image a line, in any of the forms that programs write: a name with or without ending, a path with folders
(`/` or `\\`), a drive letter or a leading `./`, or a pair of an image and its mask. It is UTF-8 or UTF-16.
"""

from __future__ import annotations

import codecs
import contextlib
import dataclasses
import logging
import os
import pathlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from irjax.bars import bar
from irjax.errors import FileError, UserError, check_folder, reading
from irjax.io import names
from irjax.io.images import IMAGE_SUFFIXES

_logger = logging.getLogger(__name__)

MASK_SUFFIXES = ("", "_pixels0", "_mask", "_gt")  # the mask of NAME is called NAME and one of these

NO_LABELS = ("classes.txt",)  # files that labelling programs write beside YOLO's

T = TypeVar("T")

_SKIP = "; --skip-bad (skip_bad=True) leaves such images out"  # ends the errors about one image or its annotation
_BETWEEN = re.compile(r"\s*[,;\t]\s*|\s+")
_BOMS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


# --- folders ----------------------------------------------------------------------------------------------------------


def index_files(
    folder: str | os.PathLike, suffixes: Sequence[str] = IMAGE_SUFFIXES, *, nested: bool = True
) -> dict[str, pathlib.Path]:
    """Returns the files of a folder by name, in sorted order; hidden files do not count.

    If the folder itself contains no such file, those below its subfolders are used. A name is the path below the folder
    without ending, with ``/`` between folders (`irjax.io.names`).

    Args:
      folder: the folder.
      suffixes: endings of the files, in lower case.
      nested: whether subfolders count.

    Raises:
      MissingFileError: if there is no such folder.
      UserError: if two files have the same name.
    """
    folder = check_folder(folder)
    with reading(folder):
        files = files_among(folder.iterdir(), suffixes)
        files = files or (files_among(folder.rglob("*"), suffixes) if nested else [])
    found: dict[str, pathlib.Path] = {}
    for path in files:
        name = path.relative_to(folder).with_suffix("").as_posix()
        if name in found:
            raise UserError(f"two files have one name: {found[name]} and {path}")
        found[name] = path
    return found


def files_among(paths: Iterable[pathlib.Path], suffixes: Sequence[str]) -> list[pathlib.Path]:
    """Returns the paths that have one of the endings (in lower case) and are not hidden, sorted."""
    return sorted(path for path in paths if path.suffix.lower() in suffixes and not path.name.startswith("."))


def path_parts(text: str) -> tuple[str, ...]:
    r"""Returns the folders and the file of a path as any system writes it: ``D:\x\.\a.png`` -> x, a.png."""
    return tuple(part for part in names.posix(text.strip()).split("/") if part not in ("", ".", ".."))


# --- which file a path means ------------------------------------------------------------------------------------------


class Resolver:
    """Finds the image that a path or name in a list means, by its folders from the end, whatever the ending.

    A path means an image if one's parts, read from the end, are the other's: `D:/set/images/a.png` means `a`, `1.png`
    means `7/1`; `6/1.png` does not. Case counts only where it decides.
    """

    def __init__(self, known: Iterable[str], sequences: Mapping[str, str] | None = None):
        """Takes the names of the images, as `index_files` gives them, and the sequences of those that are frames."""
        self._parts = {name: tuple(name.split("/")) for name in known}
        self._by_stem: dict[str, list[str]] = {}
        self._joined: dict[str, list[str]] = {}
        for name, parts in self._parts.items():
            self._by_stem.setdefault(_fold(parts[-1]), []).append(name)
            self._joined.setdefault(_fold("_".join(parts)), []).append(name)
        self._sequences: dict[str, list[str]] = {}
        for name, sequence in (sequences or {}).items():
            self._sequences.setdefault(sequence, []).append(name)

    def frames(self, text: str) -> list[str]:
        """Returns the images of the sequence that a path or name means; none if it means none.

        Raises:
          UserError: if it could mean several; the message has no file.
        """
        sequence = Resolver(self._sequences)(text) if self._sequences else None
        return [] if sequence is None else self._sequences[sequence]

    def __call__(self, text: str) -> str | None:
        """Returns the name that a path means, or None if there is none.

        Raises:
          UserError: if it could mean several; the message has no file.
        """
        *folders, file = path_parts(text) or ("",)
        # A name such as a.tif of a file a.tif.png looks like a file itself.
        paths = ["/".join((*folders, last)) for last in dict.fromkeys((names.without_ending(file), file))]
        for forms in (paths, [names.without_container(path) for path in paths]):
            whole = [form for form in forms if form in self._parts]
            found = whole or [name for form in forms if (name := self._find(tuple(form.split("/")), text)) is not None]
            if len(set(found)) > 1:
                raise UserError(f"{text} could mean {' or '.join(found)}")
            if found:
                return found[0]
        return None

    def __contains__(self, name: str) -> bool:
        return name in self._parts

    def _find(self, parts: tuple[str, ...], text: str) -> str | None:
        key = tuple(map(_fold, parts))
        found = [name for name in self._by_stem.get(key[-1], []) if _same_end(key, map(_fold, self._parts[name]))]
        found = [name for name in found if _same_end(parts, self._parts[name])] or found
        longest = max((len(self._parts[name]) for name in found), default=0)
        found = [name for name in found if len(self._parts[name]) >= min(longest, len(parts))]
        found = found or self._joined.get("_".join(key), [])  # how irjax named images in folders before
        if len(found) > 1:
            raise UserError(f"{text} could mean {' or '.join(found[:3])}")
        return found[0] if found else None


def _fold(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


def _same_end(one: tuple[str, ...], other: Iterable[str]) -> bool:
    """Returns whether two paths agree from their ends, as far as the shorter one goes."""
    return all(a == b for a, b in zip(reversed(one), reversed(tuple(other)), strict=False))


# --- images that cannot be used ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def naming_flag() -> Iterator[None]:
    """Says in errors about one image how to leave it out."""
    try:
        yield
    except UserError as error:
        raise type(error)(str(error).removesuffix(_SKIP) + _SKIP) from error


def read_each(keys: Iterable[str], read: Callable[[str], T], *, skip_bad: bool) -> tuple[list[T], list[str]]:
    """Reads images one by one.

    Args:
      keys: what to read.
      read: reads one.
      skip_bad: whether images that `read` refuses are left out.

    Returns:
      What was read, and what was wrong with the images that are left out.

    Raises:
      UserError: of the first image that is refused, with the way to leave it out, unless `skip_bad`.
    """
    found, skipped = [], []
    for key in bar(keys, "reading"):
        try:
            with naming_flag():
                found.append(read(key))
        except UserError as error:
            if not skip_bad:
                raise
            skipped.append(str(error).removesuffix(_SKIP))
            _logger.info("left out: %s", skipped[-1])
    return found, skipped


# --- lists ------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ImageList:
    """A split list whose lines were looked up.

    Attributes:
      names: the images, in the order of the list; a line without an image is kept as it is written, without its ending.
      masks: image -> mask, for the lines that name both.
      problems: name -> "FILE, line N: what is wrong", for the lines that mean no image.
    """

    names: tuple[str, ...]
    masks: Mapping[str, str]
    problems: Mapping[str, str]


def read_lines(path: str | os.PathLike) -> list[tuple[int, str]]:
    """Reads the lines of a text file in UTF-8 or UTF-16, with their numbers from 1, stripped; blank ones are left out.

    Raises:
      MissingFileError: if there is no such file.
      FileError: if it is in another encoding; the message names the file and the line.
    """
    with reading(path):
        data = pathlib.Path(path).read_bytes()
    text = decode_text(data, path)
    lines = ((number, line.strip()) for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1))
    return [(number, line) for number, line in lines if line]


def decode_text(data: bytes, where: str | os.PathLike) -> str:
    """Decodes text in UTF-8 or UTF-16, with or without a byte order mark; `where` names the file in errors.

    Raises:
      FileError: if it is neither; the message names the file and the line.
    """
    encoding = "utf-8-sig"
    if data.startswith(_BOMS):
        encoding = "utf-16"
    elif b"\0" in data:  # UTF-16 without its mark: in the right order it has ends of lines and other plain characters
        either = {order: data.decode(order, errors="replace") for order in ("utf-16-le", "utf-16-be")}
        encoding = max(either, key=lambda order: (either[order].count("\n"), sum(map(str.isascii, either[order]))))
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = len(re.findall(rb"\r\n|\r|\n", data[: error.start])) + 1
        raise FileError(
            f"{os.fspath(where)}: not a text file in UTF-8 or UTF-16 (line {line}: {error.reason}); save it as UTF-8"
        ) from error


def read_list(path: str | os.PathLike, images: Resolver, masks: Resolver | None = None) -> ImageList:
    """Reads a split list.

    A line is an image; an image and its mask; several images, separated by commas or spaces; or a sequence, which
    means all of its frames. A line that begins with ``#`` is a comment, unless that is how an image is called.

    Args:
      path: the list.
      images: finds images.
      masks: finds masks, for lines with two paths; None if there are none.

    Raises:
      MissingFileError: if there is no such file.
      FileError: if it is no text in UTF-8 or UTF-16.
    """
    listed: list[str] = []
    paired: dict[str, str] = {}
    problems: dict[str, str] = {}
    for number, line in read_lines(path):
        try:
            found = _meaning(line, images, masks)
            if found is None and line.startswith("#"):
                continue
            if found is None:
                raise UserError(f"no image is called {line}")
        except UserError as error:
            *folders, file = path_parts(line) or (line,)
            listed.append("/".join((*folders, names.without_ending(file))))
            problems.setdefault(listed[-1], f"{os.fspath(path)}, line {number}: {error}")
            continue
        listed.extend(name for name, _ in found)
        paired.update((name, mask) for name, mask in found if mask is not None)
    return ImageList(tuple(listed), paired, problems)


def _meaning(line: str, images: Resolver, masks: Resolver | None) -> list[tuple[str, str | None]] | None:
    """Returns the images of a line, each with its mask if the line names one; None if it means nothing."""
    gaps = [(line[: gap.start()], line[gap.end() :]) for gap in _BETWEEN.finditer(line)]
    gaps = [] if line in images or names.without_ending(line) in images else gaps
    # Two files have two endings; what follows the first is no folder of the second.
    if not any(names.without_ending(left) != left for left, _ in gaps) and (whole := images(line)) is not None:
        return [(whole, None)]
    fields = _BETWEEN.split(line)
    if len(fields) > 1 and all(len(path_parts(field)) == 1 for field in fields):
        several = [images(field) for field in fields]
        if None not in several and len(set(several)) == len(fields):
            return [(name, None) for name in several if name is not None]
    for left, right in gaps:
        image, mask = images(left), (masks or images)(right)
        if image is not None and mask is not None:
            if mask not in (image + suffix for suffix in MASK_SUFFIXES) and (other := _image_of(mask, images)):
                raise UserError(f"{line} pairs {image} with the mask of {other}")
            return [(image, mask if masks is not None else None)]
    return [(name, None) for name in images.frames(line)] or None


def _image_of(mask: str, images: Resolver) -> str | None:
    """Returns the image whose mask has this name, or None."""
    cores = (mask.removesuffix(suffix) for suffix in MASK_SUFFIXES)
    return next((found for core in cores if (found := images(core)) is not None), None)
