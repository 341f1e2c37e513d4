"""Which pixels of mask files are target: one rule for a set of masks, found from the levels that occur.

| levels | target |
|---|---|
| two, of a lossless file by itself or of the set | the upper one |
| of the set 0, 1, ..., n without a gap, n at least 2 | above 0: numbers of instances |
| others | above half of the set's highest: gray borders, as of JPEG files and of IRSTD-1K (METRICS, flaw 5); where the
lowest is above that, above the middle of the two |

Levels are gray values; of a file with a palette of colours its indices; of colours the brightest channel, since with
luma a red target (76 of 255) would fall below one half; of an image whose colours are constant its alpha.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterable

import numpy as np

from irjax.errors import UserError, note
from irjax.io.images import VIDEO_SUFFIXES, Frame, decode, read_stored

_LOSSY = (".jpg", ".jpeg", ".webp", *VIDEO_SUFFIXES)


@dataclasses.dataclass(frozen=True)
class MaskRule:
    """How levels become target and background.

    Attributes:
      name: the rule in words.
      above: a pixel is target where its level is above this.
      gray: whether there are levels between, so that the targets depend on `above`.
    """

    name: str
    above: float
    gray: bool = False

    def apply(self, levels: np.ndarray) -> np.ndarray:
        """Returns the mask [H, W] bool of levels [H, W]."""
        return levels > self.above


@dataclasses.dataclass(frozen=True)
class MaskSet:
    """The mask files of one set, which one rule makes binary; reads files on access.

    Attributes:
      paths: paths of the files, or frames of files with several masks.
    """

    paths: tuple[str | Frame, ...]

    def read(self, path: str | os.PathLike) -> tuple[np.ndarray, MaskRule]:
        """Reads one mask of the set.

        Returns:
          The mask [H, W] bool, and the rule.

        Raises:
          MissingFileError: if there is no such file.
          UserError: if it cannot be read, or the set has no two levels (see `mask_rule`); the message names it.
        """
        levels = read_levels(path)
        rule = self.rule_of(path, levels)
        return rule.apply(levels), rule

    def rule_of(self, path: str | os.PathLike, levels: np.ndarray) -> MaskRule:
        """Returns the rule of one mask: its own if its levels are two, else that of the set; errors of `rule`."""
        lossy = os.fspath(path).lower().endswith(_LOSSY)  # two levels may be noise on nothing
        return (None if lossy else clear_rule(levels)) or self.rule

    @functools.cached_property
    def rule(self) -> MaskRule:
        """The rule of the set; reads every file.

        Raises:
          UserError: see `mask_rule`.
        """
        found: set[float] = set()
        for path in self.paths:
            with contextlib.suppress(UserError):  # whoever needs this file is told
                found.update(_occurring(read_levels(path)))
        more = f" and {len(self.paths) - 1} more" if self.paths[1:] else ""
        return mask_rule(found, f"{self.paths[0]}{more}" if self.paths else "no mask files")


def read_mask(path: str | os.PathLike) -> tuple[np.ndarray, str]:
    """Reads one target mask by itself: the file is its own set.

    Args:
      path: an image file.

    Returns:
      The mask [H, W] bool, and the rule in words (`irjax.io.masks`).

    Raises:
      MissingFileError: if there is no such file.
      UserError: if it cannot be read, or has one level that is not 0; the message names the file.
    """
    return _by_itself(read_levels(path), path)


def decode_mask(data: bytes, where: str | os.PathLike) -> tuple[np.ndarray, str]:
    """Decodes one mask as `read_mask` does, from the bytes of a file; `where` names it in errors."""
    return _by_itself(levels_of(decode(data, where, indices=True), where), where)


def _by_itself(levels: np.ndarray, where: str | os.PathLike) -> tuple[np.ndarray, str]:
    rule = clear_rule(levels) or mask_rule(_occurring(levels), os.fspath(where))
    return rule.apply(levels), rule.name


def read_levels(path: str | os.PathLike | Frame) -> np.ndarray:
    """Reads the levels [H, W] of a mask file or of one of its frames, bool or of its numeric type.

    Raises:
      MissingFileError: if there is no such file.
      UserError: if it cannot be read; the message names the file.
    """
    return levels_of(read_stored(path, indices=True), str(path))


def levels_of(values: np.ndarray, where: str | os.PathLike = "") -> np.ndarray:
    """Returns the levels [H, W] of stored values [H, W] or [H, W, C]; the 2nd or 4th channel is alpha.

    Levels that are not finite become nan, which no rule takes for target, with a `Note`.

    Raises:
      UserError: if none is finite; the message names the file, `where`.
    """
    levels = _one_channel(values)
    if levels.dtype.kind != "f" or (finite := np.isfinite(levels)).all():
        return levels
    if not finite.any():
        raise UserError(f"{os.fspath(where)}: no pixel of the mask has data")
    note("pixels of masks without data are background", where)
    return np.where(finite, levels, np.nan)


def _one_channel(values: np.ndarray) -> np.ndarray:
    if values.ndim == 2:
        return values
    colours = values if values.shape[2] in (1, 3) else values[..., :-1]
    if colours.shape[2] < values.shape[2] and np.ptp(colours, axis=(0, 1)).max(initial=0) == 0:
        return values[..., -1]
    return colours.max(axis=2)


def clear_rule(levels: np.ndarray) -> MaskRule | None:
    """Returns the rule of a file whose levels are two, or all 0; None where the other files of the set decide."""
    if levels.dtype == np.bool_:
        return MaskRule("1 bit", 0.5)
    found = _occurring(levels)
    return mask_rule(found, "mask") if len(found) == 2 or found == [0.0] else None


def _occurring(levels: np.ndarray) -> list[float]:
    """Returns the finite levels that occur, in ascending order."""
    if levels.dtype == np.uint8:
        return np.flatnonzero(np.bincount(levels.ravel(), minlength=256)).astype(float).tolist()
    found = np.unique(levels).astype(float)
    return found[np.isfinite(found)].tolist()


def mask_rule(levels: Iterable[float], where: str) -> MaskRule:
    """Returns the rule of a set of masks.

    Args:
      levels: the levels that occur in the set.
      where: names the set in errors.

    Raises:
      UserError: if there is one level only and it is not 0, so that nothing tells background from target.
    """
    found = sorted({float(level) for level in levels})
    if found == [0.0]:
        return MaskRule("all 0: no targets", 0.0)
    if not found:
        raise UserError(f"{where}: none of the masks can be read")
    if len(found) < 2:
        raise UserError(f"{where}: every pixel of the masks is {found[0]:g}; background and target must be two levels")
    if len(found) == 2:
        return MaskRule(f"two levels, {found[0]:g} and {found[1]:g}", sum(found) / 2)
    if found == [float(number) for number in range(len(found))]:
        return MaskRule(f"instances 1 to {len(found) - 1}", 0.5)
    if 2 * found[0] > found[-1]:
        return MaskRule(f"above the middle of {found[0]:g} and {found[-1]:g}", (found[0] + found[-1]) / 2, gray=True)
    return MaskRule(f"above half of {found[-1]:g}", found[-1] / 2, gray=True)
