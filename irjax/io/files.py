"""Atomic writing of files and folders: everything is written under a temporary name and then renamed.

A folder of results has the file `WRITTEN` beside them, the list of what each command wrote there. The next run of a
command replaces the files of its list and refuses those of nobody's: they are the user's. Versions before there were
lists left none: a folder of theirs is one that holds files by the names that they gave (`_EARLIER`) and nothing else.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import logging
import math
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from irjax.errors import FileError, UsageError, UserError, note, reading, writing

_logger = logging.getLogger(__name__)

WRITTEN = ".irjax-written.json"  # {command: files of its last run}, in a folder of results
_REPORT = (
    *("evaluation.json", "evaluation.csv", "per_image.csv", "sweep.csv", "pr.csv", "roc.csv", "clutter.csv", "roc.png"),
    *("precision_recall.png", "thresholds.png", "overlays/[0-9][0-9]_*.png"),
)
# What commands wrote before there were lists: the files without which a folder is not theirs, and all their files.
_EARLIER: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "irjax predict": (
        ("predictions.json", "predictions.csv"),
        ("predictions.json", "predictions.csv", "masks/*.png", "overlays/[0-9][0-9][0-9][0-9]_*.png"),
    ),
    "irjax compare": (("comparison.json", "comparison.csv"), ("comparison.json", "comparison.csv", "per_image.csv")),
    "irjax train": (("predictions.json", "evaluation.json"), ("predictions.json", "masks/*.png")),
    "irjax evaluate": (("evaluation.json",), _REPORT),
    "irjax datasets inspect": (("inspect.json",), ("inspect.json", "distributions.png", "contact_sheet.png")),
    "irjax analyse scale-loss": (
        ("scale_loss.json",),
        tuple(f"scale_loss.{ending}" for ending in ("png", "svg", "csv", "json")),
    ),
    "irjax analyse relevance": (("selection.json",), ("selection.json", "selection.png", "[0-9][0-9]_*.png")),
    "irjax analyse patches": (("masks.json",), ("masks.json", "[0-9][0-9]_*.png")),
}
_BESIDE = ("tophat.json", *(f"points/{name}" for name in _REPORT), f"points/{WRITTEN}")  # in the folder of a run's test
_UNFINISHED = ".irjax-unfinished-"  # begins the names of temporary folders
_OF_THE_SYSTEM = (".DS_Store", "Thumbs.db", "desktop.ini")  # files that looking into a folder leaves there
# Endings by which a name is taken for that of a file.
_FILE_ENDINGS = frozenset(
    ".png .svg .pdf .jpg .jpeg .gif .bmp .webp .tif .tiff .csv .tsv .json .txt .xml .html .md .npy .npz .mat .mp4 .zip "
    ".safetensors .pth .pt".split()
)


def output_folder(out: str | os.PathLike) -> pathlib.Path:
    """Returns the folder that `--out` names, for a command that writes folders only; see `output_file`."""
    return _place(out, ())[0]


def output_file(out: str | os.PathLike, name: str, endings: Sequence[str]) -> pathlib.Path:
    """Returns the file that `--out` names: `out` if it has one of the endings, else `name` in the folder `out`.

    Raises:
      UsageError: if `out` has another ending. A name that ends in "/", or of a folder that exists, is a folder's.
    """
    path, is_file = _place(out, endings)
    return path if is_file else path / name


def _place(out: str | os.PathLike, endings: Sequence[str]) -> tuple[pathlib.Path, bool]:
    """Returns the path of `--out` and whether it is a file's."""
    path = pathlib.Path(out)
    ending = path.suffix.lower()
    with writing(path):
        is_folder = os.fspath(out).endswith(("/", os.sep)) or path.is_dir()
    if is_folder or not ending:
        return path, False
    if ending in endings:
        return path, True
    # Where a file can be meant, every ending but a number (lr0.05) is one.
    if endings and ending[1:].isalnum() and not ending[1].isdigit():
        raise UsageError(f"a file must end in {', '.join(endings)}, got {os.fspath(out)}; a folder's name can end in /")
    if ending in _FILE_ENDINGS:
        raise UsageError(f"a folder is written, and {os.fspath(out)} looks like a file; a folder's name can end in /")
    return path, False


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields a temporary path, whose file is renamed to `path` when the block ends without an error.

    It lies in a temporary folder beside `path` and has the same name, since writers infer the format from the ending.
    Missing parent folders are created.

    Raises:
      FileError: for an error of the operating system, also within the block, and if the block writes no file of that
        name; the message names `path`.
    """
    path = pathlib.Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".irjax-", dir=path.parent, ignore_cleanup_errors=True) as folder:
            temporary = pathlib.Path(folder, path.name)
            yield temporary
            os.replace(temporary, path)
    _logger.debug("wrote %s", path)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes UTF-8 text atomically; bytes of file names that are no UTF-8 as they are."""
    with atomic_path(path) as temporary:
        # Names of files may have bytes that are no UTF-8, which Python shows as surrogates.
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")


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
def whole_folder(
    folder: str | os.PathLike, command: str = "", *, entries: Collection[str] = (), alone: bool = False
) -> Iterator[pathlib.Path]:
    """Yields a temporary folder, whose content is moved into `folder` when the block ends without an error.

    Until then the previous content of `folder` is unchanged. Then what the last run of the same command wrote there is
    removed, all of it, and the new files take its place. Other files are neither touched nor replaced: where one is in
    the way, or lies in a subfolder of the results, the folder is refused.

    Args:
      folder: the folder; it and missing parents are created.
      command: whose results these are. Without a name nothing is replaced, and no list of files is left in `folder`.
      entries: names that may be written into `folder`; those in the way are found before the block begins, not after.
      alone: refuse a folder with results of other commands, which would be about results that are replaced.

    Raises:
      UserError: if the folder is refused; nothing has been changed.
      FileError: for an error of the operating system, also within the block; the message names `folder`.
    """
    folder = pathlib.Path(folder)
    with writing(folder):
        check_replaceable(folder, command, entries, alone=alone)
        with _new_folder(folder) as temporary:
            yield temporary
            _replace(folder, temporary, command)


