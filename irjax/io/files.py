"""Atomic writing of files and folders: everything is written under a temporary name and then renamed."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

from irjax.errors import FileError, reading, writing


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path in the same folder, which is renamed to `path` when the block ends without an error.

    Missing parent folders are created. The temporary name keeps the extension, from which writers infer the format.

    Raises:
      FileError: for an error of the operating system, also within the block; the message names `path`.
    """
    path = pathlib.Path(path)
    with writing(path), contextlib.ExitStack() as afterwards:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = pathlib.Path(name)
        afterwards.callback(temporary.unlink, missing_ok=True)
        yield temporary
        # mkstemp creates private files; the result gets the default permissions of a new file.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        os.replace(temporary, path)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file written by irjax.

    Raises:
      MissingFileError: if there is no such file.
      FileError: if it cannot be read or is not JSON; the message names it.
    """
    with reading(path):
        text = pathlib.Path(path).read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise FileError(f"{os.fspath(path)}: not JSON: {error}") from error


def json_values(value: Any) -> Any:
    """Converts a value for JSON: NumPy numbers to Python's, arrays and tuples to lists, nan and infinities to None.

    JSON has no nan: a reader that follows the standard would reject the whole file.
    """
    if isinstance(value, dict):
        return {str(key): json_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_values(item) for item in value]
    if hasattr(value, "tolist"):
        return json_values(value.tolist())
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: str | os.PathLike, value: Any, *, indent: int | None = 2) -> None:
    """Writes standard JSON atomically; nan and infinities become null."""
    write_text(path, json.dumps(json_values(value), indent=indent, allow_nan=False) + "\n")


@contextlib.contextmanager
def whole_folder(folder: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary folder, whose content is moved into `folder` when the block ends without an error.

    Until then the previous content of `folder` is unchanged. Entries of the same name are then replaced, subfolders as
    a whole, so that no files of an earlier report remain among the new ones; other entries are not touched.

    Raises:
      FileError: for an error of the operating system, also within the block; the message names `folder`.
    """
    folder = pathlib.Path(folder)
    with writing(folder):
        with _new_folder(folder) as temporary:
            yield temporary


@contextlib.contextmanager
def _new_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=".report-", dir=folder))
    try:
        try:
            yield temporary
        except FileError as error:
            # The message names the final path, because the temporary folder is removed.
            raise type(error)(str(error).replace(str(temporary), str(folder))) from error
        for entry in sorted(temporary.iterdir()):
            goal = folder / entry.name
            if goal.is_dir() and not goal.is_symlink():
                shutil.rmtree(goal)
            os.replace(entry, goal)
        made = []
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for path in made:
            with contextlib.suppress(OSError):  # another process has written to it
                path.rmdir()
