"""irjax: infrared small target detection in JAX."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from irjax.errors import UserError

if TYPE_CHECKING:
    from irjax.inference import Detector

__version__ = "0.1.0"

# Imported when first asked for, so that `import irjax` stays quick.
_PARTS = (
    *("baselines", "convert", "data", "datasets", "inference", "layers", "losses", "metrics", "models", "ops"),
    *("reports", "targets", "training", "types", "weights"),
)

__all__ = ["UserError", "__version__", "load"]


def load(name_or_path: str | os.PathLike, **overrides: Any) -> Detector:
    """A ready detector from shipped weights, a run directory, or a weight file; see `irjax.inference.load`."""
    from irjax import inference

    return inference.load(name_or_path, **overrides)


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return importlib.import_module(f"irjax.{name}")
    raise AttributeError(f"module 'irjax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PARTS})
