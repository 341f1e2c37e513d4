"""Reading of the files that `torch.save` writes: tensors and plain values, never code."""

from __future__ import annotations

import os
import pathlib
import re
import warnings
from collections.abc import Callable
from typing import Any

from irjax.errors import MissingFileError, MissingPackageError, UserError, reading

ENDINGS = (".pth", ".pt", ".pkl", ".tar", ".ckpt", ".bin")  # .pth.tar is a .tar
_TORCH = "2.10"  # with weights_only, a file can still run code in earlier versions (CVE-2025-32434, CVE-2026-24747)


class _Nothing:
    """What is read in the place of a value beside the weights, such as a NumPy scalar: nothing of it is kept."""

    def __new__(cls, *arguments: Any) -> _Nothing:
        return super().__new__(cls)

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _stand_in(module: str, name: str) -> Any:
    """Returns what stands for a type of this name: PyTorch finds allowed types by module and name."""
    if (module, name) in _CONTAINERS:
        container = _CONTAINERS[module, name]

        def empty(*arguments: Any) -> Any:  # PyTorch fills dicts and lists alone
            return container()

        empty.__module__, empty.__qualname__ = module, name
        return empty
    return type(name, (_Nothing,), {"__module__": module, "__qualname__": name})


_CONTAINERS: dict[tuple[str, str], Callable[[], Any]] = {
    ("collections", "defaultdict"): dict,
    ("collections", "deque"): list,
}
_ALLOWED = {
    "numpy": "dtype ndarray",
    "numpy.core.multiarray": "scalar _reconstruct",  # NumPy 1
    "numpy._core.multiarray": "scalar _reconstruct",
    "argparse": "Namespace",
    "types": "SimpleNamespace",
    "collections": "defaultdict deque",
    "builtins": "bool dict float frozenset int list str tuple",  # frozen sets, and what a defaultdict makes
    "datetime": "date datetime timedelta",
    "pathlib": "Path PosixPath PurePosixPath PureWindowsPath WindowsPath",
    "pathlib._local": "Path PosixPath PurePosixPath PureWindowsPath WindowsPath",  # Python 3.13
    "torch.torch_version": "TorchVersion",
}
_STAND_INS = [_stand_in(module, name) for module, names in _ALLOWED.items() for name in names.split()]


def read_file(path: str | os.PathLike) -> Any:
    """Returns what `torch.save` wrote into a file: dicts and lists of tensors (on the CPU) and plain values.

    Objects of the few other types that are allowed (NumPy scalars, namespaces, paths, dates) are read as empty ones. An
    object of any other type, which could run code, is refused.

    Raises:
      MissingFileError: if there is no such file.
      MissingPackageError: if PyTorch is missing, or too old to be safe.
      UserError: if the file is damaged, of another kind, or holds an object of another type, which is named.
    """
    where = os.fspath(path)
    if not pathlib.Path(path).is_file():
        raise MissingFileError(f"no checkpoint file {where}")
    try:
        import torch
    except ImportError as error:
        raise MissingPackageError(f"reading {where} needs PyTorch: pip install 'irjax[torch]'") from error
    if torch.__version__ < _TORCH:
        raise MissingPackageError(
            f"reading {where} needs PyTorch {_TORCH} or later, since a checkpoint can run code in "
            f"{torch.__version__}: pip install --upgrade 'irjax[torch]'"
        )
    with (
        reading(path),
        open(path, "rb") as file,
        warnings.catch_warnings(),
        torch.serialization.safe_globals(_STAND_INS),
    ):
        warnings.simplefilter("ignore")  # what PyTorch warns of is either read all the same or an error below
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except OSError:
            raise
        except Exception as error:  # PyTorch raises various exceptions for a damaged file
            raise UserError(f"{where} {_reason(str(error))}") from error


def _reason(message: str) -> str:
    """Returns in a few words what PyTorch says in many lines."""
    if found := re.search(r"GLOBAL (\S+)", message):
        return (
            f"holds an object of the type {found[1][:100]!r}; only tensors and plain values are read, since other "
            "objects can run code: save the state_dict alone, torch.save(network.state_dict(), FILE)"
        )
    if "TorchScript" in message:
        return "is a TorchScript program; a state_dict is wanted: torch.save(torch.jit.load(FILE).state_dict(), OTHER)"
    if "legacy .tar format" in message:
        return "is not a PyTorch checkpoint but a tar archive: unpack it"
    return "is not a PyTorch checkpoint: it is damaged, or torch.save did not write it"
