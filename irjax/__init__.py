"""irjax: infrared small target detection in JAX."""

from __future__ import annotations

import importlib
import logging
import os
from typing import TYPE_CHECKING, Any

from irjax.errors import UserError

if TYPE_CHECKING:
    from irjax.detector.detector import Detector

__version__ = "0.2.0"

# What happens in the background is logged here, and nothing is printed unless a program asks; `irjax -v` does.
logging.getLogger(__name__).addHandler(logging.NullHandler())

# Imported on first access, so that `import irjax` stays fast.
_PARTS = (
    *("baselines", "convert", "data", "datasets", "detector", "evaluation", "inference", "io", "labels", "layers"),
    *("losses", "methods", "metrics", "models", "ops", "reports", "studies", "targets", "training", "types", "weights"),
)

__all__ = ["UserError", "__version__", "load"]


def load(name_or_path: str | os.PathLike, **overrides: Any) -> Detector:
    """Returns a detector of a name, run, weight file or ``hf:OWNER/NAME``; see `irjax.detector.loading.load`."""
    from irjax.detector import loading

    return loading.load(name_or_path, **overrides)


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return importlib.import_module(f"irjax.{name}")
    raise AttributeError(f"module 'irjax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PARTS})
