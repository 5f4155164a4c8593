"""TPU slices that are not there: names, traffic between chips, what is refused."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import types
from typing import Any

import keras
import pytest

from tflearn.commands import check
from tflearn.commands import topology as commands_topology
from tflearn.commands.arguments import Arguments
from tflearn.distribution import Distribution, ahead, hlo, layouts, topology, work
from tflearn.distribution.hlo import Traffic
from tflearn.planning import programs
from tflearn.support.errors import ConfigError, RunError

ROOT = pathlib.Path(__file__).parents[1]
on_jax = pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="only JAX compiles for TPUs"
)


@pytest.mark.parametrize(
    ("name", "chips", "memory_gib"),
    [
        ("v5e:1x1", 1, 16),
        ("v5e:2x4", 8, 16),
        ("v5e:16x16", 256, 16),
        ("v5p:2x2x1", 4, 95),
        ("v5p:4x4x8", 128, 95),
        ("v6e:4x4", 16, 32),
    ],
)
def test_a_name_says_how_many_chips_of_which_kind(
    name: str, chips: int, memory_gib: int
) -> None:
    found = topology.parse(name)
    assert (found.chips, found.memory_bytes) == (chips, memory_gib * 2**30)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5e", "no such topology.*v5p:2x2x1.*v6e:4x4"),
        ("v5litepod:2x4", "no such topology.*Did you mean 'v5e:2x4'"),
        ("v9:2x4", "no such topology.*Did you mean"),
        ("v5e:2*4", "no such topology.*Did you mean 'v5e:2x4'"),
        ("v5e:3x3", "v5e has no slices of this grid.*2 even sizes"),
        ("v5e:1x2", "v5e has no slices of this grid.*v5e:1x1"),
        ("v5p:2x2", "v5p has no slices of this grid.*Did you mean 'v5p:2x2x"),
        ("v5p:1x1x1", "v5p has no slices of this grid"),
        ("v6e:32x32", "at most 256 chips"),
    ],
)
def test_a_slice_that_cannot_be_had_is_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        topology.parse(name)


def test_the_compiler_has_an_environment_of_its_own(monkeypatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "libtpu" else found(name, *rest),
    )
    with pytest.raises(ConfigError, match="libtpu.*Fix: make tpu-check"):
        check.main(Arguments(mode="check", gin_files=("a.gin",), topology="v5e:2x4"))


def test_tensorflow_has_no_compiler_for_tpus() -> None:
    arguments = Arguments(mode="check", backend="tensorflow", topology="v5e:2x4")
    with pytest.raises(ConfigError, match="TensorFlow 2.19.1 was the last"):
        check.main(arguments)


# What XLA prints, cut to what is read.
@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (
            "%r = f32[4,8]{1,0:T(8,128)S(1)} all-reduce(%p), channel_id=1",
            {"all-reduce": Traffic(count=1, num_bytes=128)},
        ),
        (
            "%r = (f32[]{:T(128)}, bf16[6]{0}) all-reduce(%p, %q), channel_id=1",
            {"all-reduce": Traffic(count=1, num_bytes=16)},
        ),
        (
            "%r = (bf16[2]{0}, bf16[16]{0}) all-gather-start(%p), channel_id=1",
            {"all-gather": Traffic(count=1, num_bytes=32)},
        ),
        ("%r = bf16[16]{0} all-gather-done(%s)", {}),
        (
            "%r = f32[2]{0} reduce-scatter(%p), replica_groups=[1,8]<=[8]",
            {"reduce-scatter": Traffic(count=1, num_bytes=64)},
        ),
        (
            "%r = f32[2]{0} reduce-scatter(%p), replica_groups={{0,1},{2,3}}",
            {"reduce-scatter": Traffic(count=1, num_bytes=16)},
        ),
        (
            "%r = f32[2]{0} reduce-scatter(%p), "
            "replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}",
            {"reduce-scatter": Traffic(count=1, num_bytes=32)},
        ),
        (
            "%r = (s8[3]{0}, s8[3]{0}, u32[]) collective-permute-start(%p)",
            {"collective-permute": Traffic(count=1, num_bytes=4)},
        ),
        (
            "%r = s4[5]{0} all-to-all(%p)",
            {"all-to-all": Traffic(count=1, num_bytes=3)},
        ),
    ],
)
def test_an_operation_counts_with_the_whole_tensor(operation, expected) -> None:
    text = f"ENTRY %main (p: f32[4]) -> f32[4] {{\n  {operation}\n}}\n"
    assert hlo.collectives(text) == expected


LOOP = """
%body (p: f32[4]) -> f32[4] {
  %a = f32[4]{0} all-reduce(%p), channel_id=1
}

