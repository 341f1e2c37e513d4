"""The configuration of a detector."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from irjax.errors import UsageError, UserError
from irjax.io.images import MIN_SIDE
from irjax.methods.method import Method, network_options
from irjax.methods.registry import find_method
from irjax.ops.normalize import NORMALIZATIONS
from irjax.ops.windows import check_slide

CONFIG_FILE = "detector.json"


@dataclasses.dataclass(frozen=True)
class DetectorConfig:
    """Everything about a detector except its weights; saved next to them as JSON.

    Attributes:
      method: name of the method (`irjax.methods.method_names`).
      model: fields of the method's module that differ from its defaults, as JSON values.
      size: side S of the letterboxed square in pixels; a multiple of what the network requires.
      channels: input channels of the network, 1 or 3 equal ones.
      normalization: name in `irjax.ops.normalize`.
      threshold: detections have scores above it; for a segmentation network, their pixels have probabilities above it.
      max_detections: N, the largest number of points in an image.
      relative_threshold: see `irjax.ops.peaks.decode_heatmap`.
      enlarge: scale images smaller than the square up to it instead of keeping their resolution.
      slide: cover images larger than the square by overlapping squares at their own resolution instead of scaling them
        down; without `enlarge`.

    Raises:
      UserError: if a value is out of its range.
    """

    method: str = "spire"
    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    size: int = 512
    channels: int = 1
    normalization: str = "unit"
    threshold: float = 0.35
    max_detections: int = 32
    relative_threshold: float | None = None
    enlarge: bool = True
    slide: bool = False

    def __post_init__(self) -> None:
        module = self.module()
        stride = getattr(module, "stride", 1)
        multiple = getattr(module, "multiple", stride)
        if self.size < MIN_SIDE or self.size % multiple:
            raise UsageError(f"size must be a multiple of {multiple} and at least {MIN_SIDE}, got {self.size}")
        check_slide(self.slide, self.enlarge)
        if self.channels not in (1, 3):
            raise UsageError(f"channels must be 1 or 3, got {self.channels}")
        if self.normalization not in NORMALIZATIONS:
            raise UsageError(f"normalization must be one of {NORMALIZATIONS}, got {self.normalization!r}")
        if not 1 <= self.max_detections <= (self.size // stride) ** 2:
            raise UsageError(f"max_detections must be in 1..{(self.size // stride) ** 2}, got {self.max_detections}")

    def module(self) -> nn.Module:
        """Returns the network, without weights."""
        return find_method(self.method).build(**self.model)

    @classmethod
    def of_run(cls, method: Method, config: Any) -> DetectorConfig:
        """Returns the configuration for the weights of a run; its config has the parts `data`, `model` and `decode`."""
        names = [name for name in network_options(method.network) if name not in method.training_only]
        return cls(
            method=method.name,
            model={name: getattr(config.model, name) for name in names if hasattr(config.model, name)},
            size=config.data.size,
            enlarge=config.data.enlarge,
            slide=config.data.slide,
            channels=config.model.channels,
            normalization=config.model.normalization,
            threshold=config.decode.threshold,
            max_detections=config.decode.max_detections,
        )

    def to_json(self) -> str:
        """Returns all fields as a JSON object."""
        return json.dumps(dataclasses.asdict(self), indent=2, default=lambda value: jnp.dtype(value).name)

    @classmethod
    def from_json(cls, text: str, where: str = "detector configuration") -> DetectorConfig:
        """Parses the result of `to_json`; absent fields keep their defaults.

        Args:
          text: a JSON object.
          where: its name in error messages, such as the name of the file.

        Raises:
          UserError: if the text is not a JSON object, or has unknown keys or values out of range.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"{where} is not JSON: {error}") from error
        if not isinstance(values, dict):
            raise UserError(f"{where} must be a JSON object, got {type(values).__name__}")
        unknown = sorted(set(values) - {field.name for field in dataclasses.fields(cls)})
        if unknown:
            raise UserError(f"{where} has unknown keys {unknown}; known: {[f.name for f in dataclasses.fields(cls)]}")
        try:
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise UserError(f"{where}: {error}") from error
