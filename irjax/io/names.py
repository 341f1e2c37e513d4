"""Matches predictions to images by name, when programs name them differently."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from irjax.errors import UserError

_ENDINGS = re.compile(r"\.(png|bmp|tiff?|jpe?g|webp|npy|npz|mat|xml|txt|json)$", re.IGNORECASE)
_SUFFIXES = re.compile(r"_(pixels0|mask|gt|pred)$", re.IGNORECASE)


def stem(name: str) -> str:
    """Removes folders and the extension of an image or array file: ``a/Misc_1.png`` -> ``Misc_1``."""
    return _ENDINGS.sub("", re.split(r"[/\\]", name)[-1])


def core(name: str) -> str:
    """Returns `stem` without the suffixes that data sets give to masks: ``Misc_1_pixels0.png`` -> ``Misc_1``."""
    return _SUFFIXES.sub("", stem(name))


def safe_name(name: str | os.PathLike) -> str:
    """Makes a name safe as part of a file name: keeps letters, digits and ``-_.``, replaces the rest by ``_``."""
    return "".join(char if char.isalnum() or char in "-_." else "_" for char in pathlib.PurePath(name).as_posix())


@dataclasses.dataclass(frozen=True)
class NameMatch:
    """Predictions assigned to images.

    Attributes:
      prediction_of: {image name: prediction name}, for the images with a prediction.
      without_prediction: names of the images without a prediction, in order.
      unknown: names of the predictions without an image, in order.
    """

    prediction_of: Mapping[str, str]
    without_prediction: tuple[str, ...]
    unknown: tuple[str, ...]


def match_names(predictions: Iterable[str], images: Sequence[str]) -> NameMatch:
    """Assigns predictions to images by full name, else without folder and extension, else without mask suffixes.

    Args:
      predictions: names in the prediction set.
      images: names in the data set.

    Returns:
      The assignment and the names left over on either side.

    Raises:
      UserError: if two predictions belong to one image, or a prediction could belong to several images.
    """
    rules: tuple[Callable[[str], str], ...] = (str, stem, core)
    indices: list[dict[str, list[str]]] = []
    for simplify in rules:
        index: dict[str, list[str]] = {}
        for name in images:
            index.setdefault(simplify(name), []).append(name)
        indices.append(index)
    assigned: dict[str, str] = {}
    unknown = []
    for name in predictions:
        for simplify, index in zip(rules, indices, strict=True):
            found = index.get(simplify(name), [])
            if found:
                break
        if not found:
            unknown.append(name)
            continue
        if len(found) > 1:
            raise UserError(f"prediction {name!r} could belong to several images: {', '.join(found[:5])}")
        if found[0] in assigned:
            raise UserError(f"image {found[0]!r} has two predictions: {assigned[found[0]]!r} and {name!r}")
        assigned[found[0]] = name
    return NameMatch(assigned, tuple(name for name in images if name not in assigned), tuple(unknown))


def name_list(names: Sequence[str], count: int = 5) -> str:
    """Formats the first `count` names, and how many more there are, for messages."""
    return ", ".join(names[:count]) + (f" and {len(names) - count} more" if len(names) > count else "")


def first_repeated(names: Iterable[str]) -> str | None:
    """Returns the first name that has occurred before; None if all names are unique."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
