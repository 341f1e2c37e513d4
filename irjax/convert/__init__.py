"""Conversion of published PyTorch checkpoints to variables and back, with one table for each method.

A table maps the path of each flax submodule to the name of the corresponding PyTorch submodule. Everything else
(layouts, collections, shapes, completeness) is the same for all methods and is implemented here.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from irjax.convert.files import ENDINGS as ENDINGS
from irjax.convert.files import read_file
from irjax.errors import UserError
from irjax.types import Array

_TABLES = {"mshnet": "irjax.convert.mshnet", "spire": "irjax.convert.spire"}
_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
_COUNTER = "num_batches_tracked"  # counter of PyTorch's batch normalisation; unused with a fixed momentum
# Buffers that are no weights; the others are of averaged models, and of a program that counts operations.
_COUNTERS = (_COUNTER, "n_averaged", "total_ops", "total_params")
_WRAPPERS = ("model", "state_dict", "net", "model_state_dict", "net_state_dict", "network")
_PREFIXES = ("module.", "model.", "net.", "network.", "_orig_mod.")  # wrapping and compiled modules add them
_LISTED = 8


def from_torch(method: str, file_or_state_dict: str | os.PathLike | Mapping[str, Any]) -> dict[str, Any]:
    """Converts a published PyTorch checkpoint to variables.

    Args:
      method: name of the method, such as "spire".
      file_or_state_dict: what `read_checkpoint` takes.

    Returns:
      ``{"params": ..., "batch_stats": ...}``, nested dicts of float32 numpy arrays, for the method's module.

    Raises:
      MissingFileError: if there is no such file.
      ImportError: if a file is given and PyTorch is not installed.
      UserError: if the method is unknown, the file is not a checkpoint of it, or keys are missing, extra or have a
        wrong shape; the message lists them.
    """
    return read_checkpoint(file_or_state_dict, method)[1]


def read_checkpoint(
    file_or_state_dict: str | os.PathLike | Mapping[str, Any], method: str | None = None
) -> tuple[str, dict[str, Any]]:
    """Converts a published PyTorch checkpoint to variables, whichever method it is of.

    Args:
      file_or_state_dict: a file that `torch.save` wrote (reading it requires PyTorch) with a state_dict, alone or in a
        dict under ``model``, ``state_dict``, ``net`` (which is the order of choice), ``model_state_dict``,
        ``net_state_dict`` or ``network``; or such a dict itself, with numpy or PyTorch values. All else in the dict is
        left out, as are counters. The number of input channels is that of the first convolution, and prefixes of all
        keys such as ``module.`` and ``model.`` are dropped.
      method: name of the method; None to tell it by the keys.

    Returns:
      Name of the method, and its variables as `from_torch` returns them.

    Raises:
      MissingFileError: if there is no such file.
      ImportError: if a file is given and PyTorch is not installed.
      UserError: if the method is unknown, the file is not a checkpoint of it or, without one, of any, or keys are
        missing, extra or have a wrong shape; the message lists them.
    """
    if method is not None:
        _table(method)  # an unknown name is refused before anything is read
    if isinstance(file_or_state_dict, Mapping):
        where, loaded = "state_dict", file_or_state_dict
    else:
        where, loaded = os.fspath(file_or_state_dict), read_file(file_or_state_dict)
    state = _state_dict(loaded, where)
    told = _told(state)
    if method and told not in (None, method):
        raise UserError(f"{where} is not a {method} checkpoint, but one of {told} by its keys")
    name = method or told
    if name is None:
        known = ", ".join(sorted(_TABLES))
        raise UserError(f"{where} is a checkpoint of none of the methods {known}; its keys: {_few(sorted(state))}")
    return name, _convert(name, _table(name), state, where)


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


def _state_dict(loaded: Any, where: str) -> dict[str, np.ndarray]:
    """Returns a dict of parameter names to numpy arrays, without counters and common prefixes."""
    found = _unwrapped(loaded)
    if found is None:
        entries = loaded.items() if isinstance(loaded, Mapping) else ()
        types = [f"{key} ({type(value).__name__})" for key, value in entries]
        raise UserError(
            f"{where}: a state_dict (name to tensor) was expected, alone or under the key {', '.join(_WRAPPERS)}; "
            f"found {_few(types) or type(loaded).__name__}"
        )
    state = {key: value for key, value in found.items() if key.rpartition(".")[2] not in _COUNTERS}
    while prefix := next((p for p in _PREFIXES if state and all(key.startswith(p) for key in state)), ""):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    try:
        # numpy converts PyTorch tensors once they are detached from the graph.
        return {key: np.asarray(v.detach().cpu().float() if hasattr(v, "detach") else v) for key, v in state.items()}
    except (RuntimeError, TypeError) as error:
        raise UserError(f"{where}: dense tensors with values were expected, and some are not") from error


def _unwrapped(loaded: Any, depth: int = 3) -> Mapping[str, Any] | None:
    """Returns the state_dict in a checkpoint, at most so many dicts deep; None if there is none."""
    if not isinstance(loaded, Mapping) or not loaded or not depth:
        return None
    if all(isinstance(key, str) and hasattr(value, "shape") for key, value in loaded.items()):
        return loaded
    inner = (_unwrapped(loaded.get(key), depth - 1) for key in _WRAPPERS)
    return next((state for state in inner if state is not None), None)


def _told(state: Mapping[str, Any]) -> str | None:
    """Returns the method that has most of its layers among the keys of a state_dict; None if none has half of them."""
    layers = {key.rpartition(".")[0] for key in state}

    def share(method: str) -> float:
        wanted = set(_table(method).MODULES.values())
        return len(wanted & layers) / len(wanted)

    best = max(_TABLES, key=share)
    return best if share(best) > 0.5 else None


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
    return [f"{len(names)} {what}: {_few(names)}"] if names else []


def _few(names: list[str]) -> str:
    """Returns the first names, without what a terminal would obey, and how many more there are."""
    shown = (name if name.isprintable() else repr(name) for name in names[:_LISTED])
    return ", ".join(shown) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")
