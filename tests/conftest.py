"""Shared fixtures. The backend comes from `KERAS_BACKEND` (JAX when unset)."""

from __future__ import annotations

import atexit
import gc
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# What is compiled here runs for a moment: compiling it well would take longer.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Tests compile the same networks again and again; all workers share what one compiled.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    compiled = tempfile.mkdtemp(prefix="tflearn_tests_")
    atexit.register(shutil.rmtree, compiled, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "0"

import jax
import keras
import pytest

SHARED_DATA = pathlib.Path(__file__).parents[1].parent / "shared" / "data"


# Scripts that made golden values with libraries the tests do not need.
collect_ignore_glob = ["golden/*.py"]
# Programs that tests start: importing them to look for doctests sets their devices.
collect_ignore = [
    "cached_cases.py",
    "distributed_cases.py",
    "fault_cases.py",
    "feature_cases.py",
    "planted_cases.py",
    "process_cases.py",
    "process_checkpoints.py",
    "safe_loading_cases.py",
    "tf_devices.py",
    "tf_processes.py",
]

# What computes nothing with Keras is the same on both backends: once is enough.
if os.environ["KERAS_BACKEND"] == "tensorflow":
    collect_ignore += [
        "test_architecture.py",
        "test_budgets.py",
        "test_comparison.py",
        "test_config.py",
        "test_data_errors.py",
        "test_data_generated.py",
        "test_data_loading.py",
        "test_data_real.py",
        "test_data_sources.py",
        "test_evaluation.py",
        "test_evaluation_calibration.py",
        "test_fuzz.py",
        "test_injected_faults.py",
        "test_launchers.py",
        "test_mistakes.py",
        "test_notebooks.py",
        "test_package.py",
        "test_plan.py",
        "test_reports.py",
        "test_reports_compare.py",
        "test_reports_plots.py",
        "test_reports_tables.py",
        "test_reports_trackers.py",
        "test_safe_loading.py",
        "test_storage.py",
        "test_support.py",
        "test_topology.py",
        "test_trained_tokenizers.py",
    ]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Makes tests slow on the backend that is not their first.

    What such a test is made of runs on both backends in others.
    """
    for item in items:
        mark = item.get_closest_marker("first_on")
        if mark is not None and mark.args[0] != os.environ["KERAS_BACKEND"]:
            item.add_marker(pytest.mark.slow)


@pytest.fixture
def shared_data() -> pathlib.Path:
    """The folder of real data beside the checkout; skips where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"real data is absent: no folder {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is kept between starts of a run is kept for these tests alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TFLEARN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="module")
def small_heap() -> Iterator[None]:
    """What a module has compiled and built goes with it.

    Otherwise thousands of networks pile up, and Keras, which collects garbage whenever
    a session is cleared, searches all of them every time.
    """
    # Imports of the module, and TensorFlow, which Keras imports to seed it.
    keras.utils.set_random_seed(0)
    gc.collect()
    gc.freeze()
    yield
    keras.backend.clear_session()
    if keras.backend.backend() == "jax":
        jax.clear_caches()
    gc.collect()
    # What is still alive, such as imported modules, need not be searched again.
    gc.freeze()


@pytest.fixture(autouse=True)
def fixed_start() -> None:
    """Every test starts from the same random state, in the same precision."""
    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)
