"""Random keys and generators by purpose: one way to derive a key, or a generator on the host, for each random draw.

``jax.random.split(key, n)[i]`` and ``jax.random.fold_in(key, i)`` are the same key, so the two must not be mixed. In
irjax a key is folded either with numbers that count something (steps, draws, levels) or with the hashes of names in
this module, never with both, and it is never split. On the host, the draws behind published results (synthetic scenes,
generated split lists, bootstrap intervals) use the plain generators of their seeds.
"""

from __future__ import annotations

import zlib

import jax
import numpy as np


def _code(purpose: str) -> int:
    """Returns a 32-bit number for a name, the same on every machine and in every run."""
    return zlib.crc32(purpose.encode())


def purpose_key(key: jax.Array, purpose: str) -> jax.Array:
    """Derives the key of one purpose, such as ``"photometry"``.

    Args:
      key: a typed key, from which only purposes are derived.
      purpose: name of the purpose, different for each thing that is drawn from the same key.

    Returns:
      A key, of the shape of `key`.
    """
    return jax.random.fold_in(key, np.uint32(_code(purpose)))


def purpose_generator(purpose: str, *numbers: int) -> np.random.Generator:
    """Returns the host's generator of one purpose.

    Args:
      purpose: name of what is drawn.
      *numbers: non-negative numbers, such as the seed and the number of the epoch.
    """
    # numpy treats missing numbers as zeros, so the name and the count of numbers come first.
    return np.random.default_rng([_code(purpose), len(numbers), *numbers])
