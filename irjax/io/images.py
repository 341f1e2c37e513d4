"""Reads image files as gray arrays of 8 or 16 bits.

Infrared data sets come as 8- and 16-bit gray or colour PNG, TIFF, BMP, JPEG and WebP. Pillow silently reads 16-bit
colour files as 8 bit; this module reads them at full depth. Which stored values are black and white is a `Depth`: by
default, the full scale of the file's type.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import os
import pathlib
from collections.abc import Callable
from typing import Literal, cast

import numpy as np

from irjax.errors import UsageError, UserError, note, reading
from irjax.io import matlab, video
from irjax.io.video import VIDEO_SUFFIXES, is_video

IMAGE_SUFFIXES = (
    *(".png", ".bmp", ".jpg", ".jpeg", ".jp2", ".webp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".npy", ".mat"),
    *VIDEO_SUFFIXES,
)
MIN_SIDE = 16

_TIFF = (b"II*\0", b"MM\0*")
_LUMA = np.array([299, 587, 114])  # Rec. 601, in thousandths
# Pillow keeps one byte of each 16-bit sample. Its two byte orders keep different bytes, so decoding twice gives both.
_PNG_HALVES = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L"}


BITS = (8, 10, 12, 14, 16)
_PERCENTILES = (0.1, 99.99)  # nine pixels of 256x256 stay below white
_WHITE = 65535
_KEPT_MODES = ("1", "L", "LA", "RGB", "RGBA", "I", "F")
_ORIENTATION = 0x0112  # EXIF's tag
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x),
}


@dataclasses.dataclass(frozen=True)
class Depth:
    """Which stored values are black and white; at most one of the three is given.

    Files of 8 bits keep their values under `bits`; under `range` and `stretch`, and deeper files under any of the
    three, become uint16 with white at 65535.

    Attributes:
      bits: white is 2^bits - 1 and black is 0; 0: white is the highest value of the file's type.
      range: (black, white) as stored; values outside are clipped. Empty: not given.
      stretch: black and white of each image by itself: `minmax`, its lowest and highest value, or `percentile`, its
        0.1th and 99.99th percentile; "": not given.
    """

    bits: int = 0
    range: tuple[float, ...] = ()
    stretch: Literal["", "percentile", "minmax"] = ""

    def __post_init__(self) -> None:
        given = [name for name in ("bits", "range", "stretch") if getattr(self, name)]
        if len(given) > 1:
            raise UsageError(f"{given[0]} and {given[1]} exclude each other: both say which values are black and white")
        if self.bits and not 1 <= self.bits <= 16:
            raise UsageError(f"bits must be in 1..16, got {self.bits}")
        if self.range and (len(self.range) != 2 or not self.range[0] < self.range[1]):
            raise UsageError(f"range must be LOW HIGH with LOW below HIGH, got {' '.join(map(str, self.range))}")
        if self.stretch not in ("", "percentile", "minmax"):
            raise UsageError(f"stretch must be percentile or minmax, got {self.stretch!r}")

    def limits(self, values: np.ndarray) -> tuple[float, float]:
        """Returns the stored values that are black and white in an image [H, W]."""
        if self.range:
            return self.range[0], self.range[1]
        if self.stretch:
            # As doubles: NumPy takes the difference of two values in their own type, where it may not fit.
            shares = _PERCENTILES if self.stretch == "percentile" else (0, 100)
            low, high = np.percentile(values.astype(np.float64), shares)
            return float(low), float(high)
        return 0.0, float(2**self.bits - 1 if self.bits else np.iinfo(values.dtype).max)

    def apply(self, values: np.ndarray, where: str | os.PathLike) -> np.ndarray:
        """Returns stored values [H, W] of any numeric type as uint8 or uint16 [H, W] at full scale.

        Raises:
          UserError: if the type has no full scale of its own and neither `range` nor `stretch` is given, or a value
            does not fit into `bits`; `where` names the file.
        """
        if values.dtype == np.bool_:
            return values.astype(np.uint8) * np.uint8(255)
        if values.dtype == np.int32 and values.min() >= 0 and values.max() <= _WHITE:
            values = values.astype(np.uint16)  # Pillow reads 16-bit files of some formats so
        plain = values.dtype in (np.uint8, np.uint16)
        if not (plain or self.range or self.stretch):
            raise UserError(
                f"{os.fspath(where)}: {values.dtype} samples from {values.min():g} to {values.max():g}; say which are "
                "black and white: --range LOW HIGH, or --stretch minmax for each image by itself"
            )
        if plain and (self.bits in (0, 16) or values.dtype == np.uint8) and not (self.range or self.stretch):
            return values
        low, high = self.limits(values)
        if self.bits and values.max() > high:
            raise UserError(f"{os.fspath(where)}: the value {values.max()} does not fit into {self.bits} bits")
        if high == low:  # a constant image
            return np.zeros(values.shape, np.uint16)
        scale = 1.0 if high - low < np.inf else 0.5  # of limits whose difference is no double
        with np.errstate(over="ignore"):  # what is far outside is clipped
            unit = (values.astype(np.float64) * scale - low * scale) / (high * scale - low * scale)
        return np.rint(np.clip(unit, 0, 1) * _WHITE).astype(np.uint16)

    def describe(self) -> str:
        """Returns the rule in words."""
        if self.range:
            return f"black {self.range[0]:g}, white {self.range[1]:g}"
        if self.stretch:
            return f"each image by its own {'percentiles' if self.stretch == 'percentile' else 'extremes'}"
        return f"white {2**self.bits - 1}" if self.bits else "white at the full scale of the file's type"


AS_STORED = Depth()


def least_bits(highest: int) -> int:
    """Returns the smallest of 8, 10, 12, 14 and 16 bits that holds a value."""
    return next(bits for bits in BITS if highest < 2**bits)


def check_depth(highest: int, where: str) -> None:
    """Notes that 16-bit images use only a sixteenth of their range or less; `highest` is their highest value."""
    if highest < 4096:
        note(
            f"the highest value is {highest} of 65535, so the images are nearly black; if they are of "
            f"{least_bits(highest)} bits, say --bits {least_bits(highest)}",
            where,
        )


@dataclasses.dataclass(frozen=True)
class Frame:
    """One image of a file that holds several: a TIFF, GIF, WebP, NumPy, MATLAB or video file.

    Attributes:
      path: path of the file.
      page: number of the image, from 0; -1 for the last, or for the only one.
      key: name of the variable in a MATLAB file; None for the only array.
    """

    path: str
    page: int = 0
    key: str | None = None

    def __fspath__(self) -> str:
        return self.path

    def __str__(self) -> str:
        return f"{self.path}, page {self.page + 1}" if self.page >= 0 else self.path


def path_or_frame(path: str | os.PathLike | Frame) -> str | Frame:
    """Returns a file as sources name it: its path as text, or the frame."""
    return path if isinstance(path, Frame) else os.fspath(path)


def read_bytes(path: str | os.PathLike | Frame) -> bytes:
    """Reads the content of a file; that of frames once for all of them.

    Raises:
      MissingFileError: if there is no such file.
      FileError: if it cannot be read; the message names it.
    """
    with reading(path):
        if not isinstance(path, Frame):
            return pathlib.Path(path).read_bytes()
        state = os.stat(path)
        return _bytes_of_frames(path.path, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=1)
def _bytes_of_frames(path: str, changed: int, size: int) -> bytes:
    return pathlib.Path(path).read_bytes()


def is_tiff(data: bytes) -> bool:
    """Returns whether a file begins as a TIFF file does."""
    return data[:4] in _TIFF


def read_image(path: str | os.PathLike | Frame, depth: Depth = AS_STORED) -> np.ndarray:
    """Reads one image as gray.

    Args:
      path: a file with one of `IMAGE_SUFFIXES`, of which the first image is read, or a `Frame`; gray, gray with alpha,
        RGB, RGBA or palette.
      depth: which stored values are black and white.

    Returns:
      [H, W] uint8 or uint16. Colours become Rec. 601 luma, rounded; if all channels are equal, their value is kept
      exactly. Alpha is ignored. Pixels that are not finite, or that a GeoTIFF declares to be without data, get the
      median of the others, with a `Note`.

    Raises:
      MissingFileError: if there is no such file.
      MissingPackageError: if it is a video or a MATLAB 7.3 file, and what reads it is not installed.
      UserError: if the file is truncated or not an image, has a sample type other than 8- or 16-bit unsigned
        integers and `depth` gives neither range nor stretch, or has a side below 16 pixels; the message names the file.
    """
    data, values = _read(path, indices=False)
    return _as_image(data, values, str(path), depth)


def read_stored(path: str | os.PathLike | Frame, *, indices: bool = False) -> np.ndarray:
    """Reads the stored samples of one image as `decode` does; the file, or its first image, or a `Frame`.

    Raises:
      MissingFileError: if there is no such file.
      UserError: if the file is truncated or not an image; the message names it.
    """
    return _read(path, indices)[1]


def _read(path: str | os.PathLike | Frame, indices: bool) -> tuple[bytes, np.ndarray]:
    """Returns the bytes of the file, where these were read at once, and the stored samples of the image."""
    frame = path if isinstance(path, Frame) else Frame(os.fspath(path))
    if is_video(frame):
        return b"", video.read_frame(frame.path, frame.page)
    data = read_bytes(path)
    if not frame.path.lower().endswith(".mat"):
        return data, decode(data, str(path), indices=indices, page=frame.page)
    try:
        values = matlab.read_frame(data, str(path), frame.page, frame.key, MIN_SIDE)
    except UserError:
        raise
    except Exception as error:  # the libraries raise exceptions of many types for a damaged file
        raise _unreadable(str(path), error) from error
    return data, _checked(values, str(path))


def decode_image(data: bytes, where: str | os.PathLike, depth: Depth = AS_STORED) -> np.ndarray:
    """Decodes one image as `read_image` does, from the bytes of a file; `where` names it in errors."""
    return _as_image(data, decode(data, where), where, depth)


def _as_image(data: bytes, values: np.ndarray, where: str | os.PathLike, depth: Depth) -> np.ndarray:
    """Returns stored samples [H, W] or [H, W, C] as an image [H, W]; `data` is the file's content."""
    image = depth.apply(_filled(to_gray(values), data, where), where)
    if min(image.shape) < MIN_SIDE:
        height, width = image.shape
        raise UserError(
            f"{os.fspath(where)}: image of {width}x{height} pixels; at least {MIN_SIDE}x{MIN_SIDE} is wanted"
        )
    return image


