"""Errors that a user can mend: commands turn them, and no others, into one line."""

from __future__ import annotations


class UserError(ValueError):
    """Something that a caller gave cannot be used.

    The message says what came, what was wanted and, where there is one, in which file.
    """


class FileError(UserError, OSError):
    """A file or folder cannot be read or written; the message names it."""


class MissingFileError(FileError, FileNotFoundError):
    """A file or folder that a caller named is not there."""


class MissingPackageError(UserError, ImportError):
    """A package that only an extra of irjax installs is needed and absent; the message names the extra."""
