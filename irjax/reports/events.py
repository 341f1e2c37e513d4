"""Hits, misses and false detections in a scored image, and the cut-outs that show them enlarged.

Colours are from the palette of Okabe and Ito and each kind has its own marker, so that images remain readable with
colour blindness and in print.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from irjax.metrics.inputs import PointPredictions
from irjax.metrics.matching import match


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of event: its name in legends, its colour, and its matplotlib marker."""

    label: str
    colour: str
    marker: str


HIT = Kind("hit", "#009E73", "o")
FALSE = Kind("false detection", "#D55E00", "s")
MISS = Kind("missed target", "#56B4E9", "^")
FOUND = Kind("detection", "#009E73", "o")
POINT = Kind("corrected point", "#E69F00", "o")


@dataclasses.dataclass(frozen=True)
class Event:
    """A hit, miss or detection at (x, y), with its score and its distance from the target; nan where undefined."""

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
        """Returns whether an event lies in the cut-out, at least `margin` pixels from its border."""
        right, bottom = self.left + self.side - 1, self.top + self.side - 1
        inside_x = self.left + margin <= event.x <= right - margin
        return inside_x and self.top + margin <= event.y <= bottom - margin

    def cut(self, image: np.ndarray) -> np.ndarray:
        """Cuts this part out of an image [H, W]; the result is smaller at the image border."""
        return image[self.top : self.top + self.side, self.left : self.left + self.side]

    def caption(self) -> str:
        """Describes the events in the cut-out, such as "missed; 3 false up to 0.88"."""
        parts = []
        for kind in (MISS, FALSE, HIT, FOUND, POINT):
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
            elif events and kind is POINT:
                parts.append(f"{count}{kind.label}{'s' if count else ''}")
            elif events:
                parts.append(f"{count}{kind.label}{'s up to' if count else ''} {max(scores):.2f}")
        return "; ".join(parts)


def event_at(kind: Kind, point: np.ndarray, score: float = np.nan, distance: float = np.nan) -> Event:
    """Creates an event at a point [2] (x, y)."""
    x, y = point
    return Event(kind, x, y, score, distance)


def find_events(
    predictions: PointPredictions, truths: np.ndarray, limit: float, *, inclusive: bool = True
) -> list[Event]:
    """Finds the events of an image by optimal matching.

    Args:
      predictions: detected points and scores.
      truths: [K, 2] (x, y) true points.
      limit: largest distance of a match in pixels.
      inclusive: whether a distance of exactly `limit` matches.

    Returns:
      The events, worst first: misses, then false detections by decreasing score, then hits by increasing score.
    """
    matching = match(truths, predictions.points, limit=limit, inclusive=inclusive)
    missed = np.setdiff1d(np.arange(len(truths)), matching.truths)
    false = np.setdiff1d(np.arange(len(predictions)), matching.predictions)
    points, scores = predictions.points, predictions.scores
    assert scores is not None  # filled in by PointPredictions
    events = [event_at(MISS, truths[index]) for index in missed]
    events += [event_at(FALSE, points[i], scores[i]) for i in false[np.argsort(-scores[false], kind="stable")]]
    for index in np.argsort(scores[matching.predictions], kind="stable"):
        hit = matching.predictions[index]
        events.append(event_at(HIT, points[hit], scores[hit], matching.distances[index]))
    return events


def find_insets(events: list[Event], shape: tuple[int, int], side: int) -> list[Inset]:
    """Finds square cut-outs that together show every event.

    Each cut-out is centred on the first event that the earlier ones do not show.
    """
    insets: list[Inset] = []
    for event in events:
        if not any(inset.holds(event) for inset in insets):
            left = int(np.clip(round(event.x) - side // 2, 0, max(shape[1] - side, 0)))
            top = int(np.clip(round(event.y) - side // 2, 0, max(shape[0] - side, 0)))
            insets.append(Inset(left, top, side, ()))
    # Cut-outs may overlap; each lists all events inside it.
    return [
        dataclasses.replace(inset, events=tuple(event for event in events if inset.holds(event, -0.5)))
        for inset in insets
    ]


def contrast(image: np.ndarray, low: float = 0.5, high: float = 99.9) -> tuple[float, float]:
    """Returns the gray values shown as black and white: two percentiles of the image, never equal."""
    bottom, top = np.percentile(image, (low, high))
    return float(bottom), float(max(top, bottom + 1e-6))


def gray_levels(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Returns values in 8 bits: `low` and below become 0, `high` and above 255."""
    return np.rint(255 * np.clip((values.astype(np.float64) - low) / (high - low), 0, 1)).astype(np.uint8)


def brightest(image: np.ndarray, most: int) -> tuple[np.ndarray, int]:
    """Reduces an image [H, W] to at most `most` pixels a side; of each block the brightest pixel remains.

    Returns:
      The reduced image, sides rounded up, and the integer factor.
    """
    height, width = image.shape
    factor = -(-max(height, width) // most)
    padded = np.pad(image, ((0, -height % factor), (0, -width % factor)), mode="edge")
    return padded.reshape(padded.shape[0] // factor, factor, -1, factor).max(axis=(1, 3)), factor
