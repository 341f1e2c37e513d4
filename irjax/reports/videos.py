"""Annotated videos: every frame of a video with its detections marked."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from irjax.io.video import video_writer
from irjax.metrics.inputs import PointPredictions
from irjax.reports.events import FOUND, contrast

_SIDE = 256  # px, smaller frames are enlarged to this, so that marks do not cover them
_LABELLED = 20  # detections of a frame whose scores are written beside them, the best ones


@contextmanager
def annotated_video(path: str | os.PathLike, fps: float) -> Iterator[Callable[[np.ndarray, PointPredictions], None]]:
    """Yields ``add(image [H, W], predictions)``, which writes the next frame of an MP4 file.

    Frames of 8 bits are shown as they are, deeper ones between the percentiles of the first. Frames of less than 256 px
    are enlarged by a whole factor; sides that would be odd get one more row or column.

    Args:
      path: path of the file.
      fps: frames per second.

    Raises:
      FileError: if the file cannot be written.
    """
    limits: list[tuple[float, float]] = []
    with video_writer(path, fps) as write:

        def add(image: np.ndarray, predictions: PointPredictions) -> None:
            if not limits:
                limits.append((0.0, 255.0) if image.dtype == np.uint8 else contrast(image.astype(np.float32)))
            write(mark_detections(image, predictions, *limits[0]))

        yield add


def mark_detections(image: np.ndarray, predictions: PointPredictions, low: float, high: float) -> np.ndarray:
    """Draws a circle around each detection and its score beside it.

    Args:
      image: [H, W].
      predictions: detected points and scores.
      low: value of the image that is shown black.
      high: value that is shown white.

    Returns:
      [h, w, 3] uint8 with even sides.
    """
    from PIL import Image, ImageDraw, ImageFont

    factor = max(1, math.ceil(_SIDE / min(image.shape)))
    shown = np.clip((image.astype(np.float32) - low) * (255 / max(high - low, 1e-6)), 0, 255)
    gray = np.rint(shown).astype(np.uint8).repeat(factor, 0).repeat(factor, 1)
    gray = np.pad(gray, [(0, side % 2) for side in gray.shape], mode="edge")
    picture = Image.fromarray(gray).convert("RGB")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=12)
    scores = np.asarray(predictions.scores)
    radius = max(8, 5 * factor)
    for rank, index in enumerate(np.argsort(-scores, kind="stable")):
        x, y = (float(value + 0.5) * factor - 0.5 for value in predictions.points[index])
        ring = (x - radius, y - radius, x + radius, y + radius)
        draw.ellipse(ring, outline="black", width=4)
        draw.ellipse((ring[0] + 1, ring[1] + 1, ring[2] - 1, ring[3] - 1), outline=FOUND.colour, width=2)
        if rank < _LABELLED:
            label, half = f"{scores[index]:.2f}", 14
            left = x + radius + 2 if x + radius + 2 * half < picture.width else x - radius - 2 * half
            draw.text((left, y - 7), label, fill="white", font=font, stroke_width=1, stroke_fill="black")
    return np.asarray(picture)