def _filled(values: np.ndarray, data: bytes, where: str | os.PathLike) -> np.ndarray:
    """Replaces pixels without data by the median of the others."""
    holes = ~np.isfinite(values) if values.dtype.kind == "f" else np.zeros(values.shape, np.bool_)
    declared = _no_data(data)
    if declared is not None:
        holes |= values == declared
    if not holes.any():
        return values
    if holes.all():
        raise UserError(f"{os.fspath(where)}: no pixel has data")
    middle = np.median(values[~holes])
    note("pixels without data got the median of the others", where)
    return np.where(holes, middle, values).astype(values.dtype)


def _no_data(data: bytes) -> float | None:
    """Returns the value that GDAL's tag of a TIFF file declares to be no data, if it has that tag."""
    if not is_tiff(data):
        return None
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        tag = cast("tifffile.TiffPage", file.pages[0]).tags.get("GDAL_NODATA")
    try:
        return None if tag is None else float(str(tag.value).strip("\0 "))
    except ValueError:
        return None


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
    if np.issubdtype(values.dtype, np.integer):
        # Summed as integers: how floats round a half would depend on the machine.
        return np.rint(values[..., :3].astype(np.int64) @ _LUMA / 1000).astype(values.dtype)
    return (values[..., :3] @ (_LUMA / 1000)).astype(values.dtype)


