"""Resizing of all images of a data set to one size, as some papers do first."""

from __future__ import annotations

import dataclasses

import numpy as np

from irjax.ops.regions import points_from_mask
from irjax.ops.resize import resize_mask, resize_square
from irjax.types import Example, Source


@dataclasses.dataclass(frozen=True)
class ResizedSource:
    """The examples of a source resized to a square, without keeping the aspect ratio (an `irjax.types.Source`).

    Images are resized bilinearly, masks by nearest neighbour (the pixel under each new centre). Points are the
    centroids of the resized mask; without a mask, (x, y) becomes ((x, y) + 0.5) * scale - 0.5.

    Attributes:
      source: the examples.
      size: side of the square in pixels.
    """

    source: Source
    size: int = 256

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        """Returns example `index`; raises IndexError if it is outside the source."""
        example = self.source[index]
        if example.mask is None:
            scale = np.float32(self.size) / np.array(example.image.shape[::-1], np.float32)
            mask, points = None, (example.points + np.float32(0.5)) * scale - np.float32(0.5)
        else:
            mask = resize_mask(example.mask, self.size)
            points = points_from_mask(mask)
        return Example(example.name, resize_image(example.image, self.size), points, mask)

    @property
    def names(self) -> tuple[str, ...]:
        """The name of every example, in order."""
        return self.source.names

    @property
    def dtype(self) -> np.dtype:
        """The type that holds every image without loss."""
        return self.source.dtype


def resize_image(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes an image [H, W] uint8 or uint16 to [size, size], bilinearly; Pillow averages when it shrinks an image."""
    if image.shape == (size, size):
        return image
    return np.clip(np.rint(resize_square(image, size)), 0, np.iinfo(image.dtype).max).astype(image.dtype)
