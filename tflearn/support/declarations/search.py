"""Where a gin file lies that was named on the command line or by an include."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from tflearn.support.errors import ConfigError, nearest

_PACKAGE = pathlib.Path(__file__).parents[2]


def shipped_folder() -> pathlib.Path:
    """Returns the folder of the gin files that come with tflearn.

    In a checkout this is `gin/`; an installed wheel carries the same files as
    `tflearn/configs`. The checkout is told by its `pyproject.toml`, since beside an
    installed package `gin/` is the library gin-config.
    """
    root = _PACKAGE.parent
    if (root / "pyproject.toml").is_file() and (root / "gin").is_dir():
        return root / "gin"
    return _PACKAGE / "configs"


def find(
    name: str,
    *,
    search_paths: Sequence[str] = (),
    beside: pathlib.Path | None = None,
) -> pathlib.Path:
    """Finds a gin file.

    The order: the folder of the including file, the name as a path (from the current
    directory), the search paths, the files that come with tflearn.

    Args:
        name: Path or name of the file.
        search_paths: Folders of the user's own files.
        beside: The file that includes it.

    Returns:
        The file's absolute path.

    Raises:
        ConfigError: It is nowhere, or a search path is no folder.
    """
    for folder in search_paths:
        if not pathlib.Path(folder).is_dir():
            raise ConfigError("--gin_search_path is not a folder", received=folder)
    folders = [] if beside is None else [beside.parent]
    folders += [pathlib.Path(), *map(pathlib.Path, search_paths), shipped_folder()]
    for folder in folders:
        if (folder / name).is_file():
            return (folder / name).resolve()
    raise ConfigError(
        "gin file not found",
        received=name or "''",
        expected="a file in " + ", ".join(str(folder.resolve()) for folder in folders),
        nearest=nearest(name, _names([*search_paths, shipped_folder()])),
    )


def _names(folders: Sequence[str | pathlib.Path]) -> list[str]:
    return [
        path.relative_to(folder).as_posix()
        for folder in folders
        for path in sorted(pathlib.Path(folder).rglob("*.gin"))
    ]
