"""The command `irjax`: finds which of `irjax.commands` is meant, and leaves its flags to it.

`irjax -v COMMAND` says on stderr what happens in the background (files left out, programs kept, checkpoints), ``-vv``
also which files are written.

Errors of the caller end in one line on stderr, ``error: ...``: with exit status 2 if the command line itself is wrong,
with 1 if something that it names cannot be used. Internal errors keep their traceback.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence

import irjax
from irjax.commands import COMMANDS
from irjax.errors import stopping
from irjax.flags import HELP, help_width, parse, refuse

_LEVELS = {"-v": logging.INFO, "-vv": logging.DEBUG}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line.

    Args:
      arguments: arguments without the program's name; those of the process by default.

    Raises:
      SystemExit: with status 2 for a wrong command line, 1 for another error of the caller
        (`irjax.errors.CommandExit`), 130 after an interruption.
    """
    try:
        with stopping(), _logged(sys.argv[1:] if arguments is None else arguments) as words:
            _run("irjax", words)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of the pipe, such as head, has closed it. Python would report this again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _logged(words: Sequence[str]) -> Iterator[Sequence[str]]:
    """Gives the words after ``-v`` or ``-vv``, which have what irjax logs shown on stderr."""
    level = _LEVELS.get(words[0]) if words else None
    if level is None:
        yield words
        return
    logger, handler = logging.getLogger("irjax"), logging.StreamHandler()
    before = logger.level
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield words[1:]
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)


def _run(program: str, words: Sequence[str]) -> None:
    """Runs the command that the words after a program, or a group of commands, say."""
    group = program.partition(" ")[2]
    choices = {name.rpartition(" ")[2]: about for name, about in COMMANDS.items() if name.rpartition(" ")[0] == group}
    what = "METHOD" if group == "train" else "COMMAND"
    if not words:
        refuse(f"{what} is missing, one of {', '.join(choices)}", program)
    word, *rest = words
    if word in HELP:
        print(_help(program, group, what, choices))
    elif word == "--version" and not group:
        print(f"irjax {irjax.__version__}")
    elif group == "train":
        from irjax.experiments.command import experiment_of

        experiment_of(word).main(rest, f"{program} {word}")
    elif word not in choices:
        refuse(f"invalid choice {word!r} for {what}, expected one of {', '.join(choices)}", program)
    elif any(name.startswith(f"{word} ") for name in COMMANDS):
        _run(f"{program} {word}", rest)
    else:
        from irjax.commands.shared import MARKERS

        module = importlib.import_module(f"irjax.commands.{group or word}")
        kind = getattr(module, word.title().replace("-", ""))
        parse(kind, rest, f"{program} {word}", config=MARKERS).run()


def _help(program: str, group: str, what: str, choices: Mapping[str, str]) -> str:
    """Returns the help of a program whose first word chooses what it does."""
    version, about = (
        ("", COMMANDS[group]) if group else (" [--version] [-v | -vv]", "infrared small target detection in JAX")
    )
    width, left = help_width(), max(map(len, choices)) + 2
    lines = [f"usage: {program} [-h]{version} {what} ...", ""]
    lines += [*textwrap.wrap(f"{about[0].upper()}{about[1:]}.", width), ""]
    lines += [f"{what} is one of these; {program} {what} --help says more.", ""]
    for name, text in choices.items():
        lines += textwrap.wrap(text, width, initial_indent=f"  {name:{left}}", subsequent_indent=" " * (left + 2))
    return "\n".join(lines)