def decode(data: bytes, where: str | os.PathLike, *, indices: bool = False, page: int = 0) -> np.ndarray:
    """Decodes the stored samples: [H, W] or [H, W, C] of the file's numeric type; `where` names the file in errors.

    Pixels are turned as the EXIF orientation says. With `indices`, a file whose palette is not gray gives its
    indices [H, W] instead of colours.
    """
    try:
        turn = orientation(data, page)
        if data[:6] == b"\x93NUMPY":
            values = _decode_npy(data, page)
        elif is_tiff(data):
            values = _decode_tiff(data, indices, page, turn)
        else:
            values = _turned(_decode_pillow(data, indices, page), turn)
        if turn != 1:
            note("turned as the EXIF orientation says", where)
    except Exception as error:  # both libraries raise exceptions of many types for a damaged file
        raise _unreadable(where, error) from error
    return _checked(values, where)


def _checked(values: np.ndarray, where: str | os.PathLike) -> np.ndarray:
    if values.ndim not in (2, 3) or not values.size:
        raise UserError(f"{os.fspath(where)}: samples of shape {values.shape}; one image [H, W] or [H, W, C] is wanted")
    if values.dtype.kind not in "buif":
        raise UserError(f"{os.fspath(where)}: {values.dtype} samples; numbers are wanted")
    return values


