"""The compiled step: what it does not compute, and what is kept of compiling it."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from tflearn.support import compiled

DIGITS = "quickstart/digits.gin"


# --- What XLA compiled, kept for the next start ---------------------------------------


def environment(folder: pathlib.Path) -> dict[str, str]:
    """An environment as a user has it: the tests' own cache is none of it."""
    plain = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("JAX_COMPILATION", "JAX_PERSISTENT", "KERAS_BACKEND"))
    }
    return plain | {"TFLEARN_CACHE": str(folder)}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, True),
        ({"JAX_ENABLE_COMPILATION_CACHE": "0"}, False),
        ({"JAX_COMPILATION_CACHE_DIR": "/elsewhere"}, False),
    ],
)
def test_compiled_steps_are_kept_under_the_users_cache_unless_told_otherwise(
    given: dict[str, str], kept: bool, tmp_path: pathlib.Path
) -> None:
    code = "from tflearn.support import compiled; print(compiled.keep())"
    said = subprocess.run(
        [sys.executable, "-c", code],
        env=environment(tmp_path) | given,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    folder = tmp_path / "compiled" / compiled.machine()
    assert said == (str(folder) if kept else "None")
    assert folder.is_dir() is kept


def test_the_files_used_last_stay_when_room_runs_out(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "machine"
    folder.mkdir()
    for age in range(5):
        path = folder / f"file_{age}"
        path.write_bytes(bytes(100))
        os.utime(path, (1e9 - age, 1e9 - age))
    assert compiled.prune(tmp_path, most_bytes=250) == 3
    assert sorted(path.name for path in folder.iterdir()) == ["file_0", "file_1"]
