"""Randomness by purpose: one way to derive a key, or a generator of the host, for each thing that is drawn.

``jax.random.split(key, n)[i]`` and ``jax.random.fold_in(key, i)`` are the same key, so places and numbers must not be
mixed. In irjax a key is folded either with numbers that count something (steps, draws, levels) or with the hashes of
names here, never with both, and it is never split. On the host, the draws behind what is published (synthetic scenes,
carved lists, bootstrap intervals) keep the plain generators of their seeds.
"""

from __future__ import annotations

import zlib

import jax
import numpy as np


def _code(purpose: str) -> int:
    """A number of 32 bits for a name, the same everywhere and always."""
    return zlib.crc32(purpose.encode())


def purpose_key(key: jax.Array, purpose: str) -> jax.Array:
    """The key of one purpose, such as ``"photometry"``.

    Args:
      key: a typed key, from which only purposes are derived.
      purpose: its name; another for each thing that is drawn from the same key.

    Returns:
      A key, of the shape of `key`.
    """
    return jax.random.fold_in(key, np.uint32(_code(purpose)))


def purpose_generator(purpose: str, *numbers: int) -> np.random.Generator:
    """The host's generator of one purpose.

    Args:
      purpose: the name of what is drawn.
      *numbers: not negative, such as the seed and the number of the epoch.
    """
    # numpy takes missing numbers for zeros: the name comes first, and the count of numbers second.
    return np.random.default_rng([_code(purpose), len(numbers), *numbers])
