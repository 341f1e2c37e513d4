"""Weight files: safetensors with the detector's configuration and a card, some of which ship with irjax.

A file NAME.safetensors holds every variable under its path (``params/stem1/conv/kernel``); its metadata holds the
configuration and the card as JSON. NAME.md beside it shows the card to people.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from irjax.errors import MissingFileError, UserError, reading
from irjax.reports.files import atomic_path, write_text

if TYPE_CHECKING:
    from irjax.inference import DetectorConfig

# What a reader must know before using weights.
CARD_FIELDS = ("data", "licence", "recipe", "seed", "command", "validation")

_FORMAT = "irjax-weights-1"
_SMALL = 80_000  # values of a kernel
_LARGEST = 24_800_000  # bytes of arrays in a file: it is to stay below 25 MB
_ON_DISK = ("float32", "float16")


def names() -> dict[str, pathlib.Path]:
    """The weights that ship with this installation: name to file, in alphabetical order."""
    return {path.stem: path for path in sorted(pathlib.Path(__file__).parent.glob("*.safetensors"))}


def save_weights(
    path: str | os.PathLike,
    variables: Mapping[str, Any],
    config: DetectorConfig,
    card: Mapping[str, Any],
    *,
    dtype: str = "float32",
) -> pathlib.Path:
    """Writes a weight file, and its card as Markdown beside it; both appear whole or not at all.

    Args:
      path: ends in ``.safetensors``; missing folders are made.
      variables: nested dicts of arrays.
      config: how to run the network.
      card: at least `CARD_FIELDS`, each a JSON value.
      dtype: "float32", or "float16" for half the size: see `on_disk`.

    Returns:
      The path.

    Raises:
      UserError: if the ending or dtype is another, a card field is missing or empty, a value is not finite (in the
        type on disk), or the variables are not those of the configured network.
      FileError: if the files cannot be written; earlier ones are then intact.
    """
    import flax.traverse_util
    import safetensors.numpy

    from irjax.inference import check_variables

    path = pathlib.Path(path)
    if path.suffix != ".safetensors":
        raise UserError(f"a weight file ends in .safetensors, got {path}")
    if dtype not in _ON_DISK:
        raise UserError(f"dtype must be one of {_ON_DISK}, got {dtype!r}")
    missing = [field for field in CARD_FIELDS if card.get(field) in (None, "")]
    if missing:
        raise UserError(f"the card of {path.name} lacks {missing}")
    check_variables(config, variables, path.name)
    tensors = {}
    with np.errstate(over="ignore"):  # reported below
        stored = on_disk(variables, dtype)
    for name, value in flax.traverse_util.flatten_dict(stored, sep="/").items():
        tensors[name] = np.asarray(value, order="C")  # ascontiguousarray would make a vector of a scalar
        if not np.isfinite(tensors[name]).all():
            raise UserError(f"{path.name}: {name} has values that are not finite in {dtype}")
    metadata = {"format": _FORMAT, "config": config.to_json(), "card": json.dumps(dict(card))}
    with atomic_path(path) as temporary:
        temporary.write_bytes(safetensors.numpy.save(tensors, metadata))
    write_text(path.with_suffix(".md"), _markdown(path.stem, config, card))
    return path


def on_disk(variables: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """Variables as a weight file of this dtype has them.

    In a file of float16, vectors and small kernels stay float32, the smallest first, as far as the file stays below
    25 MB. They are few, and what rounding changes is mostly theirs: in MSHNet, probabilities would change by up to .008
    instead of .0014.

    Args:
      variables: nested dicts of arrays.
      dtype: "float32" or "float16".

    Returns:
      The same tree, numpy.
    """
    import jax

    leaves, structure = jax.tree.flatten(jax.tree.map(np.asarray, dict(variables)))
    narrow = np.dtype(dtype).itemsize  # bytes of a value
    room = _LARGEST - sum(leaf.size * (narrow if leaf.ndim > 1 else 4) for leaf in leaves)
    wide = {index for index, leaf in enumerate(leaves) if leaf.ndim <= 1}
    for index in sorted(set(range(len(leaves))) - wide, key=lambda index: leaves[index].size):
        room -= leaves[index].size * (4 - narrow)
        if room < 0 or leaves[index].size >= _SMALL:
            break
        wide.add(index)
    types = ("float32" if index in wide else dtype for index in range(len(leaves)))
    return structure.unflatten(leaf.astype(kind) for leaf, kind in zip(leaves, types, strict=True))


def load_weights(path: str | os.PathLike) -> tuple[dict[str, Any], DetectorConfig, dict[str, Any]]:
    """Reads a weight file.

    Args:
      path: a file from `save_weights`.

    Returns:
      variables (nested dicts of float32 numpy arrays), configuration, card.

    Raises:
      MissingFileError: if there is no such file.
      UserError: if it is damaged or was not written by `save_weights`.
    """
    import flax.traverse_util
    import safetensors

    from irjax.inference import DetectorConfig

    if not pathlib.Path(path).is_file():
        raise MissingFileError(f"no weight file {os.fspath(path)}")
    try:
        with reading(path), safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                found = metadata.get("format")
                raise UserError(f"{os.fspath(path)} is not an irjax weight file: its format is {found!r}")
            flat = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}
    except safetensors.SafetensorError as error:
        raise UserError(f"{os.fspath(path)} is not a readable safetensors file: {error}") from error
    config = DetectorConfig.from_json(metadata.get("config", ""), f"{os.fspath(path)}: configuration")
    try:
        card = json.loads(metadata.get("card", "{}"))
    except json.JSONDecodeError as error:
        raise UserError(f"{os.fspath(path)}: the card is not JSON: {error}") from error
    return flax.traverse_util.unflatten_dict(flat, sep="/"), config, card


def _markdown(name: str, config: DetectorConfig, card: Mapping[str, Any]) -> str:
    def shown(value: Any) -> str:
        return value if isinstance(value, str) else f"```json\n{json.dumps(value, indent=2)}\n```"

    parts = [f"# {name}", *(f"## {field.capitalize()}\n\n{shown(value)}" for field, value in card.items())]
    return "\n\n".join([*parts, f"## Configuration\n\n```json\n{config.to_json()}\n```"]) + "\n"
