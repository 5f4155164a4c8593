"""Several devices and processes on TensorFlow train as one device does.

The devices are logical CPU devices in a process of their own, `tf_devices.py`; the
processes are real ones on this machine, `tf_processes.py`.
"""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import sys
from typing import Any

import keras
import numpy as np
import pytest

from tflearn.distribution import Distribution, tf_strategy, tf_workers
from tflearn.objectives.contrastive import PairLoss
from tflearn.objectives.language.replaced_tokens import ReplacedTokensLoss
from tflearn.support.errors import ConfigError

HERE = pathlib.Path(__file__).parent
TENSORFLOW = keras.backend.backend() == "tensorflow"
on_tensorflow = pytest.mark.skipif(not TENSORFLOW, reason="for TensorFlow")
# Nothing is random in these rows of `tf_devices.py`, or what is random is frozen.
QUICK, SLOW = ("text", "image"), ("causal", "probe")
# What rounding leaves; statistics of a batch divide by small variances.
TOLERANCE = {"text": 1e-5, "causal": 1e-5, "probe": 1e-5, "image": 2e-4}
ROWS = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


def _trained(folder: pathlib.Path, names: tuple[str, ...]) -> dict[str, Any]:
    path = folder / "found.json"
    _wait(_start(["tf_devices.py", str(path), *names]))
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def quick(tmp_path_factory) -> dict[str, Any]:
    return _trained(tmp_path_factory.mktemp("quick"), QUICK)


@pytest.fixture(scope="module")
def slow(tmp_path_factory) -> dict[str, Any]:
    return _trained(tmp_path_factory.mktemp("slow"), SLOW)


def _row(request: pytest.FixtureRequest, name: str) -> dict[str, Any]:
    return request.getfixturevalue("quick" if name in QUICK else "slow")[name]


def _start(arguments: list[str]) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(HERE.parent)}
    environment.pop("TF_CONFIG", None)
    command = [sys.executable, str(HERE / arguments[0]), *arguments[1:]]
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _wait(process: subprocess.Popen, *, code: int = 0, timeout: float = 600) -> None:
    try:
        output, _ = process.communicate(timeout=timeout)
    finally:
        process.kill()
    assert process.returncode == code, output[-4000:]


@on_tensorflow
@pytest.mark.parametrize("name", ROWS)
def test_four_devices_have_the_losses_of_one(request, name) -> None:
    row = _row(request, name)
    one, four = row["0"], row["4"]
    assert (one["strategy"], four["strategy"]) == (
        "_DefaultDistributionStrategy",
        "Mirrored",
    )
    assert len(one["losses"]) == 20
    np.testing.assert_allclose(four["losses"], one["losses"], rtol=TOLERANCE[name])
    assert np.ptp(one["losses"]) > 0.01, "a model that stands still shows nothing"
    np.testing.assert_allclose(four["digest"], one["digest"], rtol=1e-4)


@on_tensorflow
@pytest.mark.parametrize("name", ROWS)
def test_every_example_is_evaluated_once_in_its_place(request, name) -> None:
    row = _row(request, name)
    one, four = row["0"], row["4"]
    assert set(one["measured"]) == set(four["measured"])
    for key, values in one["measured"].items():
        # The rows of language modelling are packed.
        assert len(values) == (3 if name == "causal" else 14)
        np.testing.assert_allclose(four["measured"][key], values, rtol=1e-3, atol=1e-4)


@on_tensorflow
def test_every_device_draws_dropout_masks_of_its_own(quick) -> None:
    assert len({tuple(mask) for mask in quick["masks"]}) == 4


@on_tensorflow
def test_a_run_begun_on_four_devices_goes_on_on_one(quick) -> None:
    straight = quick["image"]["0"]["losses"]
    halves = [np.mean(straight[:10]), np.mean(straight[10:])]
    np.testing.assert_allclose(quick["resumed"]["losses"], halves, rtol=2e-4)
    assert quick["resumed"]["strategies"] == ["Mirrored", "OneDeviceStrategy"]


@on_tensorflow
def test_a_trained_model_is_saved_without_the_strategy_s_marks(quick) -> None:
    assert not quick["image"]["4"]["synchronized_after"]