def check_replaceable(
    folder: pathlib.Path, command: str, entries: Collection[str] = (), *, alone: bool = False
) -> None:
    """Refuses a folder whose results cannot be replaced; see `whole_folder`.

    Raises:
      UserError: if files that the command did not write are in the way; the message names one.
    """
    written = _read_written(folder)
    if alone and (others := sorted(written.keys() - {command})):
        raise UserError(
            f"{folder} holds what {others[0]} wrote ({written[others[0]][0]}), perhaps about what would be replaced: "
            "give another folder, or remove it"
        )
    own = set(written.get(command, ()))
    own |= {str(parent) for name in own for parent in pathlib.PurePosixPath(name).parents} - {"."}
    for entry in sorted(_entries(own) | set(entries)):
        if strange := [name for name in _files(folder, entry) if name not in own]:
            more = f" and {len(strange) - 1} more" if len(strange) > 1 else ""
            raise UserError(
                f"{folder} holds {strange[0]}{more}, not of an earlier {command or 'irjax'}: nothing else is replaced "
                "or mixed with new files; give another folder, or move it away"
            )


def check_unclaimed(path: pathlib.Path, command: str) -> None:
    """Refuses a file that belongs to the results of another command.

    Raises:
      UserError: if it does.
    """
    for other, names in _read_written(path.parent).items():
        if other != command and path.name in names:
            raise UserError(f"{path} is of the results of {other} there, which stay whole: give another --out")


def _read_written(folder: pathlib.Path) -> dict[str, list[str]]:
    """Returns {command: files, relative to `folder`}; names that leave the folder are ignored."""
    if not os.path.lexists(folder / WRITTEN):
        return _earlier(folder)
    found = read_json(folder / WRITTEN)
    if not (isinstance(found, dict) and all(isinstance(names, list) for names in found.values())):
        raise FileError(f"{folder / WRITTEN}: not a list of written files")
    inside = lambda name: isinstance(name, str) and not {"", ".", ".."} & set(name.split("/"))  # noqa: E731
    kept = {command: [name for name in names if inside(name)] for command, names in found.items()}
    return {command: names for command, names in kept.items() if names}


