"""The progress bar of everything that may take seconds."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

DELAY = 2.0  # seconds before a bar appears


def bar(items: Iterable[T], what: str, *, total: int | None = None, unit: str = "image") -> Iterator[T]:
    """Yields the items; a terminal on stderr shows a bar of them after `DELAY` seconds, which goes at the end.

    Args:
      items: what is worked on.
      what: what is done, as the bar is called.
      total: the number of items, where they do not tell.
      unit: what an item is.
    """
    if not sys.stderr.isatty():
        yield from items
        return
    from tqdm import tqdm

    shown = {"file": sys.stderr, "leave": False, "delay": DELAY, "unit": unit, "dynamic_ncols": True}
    yield from tqdm(items, what, total, **shown)
