"""How a run lies on devices: the declaration, the layouts, the same loss curve."""

from __future__ import annotations

import itertools
import json
import math
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tflearn.distribution import Distribution, layouts, plan, resolve
from tflearn.support.errors import ConfigError
from tflearn.training.rematerialization import rematerialize

ROOT = pathlib.Path(__file__).parents[1]
on_jax = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="meshes of Keras are for JAX"
)
FULL = Distribution(kind="fully_sharded")
TENSOR = Distribution(kind="tensor")


@pytest.mark.parametrize(
    ("declared", "count", "expected"),
    [
        (Distribution(), 8, {"data": 8}),
        (FULL, 4, {"data": 4}),
        (TENSOR, 4, {"data": 1, "model": 4}),
        (
            Distribution(kind="tensor", mesh={"data": -1, "model": 2}),
            8,
            {"data": 4, "model": 2},
        ),
        (
            Distribution(kind="fully_sharded", mesh={"fsdp": 2, "model": -1}),
            8,
            {"data": 1, "fsdp": 2, "model": 4},
        ),
    ],
)
def test_a_mesh_has_as_many_places_as_there_are_devices(
    declared, count, expected
) -> None:
    assert layouts.axis_sizes(declared, count) == expected


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "datas"}, "Did you mean 'data'"),
        ({"kind": "data", "mesh": {"dat": 8}}, "unknown axis.*Did you mean 'data'"),
        ({"kind": "data", "mesh": {"data": 4, "model": 2}}, "nothing is split over"),
        ({"kind": "auto", "mesh": {"data": 8}}, "chooses the mesh itself"),
        ({"kind": "tensor", "mesh": {"data": -1, "model": -1}}, "only one axis"),
        ({"kind": "tensor", "mesh": {"model": 0}}, "size of the axis 'model'"),
        ({"kind": "data", "rules": {"*": ("data",)}}, "nothing is split under"),
        ({"devices": 0}, "needs a device"),
    ],
)
def test_a_declaration_that_cannot_be_meant_is_refused(fields, message) -> None:
    with pytest.raises(ConfigError, match=message):
        Distribution(**fields)


def test_a_mesh_that_does_not_fit_is_refused() -> None:
    declared = Distribution(kind="tensor", mesh={"data": -1, "model": 3})
    with pytest.raises(ConfigError, match="does not fit the devices.*8 devices"):
        layouts.axis_sizes(declared, 8)


@pytest.mark.parametrize("order", list(itertools.permutations(plan.AXES)))
def test_three_axes_have_the_order_in_which_the_compiler_is_right(order) -> None:
    declared = Distribution(kind="tensor", mesh={name: 2 for name in order})
    assert list(layouts.axis_sizes(declared, 8)) == ["fsdp", "data", "model"]
    two = Distribution(kind="tensor", mesh={name: 2 for name in order[:2]})
    assert [n for n, size in layouts.axis_sizes(two, 4).items() if size > 1] == [
        *order[:2]
    ]


def test_one_device_stays_one_device() -> None:
    devices = resolve(Distribution(devices=1))
    assert (devices.kind, dict(devices.axes)) == ("single", {"data": 1})
    assert devices.strategy is None
    with devices.scope():
        assert keras.distribution.distribution() is None


def test_more_devices_than_there_are_is_refused() -> None:
    with pytest.raises(ConfigError, match="fewer devices than declared"):
        resolve(Distribution(kind="data", devices=1000))


@pytest.mark.parametrize(
    ("size", "expected"), [(12, "8 or 16"), (3, "Expected: 8"), (33, "32 or 40")]
)
def test_a_batch_that_does_not_divide_names_the_nearest_that_do(size, expected) -> None:
    with pytest.raises(ConfigError, match=expected):
        layouts.check_batch_size(size, axes={"data": 4, "fsdp": 2}, name="batch_size")
    layouts.check_batch_size(16, axes={"data": 4, "fsdp": 2}, name="batch_size")


