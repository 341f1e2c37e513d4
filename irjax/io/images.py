"""Reads image files as gray arrays at their stored depth, 8 or 16 bit.

Infrared data sets come as 8- and 16-bit gray or colour PNG, TIFF, BMP, JPEG and WebP. Pillow silently reads 16-bit
colour files as 8 bit; this module reads them at full depth.
"""

from __future__ import annotations

import io
import os
import pathlib
from collections.abc import Iterable
from typing import cast

import numpy as np

from irjax.errors import UserError, reading

IMAGE_SUFFIXES = (".png", ".bmp", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
MIN_SIDE = 16

_LUMA = np.array([0.299, 0.587, 0.114])  # Rec. 601
# Pillow keeps one byte of each 16-bit sample. Its two byte orders keep different bytes, so decoding twice gives both.
_PNG_HALVES = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}


def image_files(paths: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    """Returns the paths that have an image extension and are not hidden, sorted."""
    return sorted(p for p in paths if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))


def read_bytes(path: str | os.PathLike) -> bytes:
    """Reads the content of a file.

    Raises:
      MissingFileError: if there is no such file.
      FileError: if it cannot be read; the message names it.
    """
    with reading(path):
        return pathlib.Path(path).read_bytes()


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Reads one image as gray.

    Args:
      path: a PNG, TIFF (first page), BMP, JPEG or WebP file; gray, gray with alpha, RGB, RGBA or palette.

    Returns:
      [H, W] uint8 or uint16, at the depth of the file. Colours become Rec. 601 luma, rounded; if all channels are
      equal, their value is kept exactly. Alpha is ignored.

    Raises:
      MissingFileError: if there is no such file.
      UserError: if the file is truncated or not an image, has a sample type other than 8- or 16-bit unsigned
        integers, or has a side below 16 pixels; the message names the file.
    """
    return decode_image(read_bytes(path), path)


def decode_image(data: bytes, where: str | os.PathLike) -> np.ndarray:
    """Decodes one image as `read_image` does, from the bytes of a file; `where` names it in errors."""
    image = to_gray(decode(data, where))
    if image.dtype == np.bool_:
        image = image.astype(np.uint8) * np.uint8(255)
    if min(image.shape) < MIN_SIDE:
        height, width = image.shape
        raise UserError(
            f"{os.fspath(where)}: image of {width}x{height} pixels; at least {MIN_SIDE}x{MIN_SIDE} is wanted"
        )
    return image


def read_mask(path: str | os.PathLike) -> tuple[np.ndarray, str]:
    """Reads one target mask and the rule by which it was binarised (METRICS, flaw 5).

    Args:
      path: an image file; for colours, the brightest channel is used.

    Returns:
      The mask [H, W] bool, and the rule: "binary" (1-bit file), "zero_one" (values within {0, 1}),
      "threshold_128" (8 bit: 128 and above) or "threshold_32896" (16 bit: 128 * 257 and above).

    Raises:
      MissingFileError: if there is no such file.
      UserError: if it cannot be read; the message names the file.
    """
    return decode_mask_file(read_bytes(path), path)


def decode_mask_file(data: bytes, where: str | os.PathLike) -> tuple[np.ndarray, str]:
    """Decodes one mask as `read_mask` does, from the bytes of a file; `where` names it in errors."""
    return binarise(decode(data, where))


def binarise(values: np.ndarray) -> tuple[np.ndarray, str]:
    """Returns the mask [H, W] bool of stored values [H, W] or [H, W, C] (bool, uint8, uint16), and the rule applied."""
    if values.ndim == 3:
        colours = values if values.shape[2] in (1, 3) else values[..., :-1]
        # With luma, a red target (76 of 255) would fall below one half.
        values = colours.max(axis=2)
    if values.dtype == np.bool_:
        return values, "binary"
    if values.max(initial=0) <= 1:
        return values.astype(np.bool_), "zero_one"
    limit = 128 if values.dtype == np.uint8 else 128 * 257
    return values >= limit, f"threshold_{limit}"


def has_gray(path: str | os.PathLike) -> bool:
    """Returns whether a mask file has values between its minimum and maximum, so that targets depend on a threshold.

    This holds for JPEG masks and for the 85 masks of IRSTD-1K that are not binary (METRICS, flaw 5). A mask of two
    values is binary.
    """
    values = decode(read_bytes(path), path)
    if values.ndim == 3 and values.shape[2] in (2, 4):
        values = values[..., :-1]
    return bool(np.any((values > values.min()) & (values < values.max())))


def to_gray(values: np.ndarray) -> np.ndarray:
    """Converts [H, W] or [H, W, 1|2|3|4] to gray [H, W] of the same dtype.

    Integers are rounded. The 2nd or 4th channel is alpha, which is ignored.
    """
    if values.ndim == 2:
        return values
    if values.shape[2] <= 2:
        return np.ascontiguousarray(values[..., 0])
    first = values[..., 0]
    if np.array_equal(first, values[..., 1]) and np.array_equal(first, values[..., 2]):
        return np.ascontiguousarray(first)
    luma = values[..., :3] @ _LUMA
    return (np.rint(luma) if np.issubdtype(values.dtype, np.integer) else luma).astype(values.dtype)


def image_depth(path: str | os.PathLike) -> int:
    """Returns the bits per stored sample, 8 or 16, from the file's header where possible.

    Raises:
      MissingFileError: if there is no such file.
      UserError: if the file is not an image.
    """
    from PIL import Image

    with reading(path), open(path, "rb") as file:
        head = file.read(26)
        if head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) >= 25:
            return 16 if head[24] == 16 else 8
        file.seek(0)
        try:
            with Image.open(file) as image:
                bits = getattr(image, "tag_v2", {}).get(258, (8,))
                return 16 if max(bits) > 8 or image.mode.startswith("I") else 8
        except Exception as error:  # Pillow raises exceptions of many types for a damaged file
            if head[:4] not in (b"II*\0", b"MM\0*"):
                raise _unreadable(path, error) from error
    return 16 if decode(read_bytes(path), path).dtype == np.uint16 else 8


def decode(data: bytes, where: str | os.PathLike) -> np.ndarray:
    """Decodes the stored samples: [H, W] or [H, W, C], bool, uint8 or uint16; `where` names the file in errors."""
    try:
        values = _decode_tiff(data) if data[:4] in (b"II*\0", b"MM\0*") else _decode_pillow(data)
    except Exception as error:  # both libraries raise exceptions of many types for a damaged file
        raise _unreadable(where, error) from error
    if values.ndim not in (2, 3) or not values.size:
        raise UserError(f"{os.fspath(where)}: samples of shape {values.shape}; one image [H, W] or [H, W, C] is wanted")
    if values.dtype == np.int32 and values.size and values.min() >= 0 and values.max() <= 65535:
        values = values.astype(np.uint16)
    if values.dtype not in (np.bool_, np.uint8, np.uint16):
        raise UserError(f"{os.fspath(where)}: {values.dtype} samples; 8- or 16-bit unsigned integers are wanted")
    return values


def _unreadable(where: str | os.PathLike, error: Exception) -> UserError:
    from PIL import UnidentifiedImageError

    # Pillow's own text only names the BytesIO object.
    reason = "" if isinstance(error, UnidentifiedImageError) else f": {error}"
    return UserError(f"{os.fspath(where)}: not a readable image file ({type(error).__name__}{reason})")


def _decode_pillow(data: bytes) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        raw = _png_raw_mode(image)
        if raw in _PNG_HALVES:
            high = np.asarray(image).astype(np.uint16)
            with Image.open(io.BytesIO(data)) as again:
                again.tile = [tile._replace(args=_PNG_HALVES[raw]) for tile in again.tile]
                return (high << 8) | np.asarray(again)
        if raw == "LA;16B":
            # Four bytes per pixel: gray high, gray low, alpha high, alpha low.
            image.tile = [tile._replace(args="RGBA") for tile in image.tile]
            image._mode = "RGBA"
            pixels = np.asarray(image).astype(np.uint16)
            return (pixels[..., 0::2] << 8) | pixels[..., 1::2]
        if image.mode in ("1", "L", "LA", "RGB", "RGBA", "I", "F") or image.mode.startswith("I;16"):
            values = np.asarray(image)
            return values.astype(np.uint16) if values.dtype.str == ">u2" else values
        return np.asarray(image.convert("RGB"))  # palettes, CMYK, YCbCr


def _png_raw_mode(image) -> str | None:
    """Returns the name of the stored samples in Pillow's PNG reader, or None for other formats."""
    if image.format != "PNG" or not image.tile:
        return None
    args = image.tile[0].args
    return args if isinstance(args, str) else args[0]


def _decode_tiff(data: bytes) -> np.ndarray:
    """Decodes the first page.

    tifffile keeps every depth; Pillow is used for palettes and where tifffile lacks a codec.
    """
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = cast("tifffile.TiffPage", file.pages[0])  # the first page is always a full page
        if page.photometric != tifffile.PHOTOMETRIC.PALETTE:
            try:
                return _tiff_samples(page)
            except ValueError as error:
                if page.bitspersample > 8 and page.samplesperpixel > 1:
                    raise UserError(f"{error}, and Pillow would halve the depth of a 16-bit colour file") from error
    return _decode_pillow(data)


def _tiff_samples(page) -> np.ndarray:
    """Returns the samples of one TIFF page as [H, W] or [H, W, C], with larger values brighter."""
    values = page.asarray()
    if page.axes.startswith("S"):
        values = np.moveaxis(values, 0, -1)
    values = values.astype(values.dtype.newbyteorder("="))
    return ~values if page.photometric == 0 and values.dtype.kind in "bu" else values
