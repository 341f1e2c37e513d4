"""Run-length encoded masks, as COCO has them: how many pixels are alternately background and target, column by column.

Counts are a list, or text of 6-bit characters from "0" on: five bits of a number each, the lowest first, the sixth bit
where more follow; the last one's fifth bit is the sign. From the fourth count on, the text has the difference from the
count two before (COCO API, maskApi.c).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from irjax.errors import UserError


def decode_run_lengths(counts: Sequence[int] | str, size: tuple[int, int]) -> np.ndarray:
    """Returns the mask [H, W] bool of COCO's counts.

    Args:
      counts: numbers of pixels from the top left corner downwards, the first of background; or their text.
      size: (H, W).

    Raises:
      UserError: if the counts are not those of a mask of this size.
    """
    runs = _counts_of(counts) if isinstance(counts, str) else list(counts)
    if not all(type(run) is int and run >= 0 for run in runs):
        raise UserError("run lengths must be whole numbers of at least 0")
    if sum(runs) != size[0] * size[1]:
        raise UserError(f"run lengths of {sum(runs)} pixels, and {size[1]}x{size[0]} is {size[0] * size[1]}")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(size[1], size[0]).T


def _counts_of(text: str) -> list[int]:
    counts: list[int] = []
    number = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise UserError(f"run lengths have the character {character!r}")
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        number -= (bits & 16) << (shift - 4)
        counts.append(number + (counts[-2] if len(counts) > 2 else 0))
        number = shift = 0
    if shift:
        raise UserError("run lengths end within a number")
    return counts
