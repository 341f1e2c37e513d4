"""Seeded draws of splits from names. Frames of one sequence are near-copies, so they are drawn together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from irjax.errors import UserError
from irjax.ops.keys import purpose_generator


def carve_validation(
    names: Iterable[str], fraction: float = 0.2, seed: int = 0, sequences: Mapping[str, str] | None = None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Splits names into train and validation by a seeded draw that does not depend on their order.

    Args:
      names: at least two names.
      fraction: fraction of the validation part, in (0, 1); each part gets at least one name.
      seed: seed of the draw.
      sequences: {name: its sequence}, for names that are frames; those of one sequence are drawn together, so that the
        fraction is met as closely as the lengths of the sequences that are drawn allow.

    Returns:
      (train, val), each in the order of `names`.

    Raises:
      UserError: if there are fewer than two names, or all are of one sequence, or the fraction is outside (0, 1).
    """
    names = tuple(names)
    if len(names) < 2:
        raise UserError(f"a validation split can be carved from two names or more, got {len(names)}")
    if not 0 < fraction < 1:
        raise UserError(f"the validation fraction must be between 0 and 1, got {fraction}")
    drawn = units(names, sequences)
    if len(drawn) < 2:
        raise UserError(f"no validation split can be carved from the {len(names)} frames of one sequence")
    order = np.random.default_rng(seed).permutation(len(drawn))
    end = _ends(drawn, order, [round(fraction * len(names))])[0]
    chosen = {name for index in order[: min(max(end, 1), len(drawn) - 1)] for name in drawn[index]}
    return tuple(n for n in names if n not in chosen), tuple(n for n in names if n in chosen)


def draw_splits(
    names: Iterable[str], shares: Sequence[float], seed: int = 0, sequences: Mapping[str, str] | None = None
) -> tuple[tuple[str, ...], ...]:
    """Splits names into parts by a seeded draw that does not depend on their order.

    Args:
      names: unique names, at least as many as shares.
      shares: relative sizes of the parts, positive, in any unit, such as (50, 30, 20).
      seed: seed of the draw; not negative.
      sequences: as in `carve_validation`.

    Returns:
      The names of each part, sorted; together, the parts contain all names.

    Raises:
      UserError: if a share is not positive, the seed is negative, or a part would be empty.
    """
    drawn = units(sorted(names), sequences)
    count = sum(map(len, drawn))
    if seed < 0 or not len(shares) or min(shares) <= 0:
        raise UserError(f"a draw needs positive shares and a seed that is not negative, got {tuple(shares)} and {seed}")
    order = purpose_generator("draw", seed).permutation(len(drawn))
    ends = _ends(drawn, order, np.rint(np.cumsum(shares) / np.sum(shares) * count).astype(int).tolist())
    if min(np.diff(ends, prepend=0)) < 1:
        what = f"{count} images" + (f" in {len(drawn)} sequences" if len(drawn) < count else "")
        raise UserError(f"{what} cannot be split into parts of {tuple(shares)}: one would be empty")
    return tuple(tuple(sorted(name for index in part for name in drawn[index])) for part in np.split(order, ends[:-1]))


def units(names: Iterable[str], sequences: Mapping[str, str] | None = None) -> list[tuple[str, ...]]:
    """Returns the names that are drawn together: those of each sequence, and each other name alone; sorted."""
    found: list[list[str]] = []
    of_sequence: dict[str, list[str]] = {}
    for name in sorted(names):
        sequence = (sequences or {}).get(name)
        unit = [] if sequence is None else of_sequence.setdefault(sequence, [])
        if not unit:
            found.append(unit)
        unit.append(name)
    return [tuple(unit) for unit in found]


def _ends(drawn: Sequence[Sequence[str]], order: np.ndarray, wanted: Sequence[int]) -> list[int]:
    """Returns after how many of the drawn units the number of their names is closest to each of those wanted."""
    reached = np.cumsum([0, *(len(drawn[index]) for index in order)])
    return [int(np.argmin(np.abs(reached - count))) for count in wanted]
