"""A network small enough for many runs, and a batch for it."""

import importlib.util
import pathlib
import sys

import numpy as np
import pytest

from irjax.types import Batch


@pytest.fixture(scope="session")
def tiny():
    """The module tiny_run.py."""
    path = pathlib.Path(__file__).with_name("tiny_run.py")
    spec = importlib.util.spec_from_file_location("tiny_run", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny_run"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return Batch(
        images=rng.integers(20, 255, (8, 64, 64), dtype=np.uint8),
        points=rng.uniform(5, 58, (8, 6, 2)).astype(np.float32),
        valid=np.arange(6) < rng.integers(0, 4, (8, 1)),
        index=np.arange(100, 108, dtype=np.int32),
    )
