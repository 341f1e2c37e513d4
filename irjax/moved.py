"""Deprecated aliases for names that have moved; kept for one version."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any


def moved(module: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """Returns the ``__getattr__`` of a module whose names have moved; using them emits a DeprecationWarning.

    Args:
      module: its ``__name__``.
      names: {name: new location as ``MODULE:NAME``}.
    """

    def getattribute(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        place, _, new = names[name].partition(":")
        message = f"{module}.{name} is {place}.{new} now; the old name goes with the next version"
        warnings.warn(message, DeprecationWarning, stacklevel=2)
        return getattr(importlib.import_module(place), new)

    return getattribute
