"""The command `irjax`; its subcommands are the modules of `irjax.commands`.

Errors of the caller end in one line on stderr, ``error: ...``: with exit status 2 if the command line itself is wrong,
with 1 if something that it names cannot be used. Internal errors keep their traceback.
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
from irjax.errors import stop, stopping


class _Parser(argparse.ArgumentParser):
    """A parser that reports errors in the same form as the commands."""

    def error(self, message: str) -> NoReturn:
        stop(f"{message}; see {self.prog} --help", 2)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line.

    Args:
      arguments: arguments without the program's name; those of the process by default.

    Raises:
      SystemExit: with status 2 for a wrong command line, 1 for another error of the caller
        (`irjax.errors.CommandExit`), 130 after an interruption.
    """
    command = _parser().parse_args(arguments)
    try:
        with stopping():
            command.run(command)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of the pipe, such as head, has closed it. Python would report this again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


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
