"""Reads map files of any program, one by one, as probabilities; errors name the file.

| extension | content |
|---|---|
| .png, .bmp | 1, 8 or 16 bit; gray, or colour with equal channels |
| .jpg, .jpeg, .webp | the same, with channels that are equal but for the compression |
| .tif, .tiff | one page; 8 or 16 bit, or float |
| .npy | one array |
| .npz | its only array, or the one called `key` |
| .mat | MATLAB; the one called `key`, else the variable T (as RPCANet writes it), else the only array |

An array is [H, W], with any axes of length 1 before or after it. One array may also hold all maps, [N, H, W] or
[H, W, N], if their N names are given.

Floats are used unscaled; 8-bit values are p = value / 255, 16-bit values p = value / 65535. Integers are p = 0 and
p = 1 only if all values in the whole set are 0 or 1: a single 8-bit map that peaks at 1 of 255 is not a mask. Raw
responses are brought to [0, 1] by `MapFiles.scale`.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import io
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from irjax.errors import MissingFileError, UsageError, UserError, reading
from irjax.io.files import atomic_path
from irjax.io.headers import header_size
from irjax.io.images import decode, decode_image, read_bytes
from irjax.io.matlab import read_mat
from irjax.metrics import inputs

MAT_VARIABLE = "T"
ROUNDING = 1e-4  # floats that lie outside of [0, 1] by no more are clipped
SCALES = {
    "max": "value / maximum of each map",
    "minmax": "(value - minimum) / (maximum - minimum) of each map",
    "255": "value / 255",
}
_COMPRESSED = (".jpg", ".webp")
_SPREAD = 3  # levels by which the channels of a gray picture differ after lossy compression, at most


@dataclasses.dataclass(frozen=True)
class MapFiles:
    """A folder of predicted maps, or one array of them, read on access; picklable, for worker processes.

    Attributes:
      folder: path of the folder or of the array's file.
      paths: paths of the files, in sorted order; of one array its path for each map.
      key: name of the array in .npz and .mat files; None for the only array, in .mat files `MAT_VARIABLE` first.
      logits: whether floats are logits, which may have any finite value.
      images: name of each map's image; if empty, the file names are used.
      scale: how raw responses become values in [0, 1], one of `SCALES`; None leaves the values as they are.
      stacked: whether one file holds all maps.
      left_out: names of the files of the folder that could be maps and were not taken.
    """

    folder: str
    paths: tuple[str, ...]
    key: str | None = None
    logits: bool = False
    images: tuple[str, ...] = ()
    scale: str | None = None
    stacked: bool = False
    left_out: tuple[str, ...] = ()

    def __post_init__(self):
        if self.scale is not None and self.scale not in SCALES:
            raise UsageError(f"the scale of maps must be one of {', '.join(SCALES)}, got {self.scale!r}")
        if self.scale is not None and self.logits:
            raise UsageError("maps are logits or raw responses that are scaled, not both")

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name != "_stack"}

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the images or, if not given, paths of the files below the folder, with "/", in order."""
        if self.images:
            return self.images
        if not os.path.isdir(self.folder):
            return tuple(os.path.basename(path) for path in self.paths)
        return tuple(pathlib.Path(path).relative_to(self.folder).as_posix() for path in self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        """Reads map `index`.

        Returns:
          [H, W], bool or floating: probabilities, or logits if the set holds logits.

        Raises:
          IndexError: if the index is outside the set.
          UserError: if the file cannot be read, is not a map, or holds values out of range; the message names it.
        """
        return self._read(index)[0]

    def stored(self, index: int) -> np.ndarray:
        """Returns map `index` as it is stored, [H, W]; with the errors of `read_map`."""
        return self._stack[index] if self.stacked else read_map(self.paths[index], self.key)

    def shape(self, index: int) -> tuple[int, int]:
        """Returns (height, width) of map `index`, from the header of its file where possible."""
        return self._stack.shape[1:] if self.stacked else map_file_shape(self.paths[index], self.key)

    def clipped(self) -> list[str]:
        """Returns the names of the maps with values outside of [0, 1] by at most `ROUNDING`; reads all maps of floats.

        Raises:
          UserError: as for reading a map.
        """
        if self.logits or (self.scale is None and _kind(pathlib.Path(self.paths[0])) in _PICTURES):
            return []
        return [name for index, name in enumerate(self.names) if self._read(index)[1]]

    @functools.cached_property
    def _stack(self) -> np.ndarray:
        return read_stack(self.paths[0], len(self.paths), self.key)

    def _read(self, index: int) -> tuple[np.ndarray, bool]:
        """Returns map `index` and whether a rounding error was clipped."""
        path, values = self.paths[index], self.stored(index)
        if values.dtype == bool:
            return values, False
        if self.scale is None and np.issubdtype(values.dtype, np.integer):
            return self._fraction(values, path), False
        if not (np.isfinite(values.min()) and np.isfinite(values.max())):
            raise UserError(f"{path}: a map must be finite, got NaN or infinity")
        if self.logits:
            return values, False
        if self.scale is not None:
            values = _scaled(values, self.scale, path)
        low, high = float(values.min()), float(values.max())
        if low < -ROUNDING or high > 1 + ROUNDING:
            if self.scale is not None:
                raise UserError(
                    f"{path}: --scale {self.scale} gives {low:g} to {high:g}, and [0, 1] is wanted; --scale minmax "
                    "takes values of any range"
                )
            raise UserError(
                f"{path}: floats must be probabilities in [0, 1], got {low:g} to {high:g}; logits need --logits, raw "
                f"responses --scale {', '.join(SCALES)} (0 to 255: also an integer type)"
            )
        outside = low < 0 or high > 1
        return np.clip(values, 0, 1) if outside else values, outside

    def _fraction(self, values: np.ndarray, path: str) -> np.ndarray:
        if self.logits:
            raise UserError(f"{path}: logits must be floats, got {values.dtype}")
        full = 1 if self.zero_one else _full(values.dtype)
        low, high = int(values.min()), int(values.max())
        if low < 0 or high > full:
            raise UserError(
                f"{path}: {values.dtype} values must lie in 0..{full}, got {low} to {high}; raw responses need --scale"
            )
        return values.astype(bool) if full == 1 else values.astype(np.float32) / np.float32(full)

    @functools.cached_property
    def zero_one(self) -> bool:
        """Whether all integers of the whole set are 0 or 1. Reads files up to the first that has others."""
        for index in range(len(self.paths)):
            values = self.stored(index)
            if not np.issubdtype(values.dtype, np.integer) or values.max() > 1 or values.min() < 0:
                return False
        return True


def _scaled(values: np.ndarray, scale: str, path: str) -> np.ndarray:
    """Scales a raw response by a rule of `SCALES`; a map of one value becomes 0 (`minmax`)."""
    values = values.astype(np.promote_types(values.dtype, np.float32))
    if scale == "255":
        return values / 255
    low, high = values.min(), values.max()
    if scale == "minmax":
        return (values - low) / (high - low) if high > low else np.zeros_like(values)
    if high <= 0 and low < 0:
        raise UserError(f"{path}: --scale max needs values above 0, got {low:g} to {high:g}; --scale minmax takes them")
    return values / high if high > 0 else values


def find_maps(
    folder: str | os.PathLike,
    *,
    key: str | None = None,
    logits: bool = False,
    scale: str | None = None,
    names: Sequence[str] | None = None,
) -> MapFiles:
    """Finds the maps of a folder, or those of one array.

    Args:
      folder: a folder with map files of one kind, in it or in folders below, or one map file. Those below follow those
        in it. Files with other extensions are ignored. Pictures in
        BMP, JPEG and WebP beside maps of another kind are left out. Where a program saved each NAME_Pred beside
        NAME or NAME_GT, the files NAME_Pred are taken. What is left out is in `MapFiles.left_out`.
      key: name of the array in .npz and .mat files.
      logits: whether floats are logits.
      scale: how raw responses become values in [0, 1], one of `SCALES`.
      names: names of the maps of one array [N, H, W] or [H, W, N]; the only file then holds all of them.

    Raises:
      MissingFileError: if there is no such folder or file.
      UsageError: if the scale is unknown, or given for logits.
      UserError: if it holds no maps or maps of different kinds, `key` does not apply, or the names are not those of
        one array.
    """
    folder = pathlib.Path(folder)
    with reading(folder):
        whole = folder.is_dir()
        if not whole and not folder.exists():
            raise MissingFileError(f"there is no folder {folder}")
        entries = sorted(folder.iterdir()) if whole else [folder]
        below = sorted(path for path in folder.glob("*/**/*") if path.is_file()) if whole else []
    files = [path for path in entries if path.is_file() and not path.name.startswith(".")]
    top = [path for path in files if is_map_file(path)]
    nested = [
        path
        for path in below
        if is_map_file(path) and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not top and not nested:
        there = collections.Counter(path.suffix.lower() or "no ending" for path in files)
        folders = [path.name for path in entries if path.is_dir()]
        found = ", ".join(f"{number} {ending}" for ending, number in there.most_common(5)) or "nothing"
        hint = f"; there are folders in it: {', '.join(folders[:5])}" if folders else ""
        raise UserError(f"{folder}: no predicted maps; looked for {', '.join(_READERS)}, found {found}{hint}")
    paths = _predicted(top or nested)
    kinds = collections.Counter(map(_kind, paths))
    if len(kinds) > 1 and len(usual := kinds.keys() - {".bmp", *_COMPRESSED}) == 1:
        paths = [path for path in paths if _kind(path) in usual]
        kinds = collections.Counter(map(_kind, paths))
    if len(kinds) > 1:
        found = ", ".join(f"{number} {ending}" for ending, number in kinds.most_common())
        odd = next(p for p in paths if _kind(p) == kinds.most_common()[-1][0])
        raise UserError(f"{folder}: maps of different kinds ({found}), such as {odd.name}; keep one kind in a folder")
    if key is not None and not kinds.keys() & {".npz", ".mat"}:
        raise UserError(f"{folder}: a key names an array in .npz and .mat files, and these are {next(iter(kinds))}")
    if top:
        paths += [path for path in _predicted(nested) if _kind(path) in kinds]
    taken = set(paths)
    left_out = tuple(path.relative_to(folder).as_posix() for path in (*top, *nested) if path not in taken)
    if names is None:
        return MapFiles(str(folder), tuple(map(str, paths)), key, logits, (), scale, left_out=left_out)
    if len(paths) != 1 or not names:
        raise UserError(f"{folder}: {len(names)} names are for the maps of one file, and there are {len(paths)} files")
    stack = MapFiles(str(folder), (str(paths[0]),) * len(names), key, logits, tuple(names), scale, True, left_out)
    stack.shape(0)  # reads the array, so that a wrong number of names is known at once
    return stack


def is_map_file(path: str | os.PathLike) -> bool:
    """Returns whether the extension of a path is that of maps."""
    return pathlib.Path(path).suffix.lower() in _READERS


def _kind(path: pathlib.Path) -> str:
    ending = path.suffix.lower()
    return {".tiff": ".tif", ".jpeg": ".jpg"}.get(ending, ending)


def _predicted(paths: list[pathlib.Path]) -> list[pathlib.Path]:
    """Returns the files NAME_Pred of a folder in which each has NAME or NAME_GT beside it; else all files."""
    stems = {str(path.with_suffix("")).lower() for path in paths}
    found = [path for path in paths if path.stem.lower().endswith("_pred")]
    names = [str(path.with_suffix("")).lower().removesuffix("_pred") for path in found]
    beside = [any(name + end in stems for end in ("", "_gt", "_mask")) for name in names]
    return found if found and all(beside) else paths


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
    values = _load(pathlib.Path(path), key)
    shape = values.shape
    values = values.reshape(inputs.map_shape(values))
    if values.ndim != 2 or values.size == 0:
        hint = "; if it holds several maps, --names FILE gives their names" if values.ndim == 3 else ""
        raise UserError(f"{os.fspath(path)}: a map must be [H, W], got shape {shape}{hint}")
    return values


def read_stack(path: str | os.PathLike, number: int, key: str | None = None) -> np.ndarray:
    """Reads one array that holds several maps.

    Args:
      path: path of the file; its extension gives the format.
      number: how many maps it holds. If the first and the last axis have this length, the maps lie along the last of a
        .mat file and along the first of any other.
      key: name of the array in .npz and .mat files.

    Returns:
      [number, H, W] of a boolean, integer or floating dtype.

    Raises:
      MissingFileError: if there is no such file.
      UserError: if it cannot be read or does not hold that many maps; the message names it.
    """
    path = pathlib.Path(path)
    values = _load(path, key)
    shape = values.shape
    if len(shape) > 2:
        axes = [axis for axis in (0, len(shape) - 1) if shape[axis] == number]
        if axes:
            values = np.moveaxis(values, axes[-1 if path.suffix.lower() == ".mat" else 0], 0)
            values = values.reshape(number, *inputs.map_shape(values[0]))
    if values.ndim != 3 or len(values) != number or values.size == 0:
        raise UserError(f"{path}: {number} names need an array [{number}, H, W] or [H, W, {number}], got shape {shape}")
    return values


def _load(path: pathlib.Path, key: str | None) -> np.ndarray:
    """Reads the numbers of a file, of any shape."""
    data = read_bytes(path)  # NumPy and SciPy do not close a file that they fail to read
    try:
        values = _READERS[path.suffix.lower()](data, path, key)
    except _MapError as error:
        raise UserError(f"{path}: {error}") from error
    except Exception as error:  # the libraries raise exceptions of many types for a damaged file
        if str(error).startswith(f"{path}: "):
            raise
        raise UserError(f"{path}: not a readable map ({type(error).__name__}: {error})") from error
    if values.dtype.kind not in "buif":
        raise UserError(f"{path}: a map must hold numbers, got {values.dtype}")
    return values


def map_file_shape(path: str | os.PathLike, key: str | None = None) -> tuple[int, int]:
    """Returns (height, width) of a map, from the header of a .png or .bmp file, else by `read_map`, with its errors."""
    if pathlib.Path(path).suffix.lower() in (".png", ".bmp") and (size := header_size(path)) is not None:
        return size
    return read_map(path, key).shape


def read_rule(maps: MapFiles) -> str:
    """Describes how the values of a set are read, judging by its first file.

    Raises:
      UserError: if a file cannot be read.
    """
    values = maps.stored(0)
    if maps.scale is not None:
        rule = f"{values.dtype}, p = {SCALES[maps.scale]}"
    elif not np.issubdtype(values.dtype, np.integer):
        rule = f"{values.dtype}, {'logits' if maps.logits else 'p = value'}"
    else:
        rule = "integers 0 and 1" if maps.zero_one else f"{values.dtype}, p = value / {_full(values.dtype)}"
    if maps.stacked:
        rule += f", {len(maps)} maps in one array"
    if (kind := _kind(pathlib.Path(maps.paths[0]))) in _COMPRESSED:
        rule += f", {kind} (lossy compression may have moved values across a threshold)"
    return rule


def _full(dtype: np.dtype) -> int:
    """Returns the integer that stands for p = 1 if the values are not only 0 and 1."""
    return 65535 if dtype == np.uint16 else 255


class _MapError(UserError):
    """Raised for a file whose content is not a map."""


def _read_picture(data: bytes, path: pathlib.Path, key: str | None) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    try:
        opened = Image.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        raise _MapError("not a readable map (no image format that Pillow knows)") from error
    with opened as image:
        if image.mode == "L":
            return decode(data, path)
        if image.mode not in ("1", "I", "LA") and not image.mode.startswith("I;16"):
            colours = np.asarray(image.convert("RGB"))
            spread = _SPREAD if image.format in ("JPEG", "WEBP") else 0
            if (np.ptp(colours, axis=-1) > spread).any():
                raise _MapError(f"a colour picture ({image.mode}); a gray map is wanted")
    return decode_image(data, path)


def _read_tiff(data: bytes, path: pathlib.Path, key: str | None) -> np.ndarray:
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        if len(file.pages) != 1:
            raise _MapError(f"{len(file.pages)} pages; one is wanted")
        if file.pages[0].dtype is None or file.pages[0].dtype.kind == "f":
            return decode(data, path)
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
    return read_mat(data, path, key, default=MAT_VARIABLE)


_PICTURES = (".png", ".bmp", *_COMPRESSED)
_READERS = {
    **dict.fromkeys((".png", ".bmp", ".jpg", ".jpeg", ".webp"), _read_picture),
    ".tif": _read_tiff,
    ".tiff": _read_tiff,
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".mat": _read_mat,
}


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