%never (p: f32[4]) -> f32[4] {
  %a = f32[4]{0} all-reduce(%p), channel_id=2
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %w = f32[4]{0} while(%p), condition=%c, body=%body, """
RING = """
%body (p: (f32[4], u32[])) -> (f32[4], u32[]) {
  %i = u32[]{:T(128)} get-tuple-element(%p), index=1
  %two = u32[] constant(2)
  %x = f32[4]{0} get-tuple-element(%p), index=0
  %b = f32[4]{0} all-reduce(%x), channel_id=1
  %next = u32[]{:T(128)} add(%i, %two)
  ROOT %r = (f32[4]{0}, u32[]{:T(128)}) tuple(%b, %next)
}

%cond (p: (f32[4], u32[])) -> pred[] {
  %end = u32[]{:T(128)} constant(7)
  %j = u32[]{:T(128)} get-tuple-element(%p), index=1
  ROOT %less = pred[] compare(%j, %end), direction=LT
}

ENTRY %main (p: (f32[4], u32[])) -> f32[4] {
  %w = (f32[4], u32[]) while(%p), condition=%cond, body=%body
}
"""
KNOWN = 'backend_config={"known_trip_count":{"n":"5"}}'


@pytest.mark.parametrize(("config", "count"), [(KNOWN, 5), ("", 1)])
def test_an_operation_in_a_loop_counts_as_often_as_it_runs(config, count) -> None:
    found = hlo.collectives(LOOP + config + "\n}\n")
    assert found == {"all-reduce": Traffic(count=count, num_bytes=16 * count)}


def test_how_often_a_ring_runs_is_told_by_its_counter() -> None:
    found = hlo.collectives(RING)
    assert found == {"all-reduce": Traffic(count=4, num_bytes=64)}


FUSED = """
%start (p: f32[4]) -> f32[32] {
  %g = f32[32]{0} all-gather(%p), channel_id=8, dimensions={0}
}

%done (p: f32[4]) -> f32[32] {
  %h = f32[32]{0} all-gather(%p), channel_id=8, dimensions={0}
}

%all-reduce-scatter (p: f32[32]) -> f32[4] {
  %s = f32[32]{0} all-reduce(%p), channel_id=9
}

ENTRY %main (p: f32[4]) -> f32[4] {
  %a = f32[32]{0} fusion(%p), calls=%start
  %b = f32[32]{0} fusion(%a), calls=%done
  %c = f32[4]{0} fusion(%b), kind=kCustom, calls=%all-reduce-scatter
}
"""


def test_what_a_tpu_spreads_over_fusions_counts_once() -> None:
    assert hlo.collectives(FUSED) == {
        "all-gather": Traffic(count=1, num_bytes=128),
        "reduce-scatter": Traffic(count=1, num_bytes=128),
    }


WEIGHTS = 64 * 128 + 128 + 128 * 8 + 8
SPLIT = Distribution(kind="fully_sharded")


def test_a_model_takes_no_memory_before_it_is_compiled() -> None:
    with ahead.unallocated_variables():
        table = keras.layers.Embedding(10**9, 10**3)
        table.build(None)
    assert table.count_params() == 10**12
    small = keras.layers.Dense(2)
    small.build((None, 3))
    assert small.get_weights()[0].shape == (3, 2)


# Eight devices have to be asked for before JAX looks for any.
COMPILED = """
import numpy as np, jax, keras
from tflearn.distribution import Distribution, ahead, layouts

for kind in ("data", "fully_sharded"):
    declared = Distribution(kind=kind)
    axes = layouts.axis_sizes(declared, 8)
    mesh = jax.sharding.Mesh(np.array(jax.devices()), tuple(axes))
    with ahead.unallocated_variables():
        inputs = keras.Input((64,))
        hidden = keras.layers.Dense(128, activation="relu")(inputs)
        model = keras.Model(inputs, keras.layers.Dense(8)(hidden))
        variables = {str(i): x for i, x in enumerate(model.variables)}
        shapes = {path: tuple(x.shape) for path, x in variables.items()}
        plan = layouts.plan(shapes, distribution=declared, axes=axes)
        with ahead.planned(variables, plan):
            model.compile(optimizer="adam", loss="mse")
            model.optimizer.build(model.trainable_variables)
            batch = np.zeros((512, 64), "float32"), np.zeros((512, 8), "float32")
            model._symbolic_build(data_batch=batch)
            groups = (
                model.trainable_variables,
                model.non_trainable_variables,
                model.optimizer.variables,
                model.metrics_variables,
            )
            state = tuple([ahead.abstract(x, mesh) for x in group] for group in groups)
            struct = ahead.abstract_batch(batch, mesh)
            done = ahead.compile_step(model, state, struct)
    sent = {kind: x.num_bytes for kind, x in done.collectives.items()}
    flops = done.product_flops
    print(kind, done.argument_bytes, flops, done.total_bytes, sent, sep="|")
"""


@pytest.fixture(scope="module")
def compiled() -> dict[str, tuple[int, float, int, dict[str, int]]]:
    """What a small train step takes on each of eight devices, by kind of layout."""
    flags = "--xla_force_host_platform_device_count=8"
    done = subprocess.run(
        [sys.executable, "-c", COMPILED],
        cwd=ROOT,
        env=os.environ
        | {"XLA_FLAGS": flags, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split("|") for line in done.stdout.splitlines() if "|" in line]
    return {
        kind: (
            int(held),
            float(flops),
            int(total),
            {x: int(n) for x, n in re.findall(r"'([\w-]+)': (\d+)", sent)},
        )
        for kind, held, flops, total, sent in rows
    }


@on_jax
def test_data_parallel_sums_every_gradient_once(compiled) -> None:
    held, flops, total, sent = compiled["data"]
    # Weights, two moments each, and an eighth of the batch, in float32.
    assert held == pytest.approx(4 * (3 * WEIGHTS + 64 * (64 + 8)), rel=0.01)
    # Besides the gradients the loss.
    assert sent == {"all-reduce": pytest.approx(4 * WEIGHTS, rel=0.01)}
    # Two operations a weight and example forward, two for its gradient, and two for
    # the gradient of the hidden layer.
    assert flops == 64 * (4 * 64 * 128 + 6 * 128 * 8)
    assert total > held


@on_jax
def test_fully_sharded_holds_an_eighth_of_the_large_matrix(compiled) -> None:
    held, flops, _, sent = compiled["fully_sharded"]
    assert flops == compiled["data"][1]
    large, small = 64 * 128, WEIGHTS - 64 * 128
    assert held == pytest.approx(
        4 * (3 * (large / 8 + small) + 64 * (64 + 8)), rel=0.01
    )
    assert sent.get("all-gather", 0) >= 4 * large


def by_hand(inputs, kernel, stride):
    """Products that a convolution and its gradients take without padding."""
    rows, size, _, channels = inputs
    places = ((size - kernel) // stride + 1) ** 2
    return 3 * 2 * rows * places * kernel**2 * channels * 5


@on_jax
@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_and_its_gradients_cost_the_same(stride: int) -> None:
    import jax

    def loss(x, w):
        numbers = ("NHWC", "HWIO", "NHWC")
        window = (stride, stride), "VALID"
        return jax.lax.conv_general_dilated(
            x, w, *window, dimension_numbers=numbers
        ).sum()

    x, w = jax.numpy.ones((2, 9, 9, 3)), jax.numpy.ones((3, 3, 3, 5))
    traced = jax.make_jaxpr(jax.value_and_grad(loss, (0, 1)))(x, w)
    assert work.product_flops(traced.jaxpr) == pytest.approx(
        by_hand(x.shape, 3, stride), rel=0.5
    )


@on_jax
def test_loops_and_branches_count_as_they_run() -> None:
    import jax

    def step(x, w):
        return jax.lax.cond(x.sum() > 0, lambda: x @ w @ w, lambda: x @ w), None

    def loop(x, w):
        return jax.lax.scan(step, x, w)[0]

    x, w = jax.numpy.ones((2, 3)), jax.numpy.ones((5, 3, 3))
    traced = jax.make_jaxpr(jax.checkpoint(loop))(x, w)
    assert work.product_flops(traced.jaxpr) == 5 * 2 * (2 * 2 * 3 * 3)


@on_jax
def test_slots_of_the_optimizer_lie_where_their_weight_does() -> None:
    with ahead.unallocated_variables():
        layer = keras.layers.Dense(128)
        layer.build((None, 64))
        variables = {"dense/kernel": layer.kernel, "dense/bias": layer.bias}
        plan = {"dense/kernel": (None, "data"), "dense/bias": (None,)}
        with ahead.planned(variables, plan):
            optimizer = keras.optimizers.AdamW()
            optimizer.build([layer.kernel, layer.bias])
    marks = {x.name: getattr(x, "_layout", None) for x in optimizer.variables}
    split = [name for name, mark in marks.items() if mark and any(mark.axes)]
    assert len(split) == 2 and all("kernel" in name for name in split)
    assert layer.kernel._layout is None


def test_a_batch_must_divide_over_the_chips() -> None:
    with pytest.raises(ConfigError, match="does not divide over 8.*8 or 16"):
        layouts.check_batch_size(12, axes={"data": 8}, name="batch_size")


FULL = "Ran out of memory on HBM, the total memory exceeds available HBM (15.75G)"


@pytest.fixture
def too_large(monkeypatch):
    """A stage of 64 examples of which a chip takes so many."""

    def make(limit: dict[str, int], **declared) -> list[tuple[str, int]]:
        tried = []

        def compile_or_fail(prepared, target, wanted, batch, variant) -> ahead.Compiled:
            tried.append((variant.kind, variant.batch_size))
            if variant.batch_size > limit.get(variant.kind, 0):
                raise ahead.OutOfMemory(FULL)
            return COMPILES

        monkeypatch.setattr(commands_topology, "_compile", compile_or_fail)
        monkeypatch.setattr(programs, "largest_batch", lambda prepared: ())
        monkeypatch.setattr(commands_topology, "_apply", lambda prepared: None)
        stage = types.SimpleNamespace(name="tune", batch_size=64)
        prepared: Any = types.SimpleNamespace(stage=stage)
        target = Distribution(**declared)
        wanted = topology.parse("v5e:2x4")
        with pytest.raises(RunError) as raised:
            commands_topology._compile_stage(prepared, target, wanted)
        tried.append(str(raised.value))
        return tried

    return make


COMPILES = ahead.Compiled(
    argument_bytes=2**30,
    temporary_bytes=2**30,
    output_bytes=0,
    code_bytes=0,
    flops=0.0,
    product_flops=0.0,
    collectives={},
    seconds=0.0,
)


def test_what_fits_is_found_by_compiling_it(too_large) -> None:
    *tried, said = too_large({"fully_sharded": 16}, kind="data")
    assert tried == [
        ("data", 64),
        ("fully_sharded", 64),
        ("fully_sharded", 32),
        ("fully_sharded", 16),
    ]
    assert f"does not fit into a chip of v5e:2x4. Received: {FULL[:-1]}" in said
    assert "kind 'fully_sharded' with batch_size 16 takes 2.0 GiB" in said
    assert "Distribution.rematerialize" in said


def test_where_nothing_fits_a_larger_slice_is_named(too_large) -> None:
    *tried, said = too_large({}, kind="fully_sharded", rematerialize="backbone/*")
    assert [size for _, size in tried] == [64, 32, 16, 8]
    assert "Fix: a larger slice, or a smaller model" in said
    assert "rematerialize" not in said


MADE = ROOT / ".venv-tpu/bin/python"
SHIPPED = {
    "quickstart/digits.gin": ["transfer/experiment.Stage.batch_size = 16"],
    "runs/sequence/dna_motif.gin": [],
    "runs/text/llama_1b.gin": [
        *(f"{name} = 2" for name in ("LAYERS", "HEADS", "KEY_VALUE_HEADS")),
        *(f"{name} = 64" for name in ("WIDTH", "INNER", "CONTEXT", "BATCH")),
        "VOCABULARY = 2048",
    ],
}


@pytest.mark.slow
@pytest.mark.skipif(not MADE.exists(), reason="no .venv-tpu: run make tpu-check")
@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_experiment_compiles_for_eight_chips(name: str, shared_data) -> None:
    bindings = list(SHIPPED[name])
    if "shakespeare.gin" in (ROOT / "gin" / name).read_text():
        bindings.append(f"FILE = '{shared_data / 'tinyshakespeare.txt'}'")
    flags = [f"--gin_bindings={binding}" for binding in bindings]
    done = subprocess.run(
        [str(MADE), "-m", "tflearn.run", f"--gin_file={name}", *flags]
        + ["--mode=check", "--topology=v5e:2x4", "--backend=jax"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"memory +[\d.]+ \w+ a chip of 16.0 GiB", done.stdout)
    assert re.search(r"all-reduce +\d+", done.stdout)
