"""The command line: which flags it takes, what it says and how it ends."""

from __future__ import annotations

import importlib
import os
import pathlib
import subprocess
import sys
import types

import keras
import pytest

import tflearn
from tflearn import experiment
from tflearn.commands.arguments import Arguments
from tflearn.support.errors import ConfigError, DataError

# `tflearn.run` is the function; the module is reached by its name.
line = importlib.import_module("tflearn.run")
ROOT = pathlib.Path(__file__).parents[1]
BACKEND = keras.backend.backend()
DECLARED = "--gin_file=quickstart/digits.gin"


def in_process(
    *words: str, folder: pathlib.Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs Python in a process of its own, in which nothing is imported yet."""
    kept = {name: v for name, v in os.environ.items() if name != "KERAS_BACKEND"}
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder or ROOT,
        env=kept | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> list[Arguments]:
    """A train command that only notes what it is called with."""
    calls: list[Arguments] = []
    module = types.ModuleType("tflearn.commands.train")
    module.main = lambda arguments: calls.append(arguments) or 0  # type: ignore
    monkeypatch.setitem(sys.modules, "tflearn.commands.train", module)
    return calls


def test_flags_become_arguments(command: list[Arguments]) -> None:
    flags = [
        "--gin_file=a.gin",
        "--gin_file",
        "b.gin",
        "--gin_bindings=SEED = 1",
        "--gin_bindings=RATE = 2",
        "--gin_search_path=mine",
        "--output_dir=runs/a",
    ]
    assert line.main(flags) == 0
    assert command == [
        Arguments(
            backend=BACKEND,
            gin_files=("a.gin", "b.gin"),
            gin_bindings=("SEED = 1", "RATE = 2"),
            gin_search_paths=("mine",),
            output_dir="runs/a",
        )
    ]


@pytest.mark.parametrize("mode", line.MODES)
def test_every_mode_has_a_command(mode: str) -> None:
    command = importlib.import_module(f"tflearn.commands.{mode}")
    assert callable(command.main)
    # Some modes need one flag of two.
    one = {"train": "--run_dir", "compare": "--gin_file"}.get(mode)
    required = [f"{flag}=x" for flag in (*line.MODES[mode].required, one) if flag]
    assert line.parse([f"--mode={mode}", *required]).mode == mode


MISTAKES = {
    "unknown mode": (["--mode=trian", DECLARED], "Did you mean 'train'"),
    "unknown flag": (["--gin_fil=a.gin"], "Did you mean '--gin_file'"),
    "dashes": (["--gin-file=a.gin"], "Did you mean '--gin_file'"),
    "a word": ([DECLARED, "train"], "unexpected word. Received: train"),
    "flag without value": (["--gin_file"], "expected one argument"),
    "nothing declared": ([], "--mode=train needs --gin_file"),
    "no run": (["--mode=evaluate"], "--mode=evaluate needs --run_dir"),
    "no input": (["--mode=predict", "--run_dir=a"], "needs --input"),
    "foreign flag": ([DECLARED, "--split=test"], "--split means nothing to --mode"),
    "unknown backend": ([DECLARED, "--backend=tensorflw"], "mean 'tensorflow'"),
    "torch": ([DECLARED, "--backend=torch"], "Expected: jax, tensorflow"),
    "unknown format": (
        ["--mode=predict", "--run_dir=a", "--input=-", "--format=cvs"],
        "Did you mean 'csv'",
    ),
    "no such file": (["--mode=check", "--gin_file=no.gin"], "gin file not found"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message_and_exit_code_2(
    mistake: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags, message = MISTAKES[mistake]
    assert line.main(flags) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert message in shown
    assert "Traceback" not in shown


def failing(error: BaseException) -> types.ModuleType:
    def main(arguments: Arguments) -> int:
        raise error

    module = types.ModuleType("tflearn.commands.train")
    module.main = main  # type: ignore
    return module


def test_debug_shows_where_an_error_arose(monkeypatch: pytest.MonkeyPatch) -> None:
    module = failing(DataError("empty file"))
    monkeypatch.setitem(sys.modules, "tflearn.commands.train", module)
    assert line.main([DECLARED]) == 2
    with pytest.raises(DataError, match="empty file"):
        line.main([DECLARED, "--debug"])


def test_a_fault_of_the_program_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = failing(ZeroDivisionError("a fault"))
    monkeypatch.setitem(sys.modules, "tflearn.commands.train", module)
    with pytest.raises(ZeroDivisionError):
        line.main([DECLARED])


def test_an_interruption_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = failing(KeyboardInterrupt())
    monkeypatch.setitem(sys.modules, "tflearn.commands.train", module)
    assert line.main([DECLARED]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_the_backend_comes_from_flag_then_environment_then_what_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    assert line.parse([DECLARED]).backend == "tensorflow"
    assert line.parse([DECLARED, "--backend=jax"]).backend == "jax"
    monkeypatch.delenv("KERAS_BACKEND")
    assert line.parse([DECLARED]).backend == "jax"
    monkeypatch.setattr(line.importlib.util, "find_spec", _without("jax"))
    assert line.parse([DECLARED]).backend == "tensorflow"
    with pytest.raises(ConfigError, match="not installed.*pip install jax"):
        line.parse([DECLARED, "--backend=jax"])
    monkeypatch.setattr(line.importlib.util, "find_spec", _without("jax", "tensorflow"))
    with pytest.raises(ConfigError, match="no backend is installed"):
        line.parse([DECLARED])


def test_a_backend_that_is_too_late(capsys: pytest.CaptureFixture[str]) -> None:
    other = {"jax": "tensorflow", "tensorflow": "jax"}[BACKEND]
    assert line.main([DECLARED, f"--backend={other}"]) == 2
    assert "Keras was imported with another backend" in capsys.readouterr().err


def test_help_and_mistakes_do_not_wait_for_keras() -> None:
    shown = in_process("-X", "importtime", "-m", "tflearn.run", "--mode=trian")
    assert shown.returncode == 2
    modules = {row.split("|")[-1].strip() for row in shown.stderr.splitlines()}
    assert not modules & {"keras", "jax", "tensorflow", "numpy"}
    assert in_process("-m", "tflearn.run", "--help").returncode == 0


def test_the_backend_flag_wins_in_a_process_of_its_own(tmp_path: pathlib.Path) -> None:
    (tmp_path / "said.py").write_text(
        "import keras\nraise SystemExit(f'backend {keras.backend.backend()}')\n"
    )
    (tmp_path / "a.gin").write_text(
        "from __gin__ import dynamic_registration\nimport said\n"
    )
    shown = in_process(
        "-m",
        "tflearn.run",
        "--gin_file=a.gin",
        "--mode=check",
        f"--backend={BACKEND}",
        folder=tmp_path,
        KERAS_BACKEND="tensorflow" if BACKEND == "jax" else "jax",
    )
    assert f"backend {BACKEND}" in shown.stderr


def test_run_is_a_function_even_after_its_module_was_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import tflearn.run

    calls = []
    monkeypatch.setattr(
        experiment, "run", lambda made, *, output_dir: calls.append((made, output_dir))
    )
    tflearn.run("an experiment", output_dir="there")
    assert calls == [("an experiment", "there")]
    from tflearn.run import main

    assert main is line.main


def test_importing_tflearn_makes_the_heads_known_to_keras() -> None:
    shown = in_process(
        "-c",
        "import tflearn, keras; "
        "print(keras.saving.get_registered_object('tflearn>ClassificationHead'))",
        KERAS_BACKEND=BACKEND,
    )
    assert "ClassificationHead" in shown.stdout, shown.stderr


def test_the_old_tflearn_is_refused(tmp_path: pathlib.Path) -> None:
    info = tmp_path / "tflearn-0.5.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: tflearn\nVersion: 0.5.0\n")
    shown = in_process("-c", "import tflearn", PYTHONPATH=f"{ROOT}:{tmp_path}")
    assert shown.returncode == 1
    assert "'tflearn' 0.5.0" in shown.stderr
    assert "pip uninstall -y tflearn tflearn-gin" in shown.stderr


def test_the_version() -> None:
    assert tflearn.__version__ == "0.1.0"


def _without(*absent: str):
    found = importlib.util.find_spec
    return lambda name: None if name in absent else found(name)


@pytest.mark.skipif(BACKEND != "jax", reason="TensorFlow is hidden on JAX alone")
def test_augmentation_on_jax_does_without_tensorflow() -> None:
    # In a process of its own: pytest's has imported TensorFlow to set its seed.
    script = """
import sys, keras, numpy
from tflearn.support.tensorflow import hidden_tensorflow
with hidden_tensorflow():
    keras.utils.set_random_seed(0)
    keras.layers.RandomFlip()(numpy.zeros((2, 8, 8, 3), 'float32'), training=True)
    try:
        import tensorflow
    except ModuleNotFoundError:
        print('hidden')
assert 'tensorflow' not in sys.modules
"""
    found = in_process("-c", script, KERAS_BACKEND="jax")
    assert found.stdout == "hidden\n", found.stderr
