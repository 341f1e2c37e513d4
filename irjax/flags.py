"""The command lines of irjax: tyro reads a dataclass, whose fields are the flags and whose docstring is the help.

A wrong command line is a `UsageError` of one line. Only `parse` needs tyro, so that what imports this module runs where
tyro is missing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import os
import shutil
import sys
import textwrap
import types
import typing
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from irjax.errors import UsageError

if TYPE_CHECKING:
    from tyro.constructors import PrimitiveConstructorSpec, PrimitiveTypeInfo

HELP = {"-h", "--help"}


def parse(kind: type, arguments: Sequence[str], program: str, **options: Any) -> Any:
    """Parses a command line.

    Args:
      kind: a dataclass.
      arguments: the words after the program's name.
      program: the name that help and errors call the program by.
      **options: of `tyro.cli`.

    Returns:
      What `tyro.cli` does: an instance of `kind`.

    Raises:
      UsageError: if a word is not one of the flags or values that there are, or one is missing.
      SystemExit: with status 0 after the help, which is plain text of the terminal's width.
    """
    import tyro

    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(_optional)
    # An error's lines are as long as they need to be: words broken at an end could not be put together again.
    width = help_width() if HELP & {*arguments} else 100_000
    output, errors = io.StringIO(), io.StringIO()
    try:
        with _columns(width), contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            found = tyro.cli(kind, args=list(arguments), prog=program, registry=registry, **options)
    except SystemExit as stop:
        if stop.code:
            refuse(_in_one_line(errors.getvalue()), program)
        print(_tidy(output.getvalue(), width))
        raise
    sys.stderr.write(errors.getvalue())  # warnings
    return found


def help_width() -> int:
    """Returns the number of columns of a help text."""
    return min(shutil.get_terminal_size().columns, 100)


def refuse(message: str, program: str) -> NoReturn:
    """Refuses a command line.

    Raises:
      UsageError: always.
    """
    raise UsageError(f"{message}; see {program} --help")


@contextlib.contextmanager
def _columns(width: int) -> Iterator[None]:
    """Sets the width of a terminal that tyro writes for."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(width)
    try:
        yield
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before


def _tidy(text: str, width: int) -> str:
    """Returns a help of tyro with its description in lines, and without empty lines among the flags."""
    lines = [line.rstrip() for line in text.splitlines()]
    kept = [line for line, below in zip(lines, [*lines[1:], ""], strict=True) if line or not below.startswith("  ")]
    fill = functools.partial(textwrap.fill, width=width, break_on_hyphens=False)
    return "\n".join(fill(line) if len(line) > width else line for line in kept).rstrip()


def _in_one_line(text: str) -> str:
    """Returns an error of tyro: a title, then what is wrong, what may have been meant, and where the help is."""
    parts: list[list[str]] = [[]]
    for line in text.splitlines():
        if not line.strip(" -"):
            parts.append([])
        elif not line.startswith(" " * 10):  # the help of a flag
            parts[-1].append(line.strip())
    sentences = [" ".join(part) for part in parts[1:] if part]
    told = [part for part in sentences if not part.startswith(("For full help", "Argument help"))]
    return "; ".join(part if part.startswith("Unrecognized") else part.rstrip(".") for part in told)


def _optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """Makes ``X | None`` be written as X: None is what is not given, and no word for it."""
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

    kinds = set(typing.get_args(info.type)) - {types.NoneType}
    if info.type_origin not in (typing.Union, types.UnionType) or len(kinds) != 1:
        return None
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(kinds.pop(), info.markers))
    if not isinstance(spec, PrimitiveConstructorSpec):
        return None
    return dataclasses.replace(
        spec,
        is_instance=lambda value: value is None or spec.is_instance(value),
        str_from_instance=lambda value: [] if value is None else spec.str_from_instance(value),
    )
