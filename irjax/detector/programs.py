"""Compiled programs, kept on disk for the next process."""

from __future__ import annotations

import os
import pathlib

import jax
import platformdirs

from irjax.errors import note

MOST = 1 << 30  # bytes of all programs together; the least recently used ones go first
_LEAST_SECONDS = 0.1  # of compilation


def keep_programs(folder: str | os.PathLike | None = None) -> pathlib.Path | None:
    """Has JAX keep compiled programs, and use those of earlier processes: `jax_compilation_cache_dir`.

    A program is found by what it computes, the device and the versions of JAX and XLA; weights are its arguments.
    Several processes may use the folder. Commands call this before the first computation; importing irjax never does.

    Args:
      folder: by default that of the environment variable JAX_COMPILATION_CACHE_DIR, with its own settings, or else
        `irjax/programs` in the user's folder for caches.

    Returns:
      The folder; None, with a note, if it cannot be written.
    """
    if folder is None and (set_outside := jax.config.jax_compilation_cache_dir):
        return pathlib.Path(set_outside)
    folder = pathlib.Path(folder or platformdirs.user_cache_path("irjax", appauthor=False) / "programs")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "not writable")
    except OSError as error:
        note(f"compiled programs are not kept: {error.strerror or error}", folder)
        return None
    jax.config.update("jax_compilation_cache_dir", os.fspath(folder))
    jax.config.update("jax_compilation_cache_max_size", MOST)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST_SECONDS)
    return folder
