"""Fixtures that every test may ask for."""

import gc
import logging
import os
import pathlib
import tempfile

import jax
import pytest

if jax.__version_info__ < (0, 11):
    # Programs compile in less than half of the time; later versions know no such flag.
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false".strip()
# Each program is compiled only once in a session, whichever of its processes asks for it.
_PROGRAMS = "JAX_COMPILATION_CACHE_DIR"
if _PROGRAMS not in os.environ:
    _folder = tempfile.TemporaryDirectory(prefix="irjax-programs-")
    os.environ[_PROGRAMS] = _folder.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    jax.config.update("jax_compilation_cache_dir", _folder.name)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
# The tests of data parallelism share a batch among eight devices of the CPU; it must be said before the first use.
jax.config.update("jax_num_cpu_devices", 8)
# Compiling is most of the tests' time: with few optimisations it is a third.
jax.config.update("jax_disable_most_optimizations", True)


# Python looks through all traced programs again and again for garbage: a fifth of the time. Once a module is enough.
gc.disable()


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """A module's compiled programs go with it: those of all modules together are gigabytes."""
    yield
    jax.clear_caches()
    gc.collect()


@pytest.fixture
def compilations(caplog):
    """``count(function) -> number``: how many programs XLA compiles while the function runs."""

    def count(function):
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="jax"), jax.log_compiles():
            function()
        return sum("Finished XLA compilation" in record.getMessage() for record in caplog.records)

    return count


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder of real images and recorded outputs beside the checkout; tests that need it skip without it."""
    folder = pathlib.Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "data").is_dir() or not (folder / "golden").is_dir():
        pytest.skip("needs ../shared (real images and recorded outputs), which is not beside this checkout")
    return folder
