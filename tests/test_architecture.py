"""The floors of the house: imports only go down, outsiders stay where they belong."""

from __future__ import annotations

import ast
import pathlib
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "tflearn"

# From the top; a module may import from its own floor and from those below.
FLOORS = (
    "run",
    "commands",
    "planning",
    "comparison",
    "experiment",
    "reports",
    "training",
    "evaluation",
    "objectives",
    "regimes",
    "heads",
    "backbones",
    "data",
    "distribution",
    "support",
)
MODEL_FLOORS = ("regimes", "heads", "backbones")
MODULES = sorted(PACKAGE.rglob("*.py"))


def floor_of(module: str) -> str:
    """`tflearn.data.spec` -> `data`; the package itself is above all floors."""
    return module.split(".")[1] if "." in module else ""


def name_of(path: pathlib.Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(
        ".__init__"
    )


def imported(path: pathlib.Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it, but not for types alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the floor"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def allowed(importer: str, target: str) -> bool:
    if importer == "":  # `tflearn/__init__.py` offers what the floors have.
        return True
    if target == "config":
        return importer in ("run", "commands", "config")
    if importer == "config":
        return target == "support"
    if {importer, target} <= {"data", *MODEL_FLOORS} and "data" in (importer, target):
        return importer == target
    return FLOORS.index(importer) <= FLOORS.index(target)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_only_go_down(path: pathlib.Path) -> None:
    importer = floor_of(name_of(path))
    wrong = [
        name
        for name in imported(path)
        if name.startswith("tflearn.") and not allowed(importer, floor_of(name))
    ]
    assert not wrong


def test_every_folder_and_module_has_a_floor() -> None:
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py"}
    found |= {
        path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()
    }
    assert found - {"__init__", "config"} == set(FLOORS)


def test_only_config_imports_gin() -> None:
    users = [
        name_of(path)
        for path in MODULES
        if any(name.split(".")[0] == "gin" for name in imported(path))
    ]
    assert users == ["tflearn.config"]


def test_nothing_imports_private_parts_of_keras() -> None:
    private = ("keras.src", "keras_hub.src", "keras_nlp.src")
    users = {
        name_of(path)
        for path in MODULES
        if any(name.startswith(private) for name in imported(path))
    }
    # Keras remembers every variable without a value, and has no public way to forget.
    assert users == {"tflearn.backbones.libraries"}


@pytest.mark.parametrize(
    ("importer", "target", "answer"),
    [
        ("training", "data", True),
        ("data", "training", False),
        ("heads", "data", False),
        ("data", "support", True),
        ("backbones", "data", False),
        ("regimes", "backbones", True),
        ("config", "experiment", False),
        ("experiment", "config", False),
        ("commands", "config", True),
    ],
)
def test_the_rule_itself(importer: str, target: str, answer: bool) -> None:
    assert allowed(importer, target) is answer


def test_the_checkout_s_gin_folder_is_no_package() -> None:
    """With an `__init__.py` it would shadow the library gin-config."""
    assert not list((ROOT / "gin").rglob("*.py"))
    assert not list((ROOT / "gin").rglob("*.pyc"))


def test_few_modules_ask_which_backend_is_active() -> None:
    users = {
        name_of(path)
        for path in MODULES
        if "backend.backend()" in path.read_text(encoding="utf-8")
    }
    above = {"run", "commands", "experiment"}
    free = {"distribution", "training", *above}
    exceptions = {
        "tflearn.data.augmentation",
        # Answers are kept under the name of the backend that gave them.
        "tflearn.objectives.teachers",
        "tflearn.support.tensorflow",
    }
    assert {name for name in users if floor_of(name) not in free} <= exceptions
