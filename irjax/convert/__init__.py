"""Conversion of published PyTorch checkpoints to variables and back, with one table for each method.

A table maps the path of each flax submodule to the name of the corresponding PyTorch submodule. Everything else
(layouts, collections, shapes, completeness) is the same for all methods and is implemented here.
"""

from __future__ import annotations

import importlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from irjax.errors import FileError, MissingFileError, MissingPackageError, UserError, reading
from irjax.types import Array

_TABLES = {"mshnet": "irjax.convert.mshnet", "spire": "irjax.convert.spire"}
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
_COUNTER = "num_batches_tracked"  # counter of PyTorch's batch normalisation; unused with a fixed momentum
_LISTED = 8


def from_torch(method: str, file_or_state_dict: str | os.PathLike | Mapping[str, Any]) -> dict[str, Any]:
    """Converts a published PyTorch checkpoint to variables.

    Args:
      method: name of the method, such as "spire".
      file_or_state_dict: a ``.pth`` file (reading it requires PyTorch) with a state_dict or a dict that has one under
        ``model``, ``state_dict`` or ``net``; or such a dict itself, with numpy or PyTorch values. The number of input
        channels is that of its first convolution, and a prefix ``module.`` on every key is dropped.

    Returns:
      ``{"params": ..., "batch_stats": ...}``, nested dicts of float32 numpy arrays, for the method's module.

    Raises:
      MissingFileError: if there is no such file.
      ImportError: if a file is given and PyTorch is not installed.
      UserError: if the method is unknown, the file is not a checkpoint, or keys are missing, extra or have a wrong
        shape; the message lists them.
    """
    table = _table(method)
    if isinstance(file_or_state_dict, Mapping):
        where, loaded = "state_dict", file_or_state_dict
    else:
        where, loaded = os.fspath(file_or_state_dict), _read_pth(file_or_state_dict)
    state = _state_dict(loaded, where)
    return _convert(method, table, state, where)


