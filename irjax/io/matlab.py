"""Reads arrays of MATLAB files of every version.

SciPy reads files up to version 7.2; those of version 7.3 are HDF5, which h5py reads (the extra `mat`). Only arrays of
numbers are looked at: objects, functions and references are never loaded. MATLAB stores the first axis fastest, so HDF5
shows the axes of its arrays in reverse; here they are always as MATLAB shows them.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
from collections.abc import Iterator, Mapping

import numpy as np

from irjax.errors import MissingPackageError, UserError

_HDF5 = b"\x89HDF\r\n\x1a\n"
_HDF5_AT = 512  # MATLAB puts 512 bytes of its own before the content
_NUMBERS = frozenset(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)) | {
    "double",
    "single",
    "logical",
}


def read_mat(
    data: bytes, where: str | os.PathLike, key: str | None = None, *, default: str | None = None, least: int = 2
) -> np.ndarray:
    """Reads one array from the bytes of a file.

    Args:
      data: the content of the file.
      where: names the file in errors.
      key: name of the variable; None for `default` if the file has it, else for the only array (see `choose`).
      default: name of the variable that is meant if the file has it.
      least: see `choose`.

    Returns:
      The array, with the axes in MATLAB's order.

    Raises:
      MissingPackageError: if the file is of version 7.3 and h5py is not installed.
      UserError: if no variable or several could be meant; the message names them.
      Exception: of many types, from the libraries, if the file is damaged.
    """
    with _opened(io.BytesIO(data), data[: _HDF5_AT + len(_HDF5)], where) as file:
        return file.read(choose(file.shapes, where, key, default=default, least=least))


def read_frame(data: bytes, where: str | os.PathLike, page: int, key: str | None, least: int) -> np.ndarray:
    """Reads one image of an array, as `read_mat` does.

    Args:
      data: the content of the file.
      where: names the file in errors.
      page: number of the image from 0; -1 for the last.
      key: name of the variable; None for the only array.
      least: see `choose` and `frame_axis`.

    Returns:
      [H, W], or [H, W, C] with 1, 3 or 4 channels.
    """
    with _opened(io.BytesIO(data), data[: _HDF5_AT + len(_HDF5)], where) as file:
        name = choose(file.shapes, where, key, least=least)
        return file.read(name, frame_axis(file.shapes[name], least), page)


def frame_count(path: str | os.PathLike, key: str | None, least: int) -> int:
    """Returns the number of images in the array of a file, from its header; arguments and errors as in `read_frame`."""
    with open(path, "rb") as handle:
        head = handle.read(_HDF5_AT + len(_HDF5))
    with _opened(os.fspath(path), head, path) as file:
        shape = file.shapes[choose(file.shapes, path, key, least=least)]
    axis = frame_axis(shape, least)
    return 1 if axis is None else shape[axis]


def is_stack(shape: tuple[int, ...]) -> bool:
    """Returns whether an array, of NumPy files too, holds several images: it is neither [H, W] nor [H, W, 1|3|4]."""
    return len(shape) == 3 and shape[2] not in (1, 3, 4)


def frame_axis(shape: tuple[int, ...], least: int) -> int | None:
    """Returns the axis along which the images of an array lie; None if it is one image [H, W] or [H, W, 1|3|4].

    It is the last, as in MATLAB's videos. It is the first if that has fewer than `least` elements, the smallest side of
    an image, or if the other two are equal: [5, 256, 320] and [100, 256, 256].
    """
    if not is_stack(shape):
        return None
    return 0 if shape[0] < least or shape[0] != shape[1] == shape[2] else 2


def choose(
    shapes: Mapping[str, tuple[int, ...]],
    where: str | os.PathLike,
    key: str | None,
    *,
    default: str | None = None,
    least: int = 2,
) -> str:
    """Returns the variable that is meant: `key`, else `default` if it is there, else the only array that it can be.

    It can be an array with two or three axes of which two have at least `least` elements.

    Args:
      shapes: {name: shape} of the arrays of numbers in the file.
      where: names the file in errors.
      key: see above.
      default: see above.
      least: see above.

    Raises:
      UserError: if no variable or several could be meant; the message names them.
    """
    listed = ", ".join(list(shapes)[:8]) or "none"
    if key is not None:
        if key not in shapes:
            raise UserError(f"{os.fspath(where)}: no array {key!r}; it has {listed}")
        return key
    if default in shapes:
        return str(default)
    found = [
        name for name, shape in shapes.items() if len(shape) in (2, 3) and sum(side >= least for side in shape) > 1
    ]
    if len(found) != 1:
        what = f"no variable {default!r}" if default else f"{len(found) or 'no'} variables could be meant"
        raise UserError(f"{os.fspath(where)}: {what}; it has {listed}; say which with --key")
    return found[0]


class _Scipy:
    """A file up to version 7.2."""

    def __init__(self, file: io.BytesIO | str):
        from scipy.io import whosmat

        self._file = file
        found = whosmat(file)
        self.shapes = {name: tuple(shape) for name, shape, kind in found if kind in _NUMBERS}

    def read(self, name: str, axis: int | None = None, page: int = 0) -> np.ndarray:
        assert isinstance(self._file, io.BytesIO)  # of a path, only the header is looked at
        values = _scipy_variable(self._file.getvalue(), name)
        return values if axis is None else values.take(page, axis)


@functools.lru_cache(maxsize=1)  # all pages of a variable are unpacked at once
def _scipy_variable(data: bytes, name: str) -> np.ndarray:
    from scipy.io import loadmat

    return np.asarray(loadmat(io.BytesIO(data), variable_names=[name])[name])


class _Hdf5:
    """A file of version 7.3."""

    def __init__(self, file):
        import h5py

        self._file = file
        self.shapes = {}
        for name, item in file.items():
            kind = item.attrs.get("MATLAB_class", b"")
            kind = kind.decode() if isinstance(kind, bytes) else str(kind)
            numbers = isinstance(item, h5py.Dataset) and item.dtype.kind in "buif" and (not kind or kind in _NUMBERS)
            if numbers and not item.attrs.get("MATLAB_empty", 0):
                self.shapes[name] = tuple(item.shape[::-1])

    def read(self, name: str, axis: int | None = None, page: int = 0) -> np.ndarray:
        stored = self._file[name]
        if axis is None:
            return np.asarray(stored[()]).T
        places: list[slice | int] = [slice(None)] * stored.ndim
        places[stored.ndim - 1 - axis] = page % stored.shape[stored.ndim - 1 - axis]
        return np.asarray(stored[tuple(places)]).T


@contextlib.contextmanager
def _opened(file: io.BytesIO | str, head: bytes, where: str | os.PathLike) -> Iterator[_Scipy | _Hdf5]:
    if _HDF5 not in (head[:8], head[_HDF5_AT:]):
        yield _Scipy(file)
        return
    try:
        import h5py
    except ImportError as error:
        raise MissingPackageError(
            f"{os.fspath(where)}: a MATLAB 7.3 file, which needs h5py: pip install 'irjax[mat]'; or save it with -v7"
        ) from error
    with h5py.File(file, "r") as opened:
        yield _Hdf5(opened)
