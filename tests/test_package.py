"""What is in the wheel, and what it depends on."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import tomllib
import zipfile

import pytest

from tflearn.support.declarations import names

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel that `TFLEARN_WHEEL` names, else a new one."""
    named = os.environ.get("TFLEARN_WHEEL")
    if named is None:
        if importlib.util.find_spec("hatchling") is None:
            pytest.skip("hatchling, which builds the wheel, is not installed")
        folder = tmp_path_factory.mktemp("wheel")
        subprocess.run(
            [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
        (named,) = map(str, folder.glob("*.whl"))
    return zipfile.ZipFile(named)


def test_extras_are_named_as_every_pip_finds_them(wheel: zipfile.ZipFile) -> None:
    """Before 23.3, pip compares them letter by letter, and a miss installs nothing."""
    (name,) = (x for x in wheel.namelist() if x.endswith(".dist-info/METADATA"))
    given = set(re.findall(r"^Provides-Extra: (.+)$", wheel.read(name).decode(), re.M))
    files = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    files += [*(ROOT / "gin").rglob("*.gin"), *(ROOT / "tflearn").rglob("*.py")]
    told = [
        x
        for path in files
        for x in re.findall(r"tflearn-gin\[(\S+?)\]", path.read_text())
    ]
    told = [x for x in told if not x.startswith("{")] + [*names.EXTRAS.values()]
    assert len(told) > 6
    assert set(told) <= given


def test_only_tflearn_is_at_the_top(wheel: zipfile.ZipFile) -> None:
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"tflearn"}


def test_every_gin_file_ships(wheel: zipfile.ZipFile) -> None:
    shipped = {
        name.removeprefix("tflearn/configs/")
        for name in wheel.namelist()
        if name.startswith("tflearn/configs/")
    }
    here = {
        path.relative_to(ROOT / "gin").as_posix()
        for path in (ROOT / "gin").rglob("*.gin")
    }
    assert shipped == here
    assert "quickstart/digits.gin" in shipped


def test_every_module_ships_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    modules = {name for name in wheel.namelist() if name.endswith(".py")}
    assert modules == {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "tflearn").rglob("*.py")
    }
    endings = {pathlib.PurePath(name).suffix for name in wheel.namelist()}
    assert not endings & {".pyc", ".h5", ".keras", ".npz"}


def test_the_distribution_is_named_apart_from_its_namesake(
    wheel: zipfile.ZipFile,
) -> None:
    (metadata,) = (n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
    text = wheel.read(metadata).decode()
    assert "\nName: tflearn-gin\n" in text
    assert "\nVersion: 0.1.0\n" in text
    assert any("licenses/LICENSE" in name for name in wheel.namelist())


def test_every_dependency_has_an_exact_version_in_its_range() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(one.split("==") for one in lines if not one.startswith("#"))
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = [
        *PROJECT["project"]["dependencies"],
        *(one for extra in extras for one in extra if "tflearn-gin" not in one),
    ]
    for requirement in wanted:
        name = re.split(r"[<>=\[]", requirement)[0]
        assert name.lower() in pinned, f"{requirement} has no line in constraints.txt"


def test_the_checkout_names_no_package_host() -> None:
    for name in ("constraints.txt", "pyproject.toml", "Makefile", ".ci/run"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "index-url" not in text
        assert "find-links" not in text
