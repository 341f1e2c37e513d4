"""Errors that a user can mend: commands turn them, and no others, into one line.

Files are read inside of `reading` and written inside of `writing`, which make a `FileError` of what the system refuses.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import ClassVar, NoReturn


class UserError(ValueError):
    """Something that a caller gave cannot be used.

    The message says what came, what was wanted and, where there is one, in which file.
    """

    exit_status: ClassVar[int] = 1


class TrainingError(UserError):
    """Training cannot go on; the run directory holds what was reached."""


class UsageError(UserError):
    """An argument that cannot be meant, whatever the disk holds; commands end as for one that their parser refuses.

    It is out of its range, not among its names, or at odds with another argument.
    """

    exit_status: ClassVar[int] = 2


class FileError(UserError, OSError):
    """A file or folder cannot be read or written; the message names it."""


class MissingFileError(FileError, FileNotFoundError):
    """A file or folder that a caller named is not there."""


class MissingPackageError(UserError, ImportError):
    """A package that only an extra of irjax installs is needed and absent; the message names the extra."""


@contextlib.contextmanager
def reading(path: str | os.PathLike) -> Iterator[None]:
    """What the system refuses in this block, or text in another encoding than UTF-8, is an error of reading `path`.

    Raises:
      MissingFileError: for a file that is not there.
      FileError: for anything else that the system says, and for text that is not UTF-8.
    """
    try:
        yield
    except (UserError, BrokenPipeError):  # a broken pipe is of what is printed, not of a file
        raise
    except FileNotFoundError as error:
        raise MissingFileError(f"there is no file or folder {os.fspath(path)}") from error
    except OSError as error:
        raise FileError(f"cannot read {os.fspath(path)}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise FileError(f"{os.fspath(path)}: not a text file in UTF-8 ({error})") from error


def check_folder(path: str | os.PathLike) -> pathlib.Path:
    """The path of a folder that must be there.

    Raises:
      MissingFileError: if it is not.
      FileError: if the system does not say, as for a folder in one that must not be read.
    """
    path = pathlib.Path(path)
    with reading(path):
        if path.is_dir():
            return path
    raise MissingFileError(f"there is no folder {path}")


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """What the system refuses in this block is an error of writing `path`.

    Raises:
      FileError: for what the system says, such as a full disk or a file in the way.
    """
    try:
        yield
    except (UserError, BrokenPipeError):
        raise
    except OSError as error:
        raise FileError(f"cannot write {os.fspath(path)}: {error.strerror or error}") from error


class CommandExit(SystemExit):
    """The end of a command that failed; `str` is the line that it printed, `code` its exit status."""

    def __init__(self, line: str, status: int):
        super().__init__(line)
        self.code = status


def stop(message: str, status: int) -> NoReturn:
    """Ends a command with one line, ``error: MESSAGE``, on stderr."""
    line = f"error: {' '.join(message.split())}"
    print(line, file=sys.stderr)
    raise CommandExit(line, status)


@contextlib.contextmanager
def stopping() -> Iterator[None]:
    """Ends a command where the block raises a `UserError`: in one line, with the error's exit status."""
    try:
        yield
    except UserError as error:
        stop(str(error) or type(error).__name__, error.exit_status)