@given(
    shape=st.lists(st.sampled_from([1, 3, 7, 8, 64, 96, 768]), min_size=1, max_size=4),
    sizes=st.sampled_from([{"data": 8}, {"data": 4, "model": 2}, {"fsdp": 4}]),
)
def test_every_axis_divides_the_dimension_it_takes(shape, sizes) -> None:
    layout = layouts.general("fully_sharded", tuple(shape), sizes)
    named = [axis for axis in layout if axis]
    assert len(set(named)) == len(named)
    assert all(size % sizes[x] == 0 for size, x in zip(shape, layout) if x)  # noqa: B905
    if math.prod(shape) < layouts.SMALL_ELEMENTS:
        assert not named


BLOCK = {
    "backbone/layer_0/self_attention/query/kernel": (128, 4, 32),
    "backbone/layer_0/self_attention/attention_output/kernel": (4, 32, 128),
    "backbone/layer_0/feedforward_intermediate_dense/kernel": (128, 512),
    "backbone/layer_0/feedforward_output_dense/kernel": (512, 128),
    "backbone/layer_0/feedforward_output_dense/bias": (128,),
    "backbone/decoder_block_0/attention/query/kernel": (4, 128, 32),
    "backbone/token_embedding/embeddings": (1001, 128),
    "backbone/position_embedding/embeddings": (512, 128),
    "backbone/token_embedding/reverse_embeddings": (128, 1004),
    "head/head/dense/kernel": (128, 64),
}


def test_tensor_parallelism_splits_the_first_matrix_by_outputs_the_second_by_inputs():
    found = layouts.plan(BLOCK, distribution=TENSOR, axes={"data": 2, "model": 4})
    assert list(found.values()) == [
        (None, "model", None),
        ("model", None, None),
        (None, "model"),
        ("model", None),
        (None,),
        ("model", None, None),
        # 1001 rows do not divide: the other dimension does.
        (None, "model"),
        (None, None),
        (None, "model"),
        ("model", None),
    ]


def test_rules_of_ones_own_come_first_and_must_match() -> None:
    axes = {"data": 2, "model": 4}
    rules = {"*/query/kernel": ("model", None, None)}
    declared = Distribution(kind="tensor", rules=rules, replicate="head")
    with pytest.raises(ConfigError, match="does not divide"):
        shapes = BLOCK | {"backbone/x/query/kernel": (6, 128, 32)}
        layouts.plan(shapes, distribution=declared, axes=axes)
    found = layouts.plan(BLOCK, distribution=declared, axes=axes)
    assert found["backbone/layer_0/self_attention/query/kernel"][0] == "model"
    assert found["head/head/dense/kernel"] == (None, None)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"*/querry/kernel": (None, "model", None)}, "matches no variable"),
        ({"*/query/kernel": (None, "model")}, "2 dimensions.*3 dimensions"),
        ({"*/query/kernel": (None, "modell", None)}, "Did you mean 'model'"),
        ({"*/query/kernel": ("model", "model", None)}, "uses an axis twice"),
        ({"*/query/kernel": "model"}, "is one text"),
    ],
)
def test_a_rule_that_does_not_fit_is_an_error(rules, message) -> None:
    declared = Distribution(kind="tensor", rules=rules)
    with pytest.raises(ConfigError, match=message):
        layouts.plan(BLOCK, distribution=declared, axes={"data": 1, "model": 4})


def test_on_three_axes_weights_are_not_divided_over_data() -> None:
    declared = Distribution(
        kind="tensor", rules={"*/query/kernel": (None, "data", None)}
    )
    layouts.plan(BLOCK, distribution=declared, axes={"data": 4, "fsdp": 1, "model": 2})
    with pytest.raises(ConfigError, match="over 'data'.*'fsdp' and 'model'"):
        layouts.plan(
            BLOCK, distribution=declared, axes={"fsdp": 2, "data": 2, "model": 2}
        )


