"""What takes long to trace or compile, kept on disk for the next process."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import logging
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import platformdirs
from jax import export

import irjax
from irjax.errors import note
from irjax.io.files import atomic_path
from irjax.methods.detector_config import DetectorConfig
from irjax.methods.registry import find_method
from irjax.types import Array

_logger = logging.getLogger(__name__)

MOST = 1 << 30  # bytes of all compiled programs together; the least recently used ones go first
MOST_TRACED = 1 << 28  # of everything else
_FOLDER = "jax_compilation_cache_dir"
_LEAST_SECONDS = 0.1  # of compilation
_traced: pathlib.Path | None = None  # the folder for what `kept` keeps


def keep_programs(folder: str | os.PathLike | None = None) -> pathlib.Path | None:
    """Has this process keep traced and compiled programs, and use those of earlier processes.

    A compiled program is found by what it computes, the device and the versions of JAX and XLA
    (`jax_compilation_cache_dir`); weights are its arguments. Several processes may use the folder. Commands call this
    before the first computation; importing irjax never does.

    Args:
      folder: by default that of the environment variable JAX_COMPILATION_CACHE_DIR, with its own settings, or else
        `irjax/programs` in the user's folder for caches.

    Returns:
      The folder; None, with a note, if it cannot be written.
    """
    global _traced
    outside = None if folder else getattr(jax.config, _FOLDER)
    folder = pathlib.Path(folder or outside or platformdirs.user_cache_path("irjax", appauthor=False) / "programs")
    try:
        (folder / "traced").mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(13, "not writable")
    except OSError as error:
        note(f"compiled programs are not kept: {error.strerror or error}", folder)
        return None
    _traced = folder / "traced"
    _logger.info("compiled programs are kept in %s", folder)
    if not outside:
        jax.config.update(_FOLDER, os.fspath(folder))
        jax.config.update("jax_compilation_cache_max_size", MOST)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST_SECONDS)
    return folder


def network(config: DetectorConfig, run: Callable[..., Array], *arguments: Any) -> Callable[..., Array]:
    """Returns a network's function, compiled when it is called; traced by an earlier process if that is kept.

    Args:
      config: the network's.
      run: pure; what it returns follows from `config`.
      *arguments: shapes and dtypes of its arguments.
    """
    jitted = jax.jit(run)
    if not _keeps(config):
        return jitted
    what = jax.tree.map(lambda leaf: f"{leaf.shape} {leaf.dtype}", arguments)
    content = kept(config, f"network {what}", lambda: bytes(export.export(jitted)(*arguments).serialize()))
    return jax.jit(export.deserialize(bytearray(content)).call)


def kept(config: DetectorConfig, what: str, make: Callable[[], bytes]) -> bytes:
    """Returns what `make` returns, from an earlier process if `keep_programs` was called.

    Args:
      config: of the network that it is about.
      what: everything else that it depends on, besides irjax's code, the versions of JAX and flax, and the platform.
      make: called if it is not there, or the network is not irjax's own, so that its code is not known.
    """
    if _traced is None or not _keeps(config):
        return make()
    topic = what.partition(" ")[0] if what.startswith("network ") else what
    what = f"{config.method} {config.model} {config.size} {config.channels} {config.normalization} {what}"
    file = _traced / hashlib.sha256(f"{_code()} {what}".encode()).hexdigest()
    try:
        content = file.read_bytes()
        os.utime(file)  # used last
        _logger.info("%s: %s is an earlier process's, %s", config.method, topic, file)
    except OSError:
        begin = time.perf_counter()
        content = make()
        _logger.info("%s: %s made in %.1f s and kept as %s", config.method, topic, time.perf_counter() - begin, file)
        try:
            with atomic_path(file) as path:
                path.write_bytes(content)
            _forget(_traced)
        except OSError as error:
            note(f"traced programs are not kept: {error.strerror or error}", _traced)
    return content


def _keeps(config: DetectorConfig) -> bool:
    """Returns whether this process keeps what is traced of a network: if it is irjax's own, whose code is known."""
    return _traced is not None and find_method(config.method).network.__module__.startswith("irjax.")


@functools.cache
def _code() -> str:
    """Returns what a traced program depends on besides its description."""
    root = pathlib.Path(irjax.__file__).parent
    files = sorted((os.fspath(path), path.stat().st_mtime_ns, path.stat().st_size) for path in root.rglob("*.py"))
    versions = [importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "numpy")]
    settings = [getattr(jax.config, name) for name in ("jax_enable_x64", "jax_default_matmul_precision")]
    return f"{files} {versions} {settings} {jax.default_backend()}"


def _forget(folder: pathlib.Path) -> None:
    """Removes the files that were not used for longest until they hold no more than `MOST_TRACED`."""
    files = sorted(((path.stat().st_mtime_ns, path.stat().st_size, path) for path in folder.iterdir()), reverse=True)
    total = 0
    for _, size, path in files:
        total += size
        if total > MOST_TRACED:
            path.unlink(missing_ok=True)
            _logger.info("removed %s, which was not used for longest", path)
