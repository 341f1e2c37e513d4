"""Reads map files of any program, one by one, as probabilities; errors name the file.

| extension | content |
|---|---|
| .png | 1, 8 or 16 bit; gray, or colour with equal channels |
| .tif, .tiff | one page; 8 or 16 bit, or float |
| .npy | one array |
| .npz | its only array, or the one called `key` |
| .mat | MATLAB up to version 7.2; the variable T (as RPCANet writes it), or the one called `key` |

Floats are used unscaled; 8-bit values are p = value / 255, 16-bit values p = value / 65535. Integers are p = 0 and
p = 1 only if all values in the whole set are 0 or 1: a single 8-bit map that peaks at 1 of 255 is not a mask.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import io
import os
import pathlib

import numpy as np

from irjax.errors import UserError, check_folder, reading
from irjax.io.files import atomic_path
from irjax.io.images import decode_image, read_bytes
from irjax.metrics import inputs

MAT_VARIABLE = "T"


@dataclasses.dataclass(frozen=True)
class MapFiles:
    """A folder of predicted maps, read on access; picklable, for worker processes.

    Attributes:
      folder: path of the folder.
      paths: paths of the files, in sorted order.
      key: name of the array in .npz and .mat files; None for the only array and `MAT_VARIABLE`.
      logits: whether floats are logits, which may have any finite value.
      images: name of each map's image; if empty, the file names are used.
    """

    folder: str
    paths: tuple[str, ...]
    key: str | None = None
    logits: bool = False
    images: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the images or, if not given, of the files, in order."""
        return self.images or tuple(os.path.basename(path) for path in self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        """Reads map `index`.

        Returns:
          [H, W], bool or floating: probabilities, or logits if the set holds logits.

        Raises:
          IndexError: if the index is outside the set.
          UserError: if the file cannot be read, is not a map, or holds values out of range; the message names it.
        """
        path = self.paths[index]
        values = read_map(path, self.key)
        if values.dtype == bool:
            return values
        if np.issubdtype(values.dtype, np.integer):
            return self._scaled(values, path)
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise UserError(f"{path}: a map must be finite, got NaN or infinity")
        if not self.logits and (low < 0 or high > 1):
            raise UserError(
                f"{path}: floats must be probabilities in [0, 1], got {low:g} to {high:g}; logits need --logits, "
                "0 to 255 an integer type"
            )
        return values

    def _scaled(self, values: np.ndarray, path: str) -> np.ndarray:
        if self.logits:
            raise UserError(f"{path}: logits must be floats, got {values.dtype}")
        full = 1 if self.zero_one else _full(values.dtype)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > full:
            raise UserError(f"{path}: {values.dtype} values must lie in 0..{full}, got {low} to {high}")
        return values.astype(bool) if full == 1 else values.astype(np.float32) / np.float32(full)

    @functools.cached_property
    def zero_one(self) -> bool:
        """Whether all integers of the whole set are 0 or 1. Reads files up to the first that has others."""
        for path in self.paths:
            values = read_map(path, self.key)
            if not np.issubdtype(values.dtype, np.integer) or values.max() > 1 or values.min() < 0:
                return False
        return True


def find_maps(folder: str | os.PathLike, *, key: str | None = None, logits: bool = False) -> MapFiles:
    """Finds the maps of a folder.

    Args:
      folder: a folder with map files of one kind; files with other extensions are ignored.
      key: name of the array in .npz and .mat files.
      logits: whether floats are logits.

    Raises:
      MissingFileError: if there is no such folder.
      UserError: if it holds no maps or maps of different kinds, or `key` does not apply.
    """
    folder = check_folder(folder)
    with reading(folder):
        entries = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    paths = [path for path in entries if path.suffix.lower() in _READERS]
    if not paths:
        there = collections.Counter(path.suffix.lower() or "no ending" for path in entries)
        below = [path.name for path in sorted(folder.iterdir()) if path.is_dir()]
        found = ", ".join(f"{number} {ending}" for ending, number in there.most_common(5)) or "nothing"
        hint = f"; there are folders in it: {', '.join(below[:5])}" if below else ""
        raise UserError(f"{folder}: no predicted maps; looked for {', '.join(_READERS)}, found {found}{hint}")
    kinds = collections.Counter(".tif" if p.suffix.lower() == ".tiff" else p.suffix.lower() for p in paths)
    if len(kinds) > 1:
        found = ", ".join(f"{number} {ending}" for ending, number in kinds.most_common())
        odd = next(p for p in paths if p.suffix.lower() == kinds.most_common()[-1][0])
        raise UserError(f"{folder}: maps of different kinds ({found}), such as {odd.name}; keep one kind in a folder")
    if key is not None and not kinds.keys() & {".npz", ".mat"}:
        raise UserError(f"{folder}: a key names an array in .npz and .mat files, and these are {next(iter(kinds))}")
    return MapFiles(str(folder), tuple(map(str, paths)), key, logits)


def read_map(path: str | os.PathLike, key: str | None = None) -> np.ndarray:
    """Reads one map as it is stored.

    Args:
      path: path of the file; its extension gives the format.
      key: name of the array in .npz and .mat files.

    Returns:
      [H, W] of a boolean, integer or floating dtype.

    Raises:
      MissingFileError: if there is no such file.
      UserError: if it cannot be read or is not a map; the message names it.
    """
    path = pathlib.Path(path)
    data = read_bytes(path)  # NumPy and SciPy do not close a file that they fail to read
    try:
        values = _READERS[path.suffix.lower()](data, path, key)
    except _MapError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # the libraries raise exceptions of many types for a damaged file
        if str(error).startswith(f"{path}: "):
            raise
        raise UserError(f"{path}: not a readable map ({type(error).__name__}: {error})") from error
    shape = values.shape
    values = values.reshape(inputs.map_shape(values))
    if values.ndim != 2 or values.size == 0:
        raise UserError(f"{path}: a map must be [H, W], got shape {shape}")
    if values.dtype.kind not in "buif":
        raise UserError(f"{path}: a map must hold numbers, got {values.dtype}")
    return values


def map_file_shape(path: str | os.PathLike, key: str | None = None) -> tuple[int, int]:
    """Returns (height, width) of a map, from the header of a .png file, else by `read_map`, with its errors."""
    if pathlib.Path(path).suffix.lower() == ".png" and (size := header_size(path)) is not None:
        return size
    return read_map(path, key).shape


def read_rule(maps: MapFiles) -> str:
    """Describes how the values of a set are read, judging by its first file.

    Raises:
      UserError: if a file cannot be read.
    """
    values = read_map(maps.paths[0], maps.key)
    if not np.issubdtype(values.dtype, np.integer):
        return f"{values.dtype}, {'logits' if maps.logits else 'p = value'}"
    return "integers 0 and 1" if maps.zero_one else f"{values.dtype}, p = value / {_full(values.dtype)}"


def _full(dtype: np.dtype) -> int:
    """Returns the integer that stands for p = 1 if the values are not only 0 and 1."""
    return 65535 if dtype == np.uint16 else 255


def header_size(path: str | os.PathLike) -> tuple[int, int] | None:
    """Returns (height, width) from the header of an image file; None for a file that Pillow cannot identify."""
    from PIL import Image, UnidentifiedImageError

    with reading(path):
        try:
            with Image.open(path) as image:
                return image.size[1], image.size[0]
        except (UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError):
            return None


class _MapError(UserError):
    """Raised for a file whose content is not a map."""


def _read_png(data: bytes, path: pathlib.Path, key: str | None) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    try:
        opened = Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        raise _MapError("not a readable map (no image format that Pillow knows)") from error
    with opened as image:
        if image.mode == "L":
            return np.asarray(image)
        if image.mode not in ("1", "I", "LA") and not image.mode.startswith("I;16"):
            colours = np.asarray(image.convert("RGB"))
            if (colours != colours[..., :1]).any():
                raise _MapError(f"a colour picture ({image.mode}); a gray map is wanted")
    return decode_image(data, path)


def _read_tiff(data: bytes, path: pathlib.Path, key: str | None) -> np.ndarray:
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        if len(file.pages) != 1:
            raise _MapError(f"{len(file.pages)} pages; one is wanted")
        if file.pages[0].dtype is None or file.pages[0].dtype.kind == "f":
            values = file.pages[0].asarray()
            return values.astype(values.dtype.newbyteorder("="))
    return decode_image(data, path)


def _read_npy(data: bytes, path: pathlib.Path, key: str | None) -> np.ndarray:
    values = np.load(io.BytesIO(data), allow_pickle=False)
    if not isinstance(values, np.ndarray):
        raise _MapError("not a single array, in spite of its ending")
    return values


def _read_npz(data: bytes, path: pathlib.Path, key: str | None) -> np.ndarray:
    content = np.load(io.BytesIO(data), allow_pickle=False)
    if isinstance(content, np.ndarray):
        raise _MapError("a single array, in spite of its ending; call it .npy")
    with content as file:
        if key is None and len(file.files) != 1:
            names = ", ".join(file.files[:8]) or "none"
            raise _MapError(f"{len(file.files)} arrays ({names}); say which with --key")
        name = file.files[0] if key is None else key
        if name not in file.files:
            raise _MapError(f"no array {name!r}; it has {', '.join(file.files[:8])}")
        return file[name]


def _read_mat(data: bytes, path: pathlib.Path, key: str | None) -> np.ndarray:
    from scipy.io import loadmat, whosmat
    from scipy.io.matlab import MatReadError

    name = MAT_VARIABLE if key is None else key
    try:
        content = loadmat(io.BytesIO(data), variable_names=[name])
    except NotImplementedError as error:
        raise _MapError("a MATLAB 7.3 file; save it with -v7") from error
    except MatReadError as error:
        raise _MapError(f"not a readable MATLAB file ({error})") from error
    if name not in content:
        names = ", ".join(entry[0] for entry in whosmat(io.BytesIO(data))) or "none"
        raise _MapError(f"no variable {name!r}; it has {names}; say which with --key")
    return np.asarray(content[name])


_READERS = {
    ".png": _read_png,
    ".tif": _read_tiff,
    ".tiff": _read_tiff,
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".mat": _read_mat,
}


def resize_bilinear(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes a map bilinearly without antialiasing, with pixel centres at half-integers and edges extended.

    Args:
      values: [H, W]; booleans count as 0 and 1.
      height: new number of rows.
      width: new number of columns.

    Returns:
      [height, width] floating, within the range of `values`.
    """
    values = np.asarray(values)
    if not np.issubdtype(values.dtype, np.floating):
        values = values.astype(np.float32)
    limits = values.min(), values.max()
    for axis, size in enumerate((height, width)):
        length = values.shape[axis]
        place = np.clip((np.arange(size) + 0.5) * (length / size) - 0.5, 0, length - 1)
        first = np.minimum(place.astype(int), max(length - 2, 0))
        second = np.minimum(first + 1, length - 1)
        part = (place - first).astype(values.dtype).reshape([-1, 1] if axis == 0 else [1, -1])
        low, high = np.take(values, first, axis), np.take(values, second, axis)
        values = low + (high - low) * part
    return np.clip(values, *limits)  # rounding errors may exceed the limits


def write_map(path: pathlib.Path, probabilities: np.ndarray, threshold: float = 0.5) -> None:
    """Writes a map of probabilities as an 8-bit PNG.

    Args:
      path: path of the file.
      probabilities: [H, W] float32 in [0, 1].
      threshold: the threshold whose mask is preserved: level / 255 exceeds it exactly where the probability does,
        because values are never rounded across it. For other thresholds the mask may change.
    """
    from PIL import Image

    with atomic_path(path) as unfinished:
        Image.fromarray(eight_bit(probabilities, threshold)).save(unfinished, format="PNG")


def eight_bit(probabilities: np.ndarray, threshold: float) -> np.ndarray:
    """Returns the levels [H, W] uint8 nearest to 255 p that lie on the same side of the threshold as p."""
    values, cut = np.asarray(probabilities, np.float32), np.float32(threshold)
    levels = np.rint(255.0 * values.astype(np.float64)).astype(np.int16)
    read = levels.astype(np.float32) / np.float32(255)  # as `MapFiles` reads them
    levels += (values > cut) & (read <= cut)
    levels -= (values <= cut) & (read > cut)
    return levels.astype(np.uint8)
