"""Evaluation protocols: each convention by name, as data.

The public programs of the field disagree on what IoU, Pd and Fa are, so a number means something only together with its
protocol. A protocol is a frozen record that one counting function interprets; a variant is `dataclasses.replace` away:

    strict = dataclasses.replace(protocol("irjax"), name="irjax, 2 px", limit=2.0)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from irjax.metrics.matching import METHODS


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How predictions are scored.

    Attributes:
      name: how it is called in tables.
      summary: one line for tables and help.
      metrics: what it reports, in order; names from `irjax.metrics.values.METRICS`.
      needs_maps: whether it counts pixels, and so needs maps [H, W] against masks [H, W]. Otherwise points will do, and
        the regions of a map are taken at their centroids.
      threshold: a map's pixel is a target where p > threshold (exactly at it is background).
      connectivity: 8 or 4, of predicted and true regions.
      matching: "optimal", "first" or "nearest_in_order" (`irjax.metrics.matching`).
      limit: largest distance in pixels between matched centroids.
      inclusive: whether a distance of exactly `limit` counts.
      false_alarm: what Fa counts per pixel of all images: "area" (pixels of unmatched predicted regions) or "count"
        (unmatched predictions).
      empty: how nIoU treats an image without truth and prediction: "skip", "zero" or "one".
      fa_unit: unit in which Fa is printed; values are always returned per pixel.
      flaws: what is known to be wrong with it, said beside its numbers.
    """

    name: str
    summary: str
    metrics: tuple[str, ...]
    needs_maps: bool = True
    threshold: float = 0.5
    connectivity: int = 8
    matching: str = "optimal"
    limit: float = 3.0
    inclusive: bool = False
    false_alarm: str = "area"
    empty: str = "skip"
    fa_unit: float = 1e-6
    flaws: tuple[str, ...] = ()

    def __post_init__(self):
        choices = {
            "connectivity": (4, 8),
            "matching": tuple(METHODS),
            "false_alarm": ("area", "count"),
            "empty": ("skip", "zero", "one"),
        }
        for field, allowed in choices.items():
            if getattr(self, field) not in allowed:
                value = getattr(self, field)
                raise ValueError(f"protocol {self.name!r}: {field} must be one of {allowed}, got {value!r}")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"protocol {self.name!r}: threshold is a probability in [0, 1], got {self.threshold}")
        if not self.limit > 0:
            raise ValueError(f"protocol {self.name!r}: limit is a distance above 0 pixels, got {self.limit}")
        if self.false_alarm == "area" and not self.needs_maps:
            raise ValueError(f"protocol {self.name!r}: points have no area, so its Fa must be by 'count'")

    @property
    def rule(self) -> str:
        """The matching rule in words, such as "optimal one-to-one, <= 5 px"."""
        return f"{self.matching.replace('_', ' ')} one-to-one, {'<=' if self.inclusive else '<'} {self.limit:g} px"


IRJAX = Protocol(
    name="irjax",
    summary="p > 0.5 at native size; 8-connected regions; Fa is the area of unmatched regions per pixel",
    metrics=("IoU", "nIoU", "Precision", "Recall", "Pd", "F1", "Fa", "TP", "FP", "FN"),
)

CENTROID = Protocol(
    name="centroid",
    summary="points against target centroids; Fa is the number of false points per pixel",
    metrics=("Precision", "Recall", "Pd", "F1", "Fa", "TP", "FP", "FN"),
    needs_maps=False,
    limit=5.0,
    inclusive=True,
    false_alarm="count",
    fa_unit=1e-8,
)

PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({spec.name: spec for spec in (IRJAX, CENTROID)})


def protocol(name: str | Protocol) -> Protocol:
    """Looks a protocol up; a `Protocol` is returned as it is.

    Raises:
      ValueError: if no protocol has that name; the message lists those that exist.
    """
    if isinstance(name, Protocol):
        return name
    if name not in PROTOCOLS:
        raise ValueError(f"unknown protocol {name!r}; known: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