def _earlier(folder: pathlib.Path) -> dict[str, list[str]]:
    """Returns {command: files} of a folder that an earlier version wrote; {} if there is anything that it did not."""
    if not folder.is_dir():
        return {}
    there = sorted(path.name for path in folder.iterdir() if path.name not in _OF_THE_SYSTEM)
    there = [name for name in there if not name.startswith(_UNFINISHED)]
    known = _entries([*_BESIDE, *(pattern for _, patterns in _EARLIER.values() for pattern in patterns)])
    if not all(_matches(name, known) for name in there):  # before whole folders are listed
        return {}
    names = [name for entry in there for name in _files(folder, entry)]
    found: dict[str, list[str]] = {}
    owned = {name for name in names if _matches(name, _BESIDE)}
    for command, (needed, patterns) in _EARLIER.items():
        if set(needed) <= set(names):
            found[command] = [name for name in names if name not in owned and _matches(name, patterns)]
            owned.update(found[command])
    return {command: own for command, own in found.items() if own} if owned.issuperset(names) else {}


def _matches(name: str, patterns: Collection[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _entries(names: Collection[str]) -> set[str]:
    return {name.partition("/")[0] for name in names}


def _files(folder: pathlib.Path, entry: str) -> list[str]:
    """Returns the files, links and empty subfolders of an entry of a folder, relative to `folder`, sorted."""
    path = folder / entry
    if not os.path.lexists(path):
        return []
    if path.is_symlink() or not path.is_dir():
        return [entry]
    found = []
    for place, folders, files in os.walk(path):
        below = [name for name in files if name not in _OF_THE_SYSTEM]
        below += [""] if not (files or folders) and place != os.fspath(path) else []
        below += [name for name in folders if os.path.islink(os.path.join(place, name))]
        found += [pathlib.Path(place, name).relative_to(folder).as_posix() for name in below]
    return sorted(found)


def _replace(folder: pathlib.Path, new: pathlib.Path, command: str) -> None:
    """Moves everything in `new` into `folder`, in place of what the command wrote there; all or nothing."""
    entries = sorted(path.name for path in new.iterdir())
    check_replaceable(folder, command, entries)
    written = _read_written(folder)
    before = written.get(command, [])
    if before and not os.path.lexists(folder / WRITTEN):
        note(f"{len(before)} files that an earlier version of irjax wrote are replaced: {before[0]} and so on", folder)
    names = [name for entry in entries for name in _files(new, entry)]
    old = new.with_name("old")
    old.mkdir()
    with contextlib.ExitStack() as undo:
        if command:
            # All names first: if the process is killed before the end, the next run knows every file as irjax's.
            undo.callback(_write_written, folder, written, new.parent)
            _write_written(folder, written | {command: sorted({*before, *names})}, new.parent)
        away = [entry for entry in sorted(_entries(before) | set(entries)) if os.path.lexists(folder / entry)]
        moves = [(folder / entry, old / entry) for entry in away]
        for source, goal in [*moves, *((new / entry, folder / entry) for entry in entries)]:
            os.replace(source, goal)
            undo.callback(os.replace, goal, source)
        if command:
            _write_written(folder, written | {command: names}, new.parent)
        undo.pop_all()


def _write_written(folder: pathlib.Path, written: dict[str, list[str]], temporary: pathlib.Path) -> None:
    if written:
        write_json(temporary / WRITTEN, written)
        os.replace(temporary / WRITTEN, folder / WRITTEN)
    else:
        (folder / WRITTEN).unlink(missing_ok=True)


@contextlib.contextmanager
def _new_folder(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a new folder inside a temporary one in `folder`, which is removed at the end."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    _remove_unfinished(folder)
    temporary = pathlib.Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=folder))
    new = temporary / "new"
    try:
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # not every file system has locks
                stack.enter_context(_locked(temporary))
            try:
                new.mkdir()
                yield new
            except FileError as error:
                # The message names the final path, because the temporary folder is removed.
                raise type(error)(str(error).replace(str(new), str(folder))) from error
        made = []
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        for path in made:
            with contextlib.suppress(OSError):  # another process has written to it
                path.rmdir()


def _remove_unfinished(folder: pathlib.Path) -> None:
    """Removes the temporary folders of processes that were killed: nobody holds their lock."""
    for left in folder.glob(f"{_UNFINISHED}*"):
        with contextlib.suppress(OSError), _locked(left):
            shutil.rmtree(left)


@contextlib.contextmanager
def _locked(folder: pathlib.Path) -> Iterator[None]:
    """Locks a folder; the system gives the lock back when the process ends, however it ends.

    Raises:
      OSError: if another process or call has it, or there are no locks.
    """
    if sys.platform == "win32":
        raise OSError("no locks of folders")
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)
