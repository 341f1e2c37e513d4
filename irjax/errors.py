"""Errors that a user can correct: commands turn these, and no others, into a one-line message.

Files are read inside `reading` and written inside `writing`, which turn system errors into a `FileError`.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar, NoReturn


class UserError(ValueError):
    """A value given by the caller cannot be used.

    The message states the value received, what was expected and, if there is one, the file.
    """

    exit_status: ClassVar[int] = 1


class TrainingError(UserError):
    """Training cannot continue; the run directory holds what was reached."""


class UsageError(UserError):
    """An argument is invalid whatever the disk holds; commands exit as for an argument that their parser refuses.

    It is out of its range, not among the known names, or conflicts with another argument.
    """

    exit_status: ClassVar[int] = 2


class FileError(UserError, OSError):
    """A file or folder cannot be read or written; the message names it."""


class MissingFileError(FileError, FileNotFoundError):
    """A file or folder named by the caller does not exist."""


class MissingPackageError(UserError, ImportError):
    """A package that is needed, and that only an extra of irjax installs, is missing; the message names the extra."""


class Note(UserWarning):
    """Something was done to the caller's data that may not be what was meant; the text says what, and the way out.

    Attributes:
      text: the note, without the file.
      where: the file or whatever it is about; "" if the text says so.
    """

    def __init__(self, text: str, where: str = ""):
        super().__init__(f"{where}: {text}" if where else text)
        self.text, self.where = text, where


def note(text: str, where: str | os.PathLike = "") -> None:
    """Warns with a `Note`; commands print those of one text as one line at their end, ``note: TEXT: FILES``."""
    warnings.warn(Note(text, os.fspath(where)), stacklevel=3)


@contextlib.contextmanager
def reading(path: str | os.PathLike) -> Iterator[None]:
    """Turns system errors in this block, and text that is not UTF-8, into errors of reading `path`.

    Raises:
      MissingFileError: for a file that does not exist.
      FileError: for any other system error, and for text that is not UTF-8.
    """
    try:
        yield
    except (UserError, BrokenPipeError):  # a broken pipe concerns the output, not a file
        raise
    except FileNotFoundError as error:
        raise MissingFileError(f"there is no file or folder {os.fspath(path)}") from error
    except OSError as error:
        raise FileError(f"cannot read {os.fspath(path)}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise FileError(f"{os.fspath(path)}: not a text file in UTF-8 ({error})") from error


def check_folder(path: str | os.PathLike) -> pathlib.Path:
    """Returns the path of a folder that must exist.

    Raises:
      MissingFileError: if it does not.
      FileError: if this cannot be determined, for example for a folder inside an unreadable one.
    """
    path = pathlib.Path(path)
    with reading(path):
        if path.is_dir():
            return path
    raise MissingFileError(f"there is no folder {path}")


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """Turns system errors in this block into errors of writing `path`.

    Raises:
      FileError: for a system error, such as a full disk or an existing file in place of a folder.
    """
    try:
        yield
    except (UserError, BrokenPipeError):
        raise
    except OSError as error:
        raise FileError(f"cannot write {os.fspath(path)}: {error.strerror or error}") from error


class CommandExit(SystemExit):
    """The exit of a command that failed; `str` is the line that it printed, `code` its exit status."""

    def __init__(self, line: str, status: int):
        super().__init__(line)
        self.code = status


def stop(message: str, status: int) -> NoReturn:
    """Exits a command with one line, ``error: MESSAGE``, on stderr."""
    line = f"error: {' '.join(message.split())}"
    print(line, file=sys.stderr)
    raise CommandExit(line, status)


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Exits the command if the block raises a `UserError`: with one line and the error's exit status.

    Notes of the block are printed at its end, one line for those of one text.
    """
    notes: dict[str, list[str]] = {}

    def collect(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if isinstance(message, Note):
            notes.setdefault(message.text, []).append(message.where)
        else:
            others(message, category, *where, **more)

    with warnings.catch_warnings():
        warnings.simplefilter("always", Note)
        others, warnings.showwarning = warnings.showwarning, collect
        try:
            yield
        except UserError as error:
            stop(str(error) or type(error).__name__, error.exit_status)
        finally:
            for text, found in notes.items():
                files = list(dict.fromkeys(filter(None, found)))
                more = f" and {len(files) - 3} more" if len(files) > 3 else ""
                about = f": {', '.join(files[:3])}{more}" if files else ""
                print(f"note: {' '.join(text.split())}{about}", file=sys.stderr)
