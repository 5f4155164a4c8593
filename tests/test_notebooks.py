"""The notebooks for Colab and Kaggle: paired, alike, and run from a clean kernel.

The run is marked slow, and a step of `.ci/run` of its own: `pytest -m slow
tests/test_notebooks.py`.
"""

from __future__ import annotations

import json
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat", reason="notebooks need the extra `test`")
jupytext = pytest.importorskip("jupytext", reason="notebooks need the extra `test`")

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"
NAMES = ("colab", "kaggle")
# One epoch, ten steps: what is tested is the notebook, not the experiment.
SHORT = ("EPOCHS = '1 epoch'", "STEPS = '10 steps'")


def cells(path: pathlib.Path) -> list[tuple[str, str]]:
    """The kind and the source of every cell."""
    return [(cell.cell_type, cell.source) for cell in jupytext.read(path).cells]


@pytest.mark.parametrize("name", NAMES)
def test_the_notebook_and_the_script_are_the_same(name: str) -> None:
    notebook = EXAMPLES / f"{name}.ipynb"
    assert cells(notebook) == cells(EXAMPLES / f"{name}.py"), (
        f"jupytext --sync examples/{name}.ipynb"
    )
    for cell in nbformat.read(notebook, as_version=4).cells:
        assert not cell.get("outputs"), "outputs do not belong into the repository"


def test_both_differ_only_in_their_heads() -> None:
    colab, kaggle = (cells(EXAMPLES / f"{name}.py") for name in NAMES)
    assert colab[2:] == kaggle[2:]
    heads = [source.splitlines() for source in (colab[1][1], kaggle[1][1])]
    different = [lines for lines in zip(*heads, strict=True) if len(set(lines)) > 1]
    assert [line.split(" = ")[0] for line, _ in different] == ["RUN", "ENVIRONMENT"]


@pytest.fixture(scope="module")
def functions() -> dict[str, Any]:
    """The functions of the notebook, and nothing that it runs."""
    found: dict[str, Any] = {}
    sources = [
        source for kind, source in cells(EXAMPLES / "colab.py") if kind == "code"
    ]
    for source in sources[:3]:
        exec(source.split("\n\naccelerator = ")[0].split("\n\npython = ")[0], found)
    return found


@pytest.mark.parametrize(
    ("accelerator", "requirement"),
    [("tpu", "jax[tpu]"), ("gpu", "jax[cuda12]"), ("cpu", "jax")],
)
def test_jax_is_installed_for_the_accelerator_and_tensorflow_for_the_cpu(
    accelerator: str, requirement: str, functions: dict, tmp_path: pathlib.Path
) -> None:
    folder = str(tmp_path / "environment")
    words = functions["installation"]("git+https://h/o/r", accelerator, folder)[-1]
    assert words[-3:] == [
        "git+https://h/o/r",
        requirement,
        "tensorflow-text[tensorflow-cpu]",
    ]
    overrides = pathlib.Path(words[words.index("--override") + 1])
    assert overrides.read_text() == "tensorflow; sys_platform == 'never'\n"


def test_a_missing_source_is_asked_for(functions: dict) -> None:
    with pytest.raises(SystemExit, match="Set SOURCE"):
        functions["installation"]("", "cpu", "environment")


def test_programs_take_the_notebook_neither_for_a_canvas_nor_for_a_terminal(
    functions: dict,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    monkeypatch.setenv("FORCE_COLOR", "1")
    names = ("MPLBACKEND", "FORCE_COLOR", "TERM")
    code = f"import os; print([os.environ.get(name) for name in {names}])"
    functions["show"](sys.executable, "-S", "-c", code)
    assert capsys.readouterr().out == "['agg', None, 'dumb']\n"


def test_a_program_that_fails_ends_the_notebook(functions: dict) -> None:
    with pytest.raises(SystemExit, match="exit code 3"):
        functions["show"](sys.executable, "-S", "-c", "raise SystemExit(3)")


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    """The Colab notebook after a run in a new kernel, and its run directory."""
    if os.environ["KERAS_BACKEND"] != "jax":
        pytest.skip("the notebook asks for the JAX backend, whatever the tests run on")
    nbclient = pytest.importorskip("nbclient", reason="needs the extra `test`")
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.read(EXAMPLES / "colab.ipynb", as_version=4)
    head = notebook.cells[1]
    assert head.metadata.tags == ["parameters"]
    head.source += f"\nBINDINGS = {SHORT!r}\n"
    client = nbclient.NotebookClient(
        notebook, timeout=1800, resources={"metadata": {"path": str(folder)}}
    )
    # The kernel is not in this folder, and finds this checkout all the same.
    client.execute(env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)})
    yield notebook, folder / "runs" / "digits"


@pytest.mark.slow
def test_the_notebook_runs_from_a_clean_kernel(executed: tuple[Any, Any]) -> None:
    notebook, run = executed
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert [stage["name"] for stage in report["stages"]] == ["pretrain", "transfer"]
    printed = "".join(
        output.get("text", "")
        for cell in notebook.cells
        for output in cell.get("outputs", ())
    )
    assert "tflearn is installed here already" in printed
    assert "pretrain" in printed
    assert "\x1b" not in printed, "what moves in a terminal floods a notebook"


@pytest.mark.slow
def test_the_notebook_shows_the_report(executed: tuple[Any, Any]) -> None:
    notebook, run = executed
    shown = notebook.cells[-1].outputs[0].data["text/html"]
    assert shown.startswith("<div><iframe srcdoc=")
    # Escaped, so that a quote in the report does not end the frame.
    start = (run / "report.html").read_text(encoding="utf-8")[:15]
    assert start.replace("<", "&lt;").replace(">", "&gt;") in shown
