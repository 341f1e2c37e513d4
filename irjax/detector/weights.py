"""Weight files: safetensors with the detector's configuration and a card; some of them ship with irjax.

A file NAME.safetensors holds every variable under its path (``params/stem1/conv/kernel``); its metadata holds the
configuration and the card as JSON. NAME.md next to it is the card in readable form.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from irjax.detector import programs
from irjax.errors import MissingFileError, UserError, reading
from irjax.io.files import atomic_path, write_text
from irjax.methods.detector_config import DetectorConfig

# The information that a user of the weights needs.
CARD_FIELDS = ("data", "licence", "recipe", "seed", "command", "validation")

_FORMAT = "irjax-weights-1"
_SMALL = 80_000  # values; smaller kernels may stay float32
_LARGEST = 24_800_000  # bytes of arrays in a file, which must stay below 25 MB
_ON_DISK = ("float32", "float16")


def names() -> dict[str, pathlib.Path]:
    """Returns the weights that ship with this installation: name to file, in alphabetical order."""
    return {path.stem: path for path in sorted((pathlib.Path(__file__).parents[1] / "weights").glob("*.safetensors"))}


def save_weights(
    path: str | os.PathLike,
    variables: Mapping[str, Any],
    config: DetectorConfig,
    card: Mapping[str, Any],
    *,
    dtype: str = "float32",
) -> pathlib.Path:
    """Writes a weight file, and its card as Markdown next to it; each file is written completely or not at all.

    Args:
      path: must end in ``.safetensors``; missing folders are created.
      variables: nested dicts of arrays.
      config: how to run the network.
      card: at least `CARD_FIELDS`, each a JSON value.
      dtype: "float32", or "float16" for half the size: see `on_disk`.

    Returns:
      The path.

    Raises:
      UserError: if the ending or dtype is not supported, a card field is missing or empty, a value is not finite (in
        the type on disk), or the variables are not those of the configured network.
      FileError: if the files cannot be written; earlier ones are then intact.
    """

    import safetensors.numpy  # imported here, so that `import irjax.detector` stays fast

    path = pathlib.Path(path)
    if path.suffix != ".safetensors":
        raise UserError(f"a weight file ends in .safetensors, got {path}")
    if dtype not in _ON_DISK:
        raise UserError(f"dtype must be one of {_ON_DISK}, got {dtype!r}")
    check_card(card, path.name)
    check_variables(config, variables, path.name)
    tensors = {}
    with np.errstate(over="ignore"):  # reported below
        stored = on_disk(variables, dtype)
    for name, value in flax.traverse_util.flatten_dict(stored, sep="/").items():
        tensors[name] = np.asarray(value, order="C")  # ascontiguousarray would turn a scalar into a vector
        if not np.isfinite(tensors[name]).all():
            raise UserError(f"{path.name}: {name} has values that are not finite in {dtype}")
    metadata = {"format": _FORMAT, "config": config.to_json(), "card": json.dumps(dict(card))}
    with atomic_path(path) as temporary:
        temporary.write_bytes(safetensors.numpy.save(tensors, metadata))
    write_text(path.with_suffix(".md"), card_text(path.stem, config, card))
    return path


def on_disk(variables: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """Returns the variables with the types they have in a weight file of this dtype.

    In a float16 file, vectors and small kernels stay float32, smallest first, as long as the file stays below 25 MB.
    They are few, but they cause most of the rounding error: with them in float16, MSHNet's probabilities would change
    by up to .008 instead of .0014.

    Args:
      variables: nested dicts of arrays.
      dtype: "float32" or "float16".

    Returns:
      The same tree, numpy.
    """
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
    stored = [leaf.astype(kind) for leaf, kind in zip(leaves, types, strict=True)]
    return jax.tree.unflatten(structure, stored)


def load_weights(
    path: str | os.PathLike, where: str | None = None
) -> tuple[dict[str, Any], DetectorConfig, dict[str, Any]]:
    """Reads a weight file.

    Args:
      path: a file from `save_weights`.
      where: what errors call it; by default the path.

    Returns:
      Variables (nested dicts of float32 numpy arrays), configuration, card.

    Raises:
      MissingFileError: if there is no such file.
      UserError: if it is damaged or was not written by `save_weights`.
    """

    import safetensors

    where = where or os.fspath(path)
    if not pathlib.Path(path).is_file():
        raise MissingFileError(f"no weight file {where}")
    try:
        with reading(path), safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                found = metadata.get("format")
                raise UserError(f"{where} is not an irjax weight file: its format is {found!r}")
            flat = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}
    except safetensors.SafetensorError as error:
        raise UserError(f"{where} is not a readable safetensors file: {error}") from error
    config = DetectorConfig.from_json(metadata.get("config", ""), f"{where}: configuration")
    try:
        card = json.loads(metadata.get("card", "{}"))
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: the card is not JSON: {error}") from error
    return flax.traverse_util.unflatten_dict(flat, sep="/"), config, card


def check_card(card: Mapping[str, Any], where: str) -> None:
    """Checks that a card has all `CARD_FIELDS`.

    Raises:
      UserError: if it does not; the message names them.
    """
    missing = [field for field in CARD_FIELDS if card.get(field) in (None, "")]
    if missing:
        raise UserError(f"the card of {where} lacks {missing}")


def card_text(name: str, config: DetectorConfig, card: Mapping[str, Any]) -> str:
    """Returns a card as Markdown, with this title."""

    def shown(value: Any) -> str:
        return value if isinstance(value, str) else f"```json\n{json.dumps(value, indent=2)}\n```"

    parts = [f"# {name}", *(f"## {field.capitalize()}\n\n{shown(value)}" for field, value in card.items())]
    return "\n\n".join([*parts, f"## Configuration\n\n```json\n{config.to_json()}\n```"]) + "\n"


def check_variables(config: DetectorConfig, variables: Mapping[str, Any], where: str) -> None:
    """Checks that the variables are those of the configured network.

    Raises:
      UserError: if they are not; the message names the first differences.
    """

    def shapes_wanted() -> bytes:
        images = jnp.zeros((1, config.size, config.size, config.channels))
        template = jax.eval_shape(config.module().init, jax.random.key(0), images)
        flat = flax.traverse_util.flatten_dict(template, sep="/")
        return json.dumps({path: leaf.shape for path, leaf in flat.items()}).encode()

    shapes = json.loads(programs.kept(config, "shapes of its variables", shapes_wanted))
    wanted = {path: tuple(shape) for path, shape in shapes.items()}
    given = flax.traverse_util.flatten_dict({"params": {}, "batch_stats": {}, **variables}, sep="/")
    shapes = {path: np.shape(leaf) for path, leaf in given.items()}
    names = [path for path in sorted({*wanted, *shapes}) if wanted.get(path) != shapes.get(path)]
    if names:
        found = [f"{n}: {shapes.get(n, 'absent')}, wanted {wanted.get(n, 'absent')}" for n in names[:4]]
        raise UserError(
            f"{where}: not the weights of {config.method} with {config.channels} channels and options "
            f"{dict(config.model)}; {len(names)} of {len(wanted)} differ: {'; '.join(found)}"
        )
