"""Fixtures that every test may ask for."""

import pathlib

import pytest


@pytest.fixture(scope="session")
def shared() -> pathlib.Path:
    """The folder of real images and recorded outputs beside the checkout; tests that need it skip without it."""
    folder = pathlib.Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "data").is_dir() or not (folder / "golden").is_dir():
        pytest.skip("needs ../shared (real images and recorded outputs), which is not beside this checkout")
    return folder