def _ports() -> str:
    """A port whose successor is free too."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            try:
                second.bind(("127.0.0.1", port + 1))
            except OSError:
                continue
            return str(port)


@on_tensorflow
@pytest.mark.slow
@pytest.mark.parametrize("name", ["text", "image", "causal"])
def test_two_processes_have_the_losses_of_one_device(request, tmp_path, name) -> None:
    port, paths = _ports(), [tmp_path / "0.json", tmp_path / "1.json"]
    started = [
        _start(["tf_processes.py", port, str(index), name, str(path)])
        for index, path in enumerate(paths)
    ]
    for process in started:
        _wait(process)
    one = _row(request, name)["0"]
    for path in paths:
        found = json.loads(path.read_text())
        np.testing.assert_allclose(found["losses"], one["losses"], rtol=TOLERANCE[name])
        for key, values in one["measured"].items():
            np.testing.assert_allclose(
                found["measured"][key], values, rtol=1e-3, atol=1e-4
            )


@on_tensorflow
@pytest.mark.slow
def test_a_process_that_dies_ends_the_other_with_a_message(tmp_path) -> None:
    port, path = _ports(), tmp_path / "0.json"
    started = [
        _start(["tf_processes.py", port, str(index), "dies", str(path)])
        for index in range(2)
    ]
    _wait(started[0])
    _wait(started[1], code=9)
    found = json.loads(path.read_text())
    assert "another process of this run is gone" in found["error"]
    assert found["seconds"] < 4 * tf_workers.HEARTBEAT_SECONDS


# What is refused, and what to do instead.


@on_tensorflow
@pytest.mark.parametrize(
    ("declared", "names", "message"),
    [
        ({"kind": "fully_sharded"}, ["cpu:0"], "cannot split weights.*--backend=jax"),
        ({"kind": "tensor"}, ["cpu:0"], "cannot split weights.*--backend=jax"),
        ({"kind": "data"}, ["tpu:0", "tpu:1"], "TPUs are driven through JAX"),
        (
            {"kind": "single", "processes": 2, "process_id": 0}
            | {"coordinator": "localhost:5000"},
            ["cpu:0"],
            "several processes are more than a single device",
        ),
    ],
)
def test_what_tensorflow_cannot_lay_out_is_refused(declared, names, message) -> None:
    with pytest.raises(ConfigError, match=message):
        tf_strategy.make_strategy(Distribution(**declared), names)


class OwnStatistics(keras.layers.Layer):
    """A normalisation that knows nothing of other devices."""

    def build(self, shape: tuple[int | None, ...]) -> None:
        self.moving_mean = self.add_weight(shape=shape[-1:], trainable=False)

    def call(self, x: Any) -> Any:
        return x - self.moving_mean


def _model(*layers: keras.layers.Layer) -> keras.Model:
    return keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(1)])


def _check(model: keras.Model | None = None, **changes: Any) -> tuple[str, ...]:
    given = {
        "optimizer": keras.optimizers.SGD(),
        "loss": keras.losses.MeanSquaredError(),
        "batch_size": 8,
    }
    return tf_strategy.check(model or _model(), **(given | changes))


@pytest.fixture
def four(monkeypatch) -> None:
    monkeypatch.setattr(tf_strategy, "replicas", lambda: 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 10}, "does not divide among 4 devices.*8 or 12"),
        (
            {"optimizer": keras.optimizers.SGD(gradient_accumulation_steps=2)},
            "cannot accumulate gradients.*--backend=jax",
        ),
        ({"jit_compile": True}, "XLA does not compile.*--backend=jax"),
        ({"loss": PairLoss("info_nce")}, "PairLoss.*--backend=jax"),
        ({"loss": ReplacedTokensLoss()}, "ReplacedTokensLoss.*--backend=jax"),
        ({"model": _model(OwnStatistics())}, "OwnStatistics.*--backend=jax"),
    ],
)
def test_what_would_train_otherwise_is_refused(four, changes, message) -> None:
    with pytest.raises(ConfigError, match=message):
        _check(**changes)


def test_several_steps_in_one_call_are_refused(four) -> None:
    model = _model()
    model.compile("sgd", "mse", steps_per_execution=4)
    with pytest.raises(ConfigError, match="steps_per_execution = 4.*--backend=jax"):
        tf_strategy.check_compiled(model)


def test_batch_normalization_is_synchronized_and_a_frozen_one_left_alone(four) -> None:
    norm = keras.layers.BatchNormalization()
    model = _model(norm)
    assert "1 BatchNormalization layers" in _check(model)[0]
    norm.trainable = False
    assert _check(model) == ()


def test_on_one_device_nothing_is_refused() -> None:
    optimizer = keras.optimizers.SGD(gradient_accumulation_steps=2)
    assert _check(_model(OwnStatistics()), optimizer=optimizer, batch_size=7) == ()


CONFIG = (
    '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}'
)


def test_processes_are_those_of_the_declaration_or_of_tf_config(monkeypatch) -> None:
    local = {"coordinator": "127.0.0.1:5000", "processes": 2, "process_id": 1}
    found = tf_workers.cluster(Distribution(**local))
    assert found == tf_workers.Cluster(("127.0.0.1:5000", "127.0.0.1:5001"), 1)
    assert tf_workers.cluster(Distribution()) is None
    monkeypatch.setenv("TF_CONFIG", CONFIG)
    found = tf_workers.cluster(Distribution())
    assert found == tf_workers.Cluster(("a:1", "b:1"), 1)


@pytest.mark.parametrize(
    ("text", "declared", "message"),
    [
        (CONFIG, {"processes": 3}, "another number of processes"),
        ("{}", {}, "TF_CONFIG cannot be used"),
        ('{"cluster": {"ps": []}, "task": {}}', {}, "TF_CONFIG cannot be used"),
        ("", {"processes": 2}, "need to know each other"),
        (
            "",
            {"processes": 2, "process_id": 0, "coordinator": "node1:5000"},
            "addresses of all processes",
        ),
    ],
)
def test_processes_that_cannot_find_each_other(
    monkeypatch, text, declared, message
) -> None:
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ConfigError, match=message):
        tf_workers.cluster(Distribution(**declared))


def test_another_keras_is_refused_for_several_processes(monkeypatch) -> None:
    monkeypatch.setattr(tf_workers, "VERIFIED", "2.99.")
    with pytest.raises(ConfigError, match="whose `fit` was checked"):
        tf_workers.strategy(tf_workers.Cluster(("a:1", "b:1"), 0))
