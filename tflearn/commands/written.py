"""The declaration that a run directory holds."""

from __future__ import annotations

from collections.abc import Sequence

from tflearn import config
from tflearn.support import storage
from tflearn.support.errors import RunError
from tflearn.training import run_directory


def open_declaration(
    run_dir: str,
    *,
    files: Sequence[str] = (),
    bindings: Sequence[str] = (),
    search_paths: Sequence[str] = (),
) -> config.Declaration:
    """Reads what a run was declared as, with changes.

    Args:
        run_dir: The run directory.
        files: Gin files that override it.
        bindings: Bindings that override both.
        search_paths: Folders of the user's own gin files.

    Returns:
        The declaration.

    Raises:
        RunError: The directory holds no run, or one that was declared in Python.
        ConfigError: A file or binding is not sound.
    """
    written = storage.fetched(run_dir) / run_directory.CONFIG
    if not written.is_file():
        raise RunError(
            "the directory holds no run",
            received=run_dir,
            expected=storage.shown(written),
        )
    declaration = config.load(
        [str(written), *files], list(bindings), search_paths=search_paths
    )
    if not declaration.bindings:
        raise RunError(
            "the run was declared in Python, so its data are not known here",
            received=run_dir,
            fix="use training.finished.open_run and evaluation.evaluate, or "
            "experiment.Experiment.start_from, in Python",
        )
    return declaration
