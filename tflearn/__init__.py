"""Transfer learning on Keras 3, declared in gin: one file, one command.

`import tflearn` makes the layers of `tflearn.heads` known to Keras, so that
`keras.saving.load_model` loads a finished run. In a notebook:

    import tflearn
    tflearn.run(tflearn.load("quickstart/digits.gin"), output_dir="runs/digits")
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tflearn.experiment import Experiment
    from tflearn.reports import Report

__version__ = "0.1.0"
__all__ = ["load", "run"]


def _refuse_namesake() -> None:
    try:
        found = importlib.metadata.version("tflearn")
    except importlib.metadata.PackageNotFoundError:
        return
    raise ImportError(
        f"The distributions 'tflearn' {found} (the TensorFlow 1 library of 2016) and "
        "'tflearn-gin' (this one) are both installed. They write into the same folder "
        "'tflearn', so that neither is whole. Run: pip uninstall -y tflearn "
        "tflearn-gin && pip install tflearn-gin"
    )


def _is_command_line() -> bool:
    # While `python -m tflearn.run` imports this package, argv[0] is still "-m".
    return sys.argv[:1] == ["-m"] and "tflearn.run" in sys.orig_argv


def load(
    gin_file: str | Sequence[str], bindings: str | Sequence[str] = ()
) -> Experiment:
    """Loads a declared experiment.

    Args:
        gin_file: Name or path of a gin file, or several that override each other.
        bindings: Bindings that override the files, such as `"SEED = 1"`.

    Returns:
        The experiment; nothing of it has been built.

    Raises:
        ConfigError: The declaration is wrong; the message says where.
    """
    from tflearn import config

    return config.load(gin_file, bindings).experiment()


_refuse_namesake()
if not _is_command_line():
    # On the command line the flags choose the backend before Keras is imported. The
    # module `run` is imported here because Python then never again puts it in the
    # place of the function below.
    import tflearn.heads
    import tflearn.run  # noqa: F401


def run(experiment: Experiment, *, output_dir: str) -> Report:
    """Trains, evaluates and reports an experiment, or goes on with it.

    Args:
        experiment: The declaration.
        output_dir: The run directory.

    Returns:
        The report, as written to `report.json`.

    Raises:
        TflearnError: The declaration, the data or the run directory are wrong.
    """
    from tflearn import experiment as experiments

    return experiments.run(experiment, output_dir=output_dir)
