"""What there is to see in a scored image: hits, misses, false detections, and the cut-outs that show them enlarged.

Colours are from Okabe and Ito's palette and each kind has its own shape: pictures survive colour blindness and print.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from irjax.metrics.inputs import PointPredictions
from irjax.metrics.matching import match


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of event: its name in legends, its colour, and its marker as matplotlib calls it."""

    label: str
    colour: str
    marker: str


HIT = Kind("hit", "#009E73", "o")
FALSE = Kind("false detection", "#D55E00", "s")
MISS = Kind("missed target", "#56B4E9", "^")
FOUND = Kind("detection", "#009E73", "o")


@dataclasses.dataclass(frozen=True)
class Event:
    """One thing to look at: of which kind, where, its score and its distance from the target, where it has them."""

    kind: Kind
    x: float
    y: float
    score: float = np.nan
    distance: float = np.nan


@dataclasses.dataclass(frozen=True)
class Inset:
    """A cut-out [top : top + side, left : left + side] and the events that lie in it."""

    left: int
    top: int
    side: int
    events: tuple[Event, ...]

    def holds(self, event: Event, margin: float = 2.0) -> bool:
        """Whether an event lies in the cut-out, not at its very edge."""
        right, bottom = self.left + self.side - 1, self.top + self.side - 1
        inside_x = self.left + margin <= event.x <= right - margin
        return inside_x and self.top + margin <= event.y <= bottom - margin

    def cut(self, image: np.ndarray) -> np.ndarray:
        """That part of an image [H, W]; smaller where the image ends."""
        return image[self.top : self.top + self.side, self.left : self.left + self.side]

    def caption(self) -> str:
        """What is in it, such as "missed; 3 false up to 0.88"."""
        parts = []
        for kind in (MISS, FALSE, HIT, FOUND):
            events = [event for event in self.events if event.kind is kind]
            count = f"{len(events)} " if len(events) > 1 else ""
            scores = [event.score for event in events]
            if events and kind is MISS:
                parts.append(f"{count}missed")
            elif events and kind is FALSE:
                parts.append(f"{count}false {'up to ' if count else ''}{max(scores):.2f}")
            elif events and kind is HIT:
                off = max(event.distance for event in events)
                least, most = ("from ", "up to ") if count else ("", "")
                parts.append(f"{count}hit {least}{min(scores):.2f}, {most}{off:.1f} px off")
            elif events:
                parts.append(f"{count}{kind.label} {'up to ' if count else ''}{max(scores):.2f}")
        return "; ".join(parts)


def find_events(
    predictions: PointPredictions, truths: np.ndarray, limit: float, *, inclusive: bool = True
) -> list[Event]:
    """Misses, then false detections by falling score, then hits by rising score: the worst first.

    Args:
      predictions: detected points and scores.
      truths: [K, 2] (x, y) true points.
      limit: largest distance of a match in pixels; the matching is optimal.
      inclusive: whether a distance of exactly `limit` matches.
    """
    matching = match(truths, predictions.points, limit=limit, inclusive=inclusive)
    missed = np.setdiff1d(np.arange(len(truths)), matching.truths)
    false = np.setdiff1d(np.arange(len(predictions)), matching.predictions)
    points, scores = predictions.points, predictions.scores
    events = [Event(MISS, *truths[index]) for index in missed]
    events += [Event(FALSE, *points[i], scores[i]) for i in false[np.argsort(-scores[false], kind="stable")]]
    for index in np.argsort(scores[matching.predictions], kind="stable"):
        hit = matching.predictions[index]
        events.append(Event(HIT, *points[hit], scores[hit], matching.distances[index]))
    return events


def find_insets(events: list[Event], shape: tuple[int, int], side: int) -> list[Inset]:
    """Cut-outs that together show every event: one around the first event, then one around the first not yet shown."""
    insets: list[Inset] = []
    for event in events:
        if not any(inset.holds(event) for inset in insets):
            left = int(np.clip(round(event.x) - side // 2, 0, max(shape[1] - side, 0)))
            top = int(np.clip(round(event.y) - side // 2, 0, max(shape[0] - side, 0)))
            insets.append(Inset(left, top, side, ()))
    # Cut-outs may overlap; each shows and counts all that is in it.
    return [
        dataclasses.replace(inset, events=tuple(event for event in events if inset.holds(event, -0.5)))
        for inset in insets
    ]


def contrast(image: np.ndarray, low: float = 0.5, high: float = 99.9) -> tuple[float, float]:
    """The gray values that are shown black and white: two percentiles of the image, never equal."""
    bottom, top = np.percentile(image, (low, high))
    return float(bottom), float(max(top, bottom + 1e-6))
