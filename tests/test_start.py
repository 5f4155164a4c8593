"""The start of a command: what it imports, and what it leaves alone."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
# Other backends, and what only some sources, modes or the end of a run need.
UNNEEDED = {
    *("tensorflow", "tensorflow_text", "tensorflow_datasets", "torch", "keras_cv"),
    *("matplotlib", "pandas", "sklearn", "scipy.stats", "transformers", "datasets"),
    *("jinja2", "mlflow", "tensorboard", "optuna", "safetensors", "pyarrow"),
}
# Python runs this before anything else.
AT_EXIT = """
import atexit, json, os, sys
def write():
    with open(os.environ["IMPORTED"], "w") as file:
        json.dump(sorted(sys.modules), file)
atexit.register(write)
"""


def test_an_experiment_is_built_without_libraries_it_does_not_use(
    tmp_path: pathlib.Path,
) -> None:
    (tmp_path / "sitecustomize.py").write_text(AT_EXIT)
    imported = tmp_path / "imported.json"
    flags = ["--mode=check", "--gin_file=runs/sequence/dna_motif.gin"]
    few = "--gin_bindings=EXAMPLES = 200"
    done = subprocess.run(
        [sys.executable, "-m", "tflearn.run", *flags, few, "--backend=jax"],
        cwd=ROOT,
        env=os.environ
        | {"PYTHONPATH": f"{tmp_path}:{ROOT}", "IMPORTED": str(imported)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    names = set(json.loads(imported.read_text()))
    assert {"keras", "keras_hub", "jax"} <= names
    assert not names & UNNEEDED