def _unreadable(where: str | os.PathLike, error: Exception) -> UserError:
    from PIL import UnidentifiedImageError

    # Pillow's own text only names the BytesIO object.
    reason = "" if isinstance(error, UnidentifiedImageError) else f": {error}"
    return UserError(f"{os.fspath(where)}: not a readable image file ({type(error).__name__}{reason})")


def _decode_npy(data: bytes, page: int) -> np.ndarray:
    values = np.load(io.BytesIO(data), allow_pickle=False)
    return values[page] if matlab.is_stack(values.shape) else values


def _decode_pillow(data: bytes, indices: bool, page: int = 0) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        if page:
            image.seek(page)
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
        if image.mode in _KEPT_MODES or image.mode.startswith("I;16"):
            values = np.asarray(image)
            return values.astype(np.uint16) if values.dtype.str == ">u2" else values
        colours = np.asarray(image.convert("RGB"))  # palettes, CMYK, YCbCr
        return np.asarray(image) if indices and image.mode == "P" and np.ptp(colours, axis=2).any() else colours


def orientation(data: bytes, page: int = 0) -> int:
    """Returns the EXIF orientation of an image, 1 to 8, from the bytes of its file; 1 where it says none."""
    from PIL import Image

    found = 1
    with contextlib.suppress(Exception):  # damaged files raise many types
        if is_tiff(data):
            import tifffile

            with tifffile.TiffFile(io.BytesIO(data)) as file:
                found = cast("tifffile.TiffPage", file.pages[page]).tags.valueof(_ORIENTATION, 1)
        elif any(mark in data for mark in (b"Exif", b"eXIf", b"EXIF")):  # Pillow decodes a whole PNG to look for it
            with Image.open(io.BytesIO(data)) as image:
                found = image.getexif().get(_ORIENTATION, 1)
    return found if found in _TURNS else 1


def _png_raw_mode(image) -> str | None:
    """Returns the name of the stored samples in Pillow's PNG reader, or None for other formats."""
    if image.format != "PNG" or not image.tile:
        return None
    args = image.tile[0].args
    return args if isinstance(args, str) else args[0]


def _turned(values: np.ndarray, turn: int) -> np.ndarray:
    """Returns pixels as the EXIF orientation `turn` shows them."""
    return values if turn == 1 else np.ascontiguousarray(_TURNS[turn](values))


def _decode_tiff(data: bytes, indices: bool, number: int, turn: int) -> np.ndarray:
    """Decodes one page, and turns it as its orientation `turn` says.

    tifffile keeps every depth; Pillow, which turns it itself, is used for palettes and where tifffile lacks a codec.
    """
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = cast("tifffile.TiffPage", file.pages[number])  # a page, not a frame: nothing is read by keyframes
        if page.photometric != tifffile.PHOTOMETRIC.PALETTE:
            try:
                return _turned(_tiff_samples(page, indices), turn)
            except ValueError as error:
                if page.bitspersample > 8 and page.samplesperpixel > 1:
                    raise UserError(f"{error}, and Pillow would halve the depth of a 16-bit colour file") from error
    return _decode_pillow(data, indices, number)


def _tiff_samples(page, indices: bool) -> np.ndarray:
    """Returns the samples of one TIFF page as [H, W] or [H, W, C], with larger values brighter."""
    values = page.asarray()
    if page.axes.startswith("S"):
        values = np.moveaxis(values, 0, -1)
    values = values.astype(values.dtype.newbyteorder("="))
    # tifffile calls what it writes of booleans white-is-zero and writes them as they are: in a mask, 1 is meant.
    written_so = indices and values.dtype == np.bool_ and page.software.startswith("tifffile")
    return ~values if page.photometric == 0 and values.dtype.kind in "bu" and not written_so else values