def to_torch(method: str, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Converts variables to a state_dict with the published names; the inverse of `from_torch`.

    Args:
      method: name of the method, such as "spire".
      variables: ``{"params": ..., "batch_stats": ...}`` of the method's module.

    Returns:
      PyTorch key to array, float32 in PyTorch's layouts; batch counters, which irjax does not keep, are int64 zeros.

    Raises:
      UserError: if the method is unknown or its table lacks a submodule of the variables.
    """
    table = _table(method)
    state = {}
    for path, value in _flatten(variables).items():
        key = _torch_key(table.MODULES, path)
        state[key] = _to_torch_layout(np.asarray(value, np.float32))
        if path[-1] == "var":
            state[f"{key.rpartition('.')[0]}.{_COUNTER}"] = np.zeros((), np.int64)
    return state


def published_settings(method: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings with which the published program runs converted variables.

    Args:
      method: name of the method, such as "spire".
      variables: from `from_torch`; they determine the number of input channels.

    Returns:
      Field name to value, of fields of `irjax.detector.detector.DetectorConfig`.

    Raises:
      UserError: if the method is unknown.
    """
    table = _table(method)
    by_key = {_torch_key(table.MODULES, path): value for path, value in _flatten(variables).items()}
    return {**table.SETTINGS, "channels": by_key[table.FIRST_KERNEL].shape[2]}


def _table(method: str) -> Any:
    if method not in _TABLES:
        raise UserError(f"no converter for method {method!r}; known: {', '.join(sorted(_TABLES))}")
    return importlib.import_module(_TABLES[method])


def _read_pth(path: str | os.PathLike) -> Any:
    """Loads a ``.pth`` file.

    Only tensors and plain containers are unpickled, so a file cannot run code.
    """
    if not pathlib.Path(path).is_file():
        raise MissingFileError(f"no checkpoint file {os.fspath(path)}")
    try:
        import torch
    except ImportError as error:
        raise MissingPackageError(f"reading {os.fspath(path)} needs PyTorch: pip install 'irjax[torch]'") from error
    try:
        with reading(path):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileError:
        raise
    except Exception as error:  # PyTorch raises various exceptions for a damaged file
        reason = str(error).split("\n")[0]
        raise UserError(f"{os.fspath(path)} is not a PyTorch checkpoint of plain tensors: {reason}") from error


def _state_dict(loaded: Any, where: str) -> dict[str, np.ndarray]:
    """Returns a dict of parameter names to numpy arrays, without batch counters."""
    for key in ("model", "state_dict", "net"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    named = isinstance(loaded, Mapping) and all(isinstance(k, str) and hasattr(v, "shape") for k, v in loaded.items())
    if not named:
        raise UserError(f"{where}: a state_dict (name to tensor), alone or under the key 'model', was expected")
    drop = "module." if loaded and all(key.startswith("module.") for key in loaded) else ""
    state = {key.removeprefix(drop): value for key, value in loaded.items() if not key.endswith(_COUNTER)}
    # numpy converts PyTorch tensors once they are detached from the graph.
    return {key: np.asarray(v.detach().cpu().float() if hasattr(v, "detach") else v) for key, v in state.items()}


def _convert(method: str, table: Any, state: Mapping[str, np.ndarray], where: str) -> dict[str, Any]:
    first = state.get(table.FIRST_KERNEL)
    channels = first.shape[1] if first is not None and first.ndim == 4 else table.CHANNELS[-1]
    if channels not in table.CHANNELS:
        raise UserError(f"{where}: {method} takes {table.CHANNELS} channels, {table.FIRST_KERNEL} has {channels}")
    wanted = {_torch_key(table.MODULES, path): (path, leaf) for path, leaf in _template(table.MODULE, channels).items()}
    problems = _listed("missing", sorted(set(wanted) - set(state))) + _listed("extra", sorted(set(state) - set(wanted)))
    flat, misshaped = {}, []
    for key, (path, leaf) in wanted.items():
        if key not in state:
            continue
        value = _from_torch_layout(state[key].astype(np.float32))
        if value.shape == leaf.shape:
            flat[path] = value
        else:
            shape = _to_torch_layout(np.empty(leaf.shape, np.float32)).shape
            misshaped.append(f"{key} {state[key].shape} instead of {shape}")
    problems += _listed("misshaped", misshaped)
    if problems:
        raise UserError(f"{where} is not a {method} checkpoint: {'; '.join(problems)}")
    return flax.traverse_util.unflatten_dict(flat)


def _template(module: Any, channels: int) -> dict[tuple[str, ...], jax.ShapeDtypeStruct]:
    """Returns the shape of every variable of a module without computing any."""
    images = jnp.zeros((1, 32, 32, channels))
    return _flatten(jax.eval_shape(module.init, jax.random.key(0), images))


def _flatten(variables: Mapping[str, Any]) -> dict[tuple[str, ...], Array]:
    return flax.traverse_util.flatten_dict(dict(variables))


def _torch_key(modules: Mapping[str, str], path: tuple[str, ...]) -> str:
    """Converts ("params", "stem1", "conv", "kernel") to "conv1.weight"."""
    module, leaf = "/".join(path[1:-1]), path[-1]
    if module not in modules or leaf not in _LEAVES:
        raise UserError(f"no published counterpart for the variable {'/'.join(path)}")
    return f"{modules[module]}.{_LEAVES[leaf]}"


def _from_torch_layout(value: np.ndarray) -> np.ndarray:
    """Transposes kernels from OIHW to HWIO; a depthwise kernel [C, 1, k, k] becomes [k, k, 1, C] in the same way."""
    return np.ascontiguousarray(value.transpose(2, 3, 1, 0)) if value.ndim == 4 else value


def _to_torch_layout(value: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(value.transpose(3, 2, 0, 1)) if value.ndim == 4 else value


def _listed(what: str, names: list[str]) -> list[str]:
    """Returns a phrase that lists the first names, or nothing."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return [f"{len(names)} {what}: {', '.join(names[:_LISTED])}{more}"] if names else []
