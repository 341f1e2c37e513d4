"""Fixtures that every test may ask for."""

import logging
import os
import pathlib

import jax
import pytest

if jax.__version_info__ < (0, 11):
    # Programs compile in less than half of the time; later versions know no such flag.
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false".strip()
# The tests of data parallelism share a batch among eight devices of the CPU; it must be said before the first use.
jax.config.update("jax_num_cpu_devices", 8)
# Compiling is most of the tests' time: with few optimisations it is a third.
jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="module", autouse=True)
def _forget_programs():
    """A module's compiled programs go with it: those of all modules together are gigabytes."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def compiled_once(tmp_path_factory):
    """Each program is compiled only once in a session: compiling outlasts tiny runs."""
    from jax.experimental.compilation_cache import compilation_cache

    settings = {
        "jax_compilation_cache_dir": str(tmp_path_factory.getbasetemp() / "compiled"),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: jax.config.values[name] for name in settings}
    jax.config.update("jax_enable_compilation_cache", True)
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


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
