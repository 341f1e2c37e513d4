"""The command `irjax`: its subcommands are the modules of `irjax.commands`.

Mistakes of the caller end in one line, ``error: ...``, and exit status 1.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import irjax
from irjax.commands import COMMANDS
from irjax.errors import UserError


class _Parser(argparse.ArgumentParser):
    """A parser whose errors look like all others."""

    def error(self, message: str) -> NoReturn:
        sys.exit(f"error: {message}; see {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line.

    Args:
      arguments: without the program's name; those of the process by default.

    Raises:
      SystemExit: with a message and status 1 for a mistake of the caller, 130 after an interruption.
    """
    command = _parser().parse_args(arguments)
    try:
        command.run(command)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of a pipe, such as head, has seen enough. Python would complain again when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except UserError as error:
        raise SystemExit(f"error: {_line(error)}") from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="irjax", description="Infrared small target detection in JAX.")
    parser.add_argument("--version", action="version", version=f"irjax {irjax.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = importlib.import_module(f"irjax.commands.{name}")
        command = commands.add_parser(name, help=module.SUMMARY, description=module.DESCRIPTION)
        command.set_defaults(run=getattr(module, "run", None))
        module.add_arguments(command)
    return parser