def test_a_large_variable_that_would_stay_whole_must_be_declared() -> None:
    shapes = {"backbone/odd/kernel": (77, 91)}
    with pytest.raises(ConfigError, match="would lie whole.*replicate"):
        layouts.plan(shapes, distribution=FULL, axes={"data": 8})
    allowed = Distribution(kind="fully_sharded", replicate="backbone/odd")
    found = layouts.plan(shapes, distribution=allowed, axes={"data": 8})
    assert found == {"backbone/odd/kernel": (None, None)}


def trained(folder: pathlib.Path, *cases: str) -> dict:
    """What `distributed_cases.py` found on eight virtual devices."""
    output = folder / "found.json"
    subprocess.run(
        [sys.executable, str(ROOT / "tests" / "distributed_cases.py"), output, *cases],
        check=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
    )
    return json.loads(output.read_text())


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> dict:
    cases = "run/single", "run/fully_sharded", "load/fully_sharded"
    return trained(tmp_path_factory.mktemp("small"), *cases)


@pytest.mark.slow
@on_jax
def test_a_whole_run_ends_with_the_same_model_on_eight_devices(small) -> None:
    one, eight = small["run/single"], small["run/fully_sharded"]
    assert one["outside"] and eight["outside"]
    assert "fully_sharded on 8 devices" in eight["devices"]
    for stage, other in zip(one["history"], eight["history"], strict=True):
        for row, same in zip(stage, other, strict=True):
            assert row == pytest.approx(same, rel=1e-5)
    for weight, same in zip(one["weights"], eight["weights"], strict=True):
        np.testing.assert_allclose(weight, same, atol=1e-6)


@on_jax
@pytest.mark.parametrize(
    ("moment", "what"), [("loading", "weights"), ("restoring", "state")]
)
def test_a_device_gets_its_part_and_one_whole_variable_at_most(
    small, moment, what
) -> None:
    found = small["load/fully_sharded"]
    whole, part = found[what]
    assert part <= 1.1 / 8 * whole
    # Beside what was there before; Keras puts a value on the first device on its way.
    first, *others = found[moment]
    assert max(others) <= 1.02 * part
    assert part < 1.02 * first <= 1.04 * (part + found["largest"]) < 0.25 * whole


