"""What the header of an image file says, without decoding its pixels."""

from __future__ import annotations

import io
import os
from typing import cast

from irjax.io.images import is_tiff, orientation, read_bytes, read_image


def header_size(path: str | os.PathLike) -> tuple[int, int] | None:
    """Returns (height, width) as the file is decoded: turned as the EXIF orientation says.

    Returns:
      The size, None for a file that is no picture or whose header is damaged.

    Raises:
      MissingFileError: if there is no such file.
    """
    from PIL import Image

    data = read_bytes(path)
    try:
        if is_tiff(data):
            import tifffile

            with tifffile.TiffFile(io.BytesIO(data)) as file:
                page = cast("tifffile.TiffPage", file.pages[0])
                size = page.imagelength, page.imagewidth
        else:
            with Image.open(io.BytesIO(data)) as image:
                size = image.size[1], image.size[0]
    except Exception:  # the libraries raise exceptions of many types for a damaged file
        return None
    return size[::-1] if orientation(data) > 4 else size


def image_size(path: str | os.PathLike) -> tuple[int, int]:
    """Returns (height, width) of an image file, from its header where possible.

    Raises:
      MissingFileError: if there is no such file.
      UserError: if it cannot be read.
    """
    return header_size(path) or read_image(path).shape
