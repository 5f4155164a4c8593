"""Shared fixtures. The backend comes from `KERAS_BACKEND` (JAX when unset)."""

from __future__ import annotations

import os
import pathlib

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import pytest

SHARED_DATA = pathlib.Path(__file__).parents[1].parent / "shared" / "data"


# Scripts that made golden values with libraries the tests do not need.
collect_ignore_glob = ["golden/*.py"]


@pytest.fixture
def shared_data() -> pathlib.Path:
    """The folder of real data beside the checkout; skips where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real data is absent: no folder {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    """Every test starts from the same random state."""
    keras.utils.set_random_seed(0)
