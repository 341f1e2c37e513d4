"""Images of a data set at one size, whatever their own: some papers resize everything first."""

from __future__ import annotations

import dataclasses

import numpy as np

from irjax.ops.regions import points_from_mask, resize_mask
from irjax.types import Example, Source


@dataclasses.dataclass(frozen=True)
class ResizedSource:
    """The examples of a source resized to a square, their sides apart (an `irjax.types.Source`).

    Images are resized bilinearly, masks by the pixel under each new centre, and points are the centroids of what is
    left of the mask; without masks they move with the pixels' areas.

    Attributes:
      source: the examples.
      size: side of the square in pixels.
    """

    source: Source
    size: int = 256

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        """Example `index`; IndexError outside the source."""
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
    """An image [H, W] uint8 or uint16 as [size, size] of its type, bilinear; Pillow averages where it shrinks."""
    from PIL import Image

    if image.shape == (size, size):
        return image
    resized = Image.fromarray(image.astype(np.float32)).resize((size, size), Image.Resampling.BILINEAR)
    return np.clip(np.rint(np.asarray(resized)), 0, np.iinfo(image.dtype).max).astype(image.dtype)
