"""What the header of an image file says, without decoding its pixels."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
from typing import cast

import numpy as np

from irjax.errors import reading
from irjax.io import matlab, video
from irjax.io.images import MIN_SIDE, Frame, is_tiff, orientation, read_bytes, read_image, read_stored
from irjax.io.video import is_video


def header_size(path: str | os.PathLike | Frame) -> tuple[int, int] | None:
    """Returns (height, width) as the file is decoded: turned as the EXIF orientation says.

    Returns:
      The size of the first image or of the frame; None for a file that is no picture or whose header is damaged.

    Raises:
      MissingFileError: if there is no such file.
    """
    from PIL import Image

    if is_video(path):
        return None
    data, number = read_bytes(path), path.page if isinstance(path, Frame) else 0
    try:
        if is_tiff(data):
            import tifffile

            with tifffile.TiffFile(io.BytesIO(data)) as file:
                page = cast("tifffile.TiffPage", file.pages[number])
                size = page.imagelength, page.imagewidth
        else:
            with Image.open(io.BytesIO(data)) as image:
                size = image.size[1], image.size[0]
    except Exception:  # the libraries raise exceptions of many types for a damaged file
        return None
    return size[::-1] if orientation(data, number) > 4 else size


def image_size(path: str | os.PathLike | Frame) -> tuple[int, int]:
    """Returns (height, width) of an image file or frame, from its header where possible.

    Raises:
      MissingFileError: if there is no such file.
      UserError: if it cannot be read.
    """
    return header_size(path) or read_image(path).shape


def image_depth(path: str | os.PathLike) -> int:
    """Returns the bits per stored sample, 8 or 16, from the file's header where possible.

    Raises:
      MissingFileError: if there is no such file.
      UserError: if the file is not an image.
    """
    from PIL import Image

    if is_video(path):
        return 16 if video.is_deep(path) else 8
    with reading(path), open(path, "rb") as file:
        head = file.read(26)
        if head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) >= 25:
            return 16 if head[24] == 16 else 8
        file.seek(0)
        with contextlib.suppress(Exception), Image.open(file) as image:  # damaged files raise many types
            bits = getattr(image, "tag_v2", {}).get(258, (8,))
            return 16 if max(bits) > 8 or image.mode.startswith("I") else 8
    return 16 if read_stored(path).dtype.itemsize > 1 else 8


def frame_count(path: str | os.PathLike, key: str | None = None) -> int:
    """Returns the number of images in a file; 1 for one that cannot be read, so that reading it says why.

    Args:
      path: the file; a video is decoded, of other files the header is read.
      key: name of the variable in a MATLAB file; None for the only array.
    """
    from PIL import Image

    suffix = pathlib.Path(path).suffix.lower()
    try:
        if is_video(path):
            return max(video.frame_count(path), 1)
        if suffix == ".mat":
            return matlab.frame_count(path, key, MIN_SIDE)
        if suffix in (".tif", ".tiff"):
            import tifffile

            with tifffile.TiffFile(path) as file:
                if len(file.pages) == 1:
                    return 1
                first = cast("tifffile.TiffPage", file.pages[0]).shape
                return sum(page.shape == first for page in file.pages)  # thumbnails are smaller
        if suffix in (".gif", ".webp") or (suffix == ".png" and _is_animated_png(path)):
            with Image.open(path) as image:
                return getattr(image, "n_frames", 1)
        if suffix == ".npy":
            shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
            return shape[0] if matlab.is_stack(shape) else 1
    except Exception:  # the libraries raise exceptions of many types for a damaged file
        return 1
    return 1


def _is_animated_png(path: str | os.PathLike) -> bool:
    """Returns whether a PNG file may have several frames, without opening it as an image."""
    with open(path, "rb") as file:
        return b"acTL" in file.read(1024)