@pytest.fixture(scope="module")
def counted() -> dict[str, dict]:
    """Work and traffic of a step on eight devices, by kind of layout."""
    program = ROOT / "benchmarks" / "distribution_work.py"
    done = subprocess.run(
        [sys.executable, program, "--devices", "1", "8", "--blocks", "2", "--json"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(x) for x in done.stdout.splitlines() if x.startswith("{")]
    return {row["kind"]: row for row in rows}


@on_jax
@pytest.mark.parametrize("kind", ["data", "fully_sharded", "tensor"])
def test_work_divides_and_what_is_sent_is_what_must_be(counted, kind) -> None:
    row = counted[kind]
    assert row["flops"] == pytest.approx(counted["single"]["flops"] / 8, rel=0.1)
    assert counted["single"]["sent"] == {}
    sent, expected = row["sent"], row["expected"]
    assert sum(sent.values()) == pytest.approx(sum(expected.values()), rel=0.1)
    for name, num_bytes in expected.items():
        assert sent[name] == pytest.approx(num_bytes, rel=0.1)


TASKS = ("text", "lora", "image", "probe")
SPLIT = (
    "data",
    "fully_sharded",
    "two_axes",
    "fsdp_model",
    "cube",
    "tensor",
    "tensor_cube",
)


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> dict:
    return trained(
        tmp_path_factory.mktemp("table"),
        *(f"{task}/{layout}" for task in TASKS for layout in ("single", *SPLIT)),
        "text/rules",
        "resume/text/fully_sharded/single",
        "resume/text/single/tensor",
        "resume/text/tensor/four_devices",
    )


@on_jax
@pytest.mark.slow
@pytest.mark.parametrize("layout", SPLIT)
@pytest.mark.parametrize("task", TASKS)
def test_the_loss_curve_is_that_of_one_device(table, task, layout) -> None:
    one, found = table[f"{task}/single"], table[f"{task}/{layout}"]
    np.testing.assert_allclose(found["losses"], one["losses"], rtol=2e-4)
    np.testing.assert_allclose(found["outputs"], one["outputs"], atol=2e-3)
    if layout != "data":
        assert any(axis for layout in found["layouts"].values() for axis in layout)


@on_jax
@pytest.mark.slow
def test_every_variable_lies_as_declared(table) -> None:
    for case, found in table.items():
        for path, spec in found["lies"].items():
            layout = found["layouts"][path]
            declared = [str(axis) for axis in layout]
            assert spec + ["None"] * (len(declared) - len(spec)) == declared, case
    rules = table["text/rules"]["layouts"]
    query = [x for path, x in rules.items() if path.endswith("query/kernel")]
    assert query[0] == [None, "model", None]
    assert rules["backbone/pooled_dense/kernel"] == [None, None]


@on_jax
@pytest.mark.slow
def test_a_device_holds_an_eighth_of_weights_and_optimizer(table) -> None:
    found = table["text/fully_sharded"]
    assert found["device_bytes"] <= 1.1 / 8 * found["total_bytes"]
    whole = table["text/data"]
    assert whole["device_bytes"] == whole["total_bytes"]


@on_jax
@pytest.mark.slow
@pytest.mark.parametrize(
    "way", ["fully_sharded/single", "single/tensor", "tensor/four_devices"]
)
def test_a_checkpoint_goes_on_under_another_layout(table, way) -> None:
    one = table["text/single"]["losses"][:8]
    np.testing.assert_allclose(table[f"resume/text/{way}"]["losses"], one, rtol=2e-4)


@keras.saving.register_keras_serializable("tests")
class Block(keras.layers.Layer):
    """Draws random numbers, updates statistics, and takes a mask."""

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(8, activation="tanh", name="dense")
        self.norm = keras.layers.BatchNormalization(name="norm")
        self.dropout = keras.layers.Dropout(0.5, seed=1, name="dropout")

    def call(self, inputs, training=False):
        x = self.norm(self.dense(inputs), training=training)
        return inputs + self.dropout(x, training=training)


def losses_of_steps(pattern: str | None) -> tuple[list[float], list[np.ndarray], str]:
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8,))
    for number in range(2):
        x = Block(name=f"part_{number}")(x)
    model = keras.Model(inputs, keras.layers.Dense(1, name="out")(x))
    if pattern:
        assert rematerialize(model, pattern) == ("part_0", "part_1")
    model.compile("sgd", "mse")
    rng = np.random.default_rng(0)
    batch = rng.normal(size=(4, 8)), rng.normal(size=(4, 1))
    found = [float(model.train_on_batch(*batch)) for _ in range(3)]
    import jax

    state = [
        [v.value for v in x]
        for x in (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
            model.metrics_variables,
        )
    ]
    program = str(jax.make_jaxpr(model.train_step)(tuple(state), batch))
    return found, model.get_weights(), program


@on_jax
def test_what_is_computed_again_gives_the_same_numbers() -> None:
    kept, weights, plain = losses_of_steps(None)
    again, same, program = losses_of_steps("part_*")
    # The same operations compiled in another way differ in the last bits.
    np.testing.assert_allclose(kept, again, rtol=1e-5)
    for one, other in zip(weights, same, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    assert "checkpoint" not in plain and "remat" not in plain
    assert "checkpoint" in program or "remat" in program


def test_a_pattern_of_layers_that_matches_nothing_is_an_error() -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="dense")])
    with pytest.raises(ConfigError, match="matches no layer|fails in TensorFlow"):
        rematerialize(model, "desne")
