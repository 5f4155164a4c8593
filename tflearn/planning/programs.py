"""The compiled programs of a stage: its train step, its frozen layers, its evaluation.

A stage is entered as a run enters it, in the phase that trains the most weights; with
cached features what stands in for it trains, as in a run.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from tflearn.data import pipeline
from tflearn.distribution import Distribution, ahead, layouts
from tflearn.distribution.ahead import Compiled
from tflearn.training import course, placement
from tflearn.training.features import imagined
from tflearn.training.features import plan as features
from tflearn.training.features.gather import Gathered
from tflearn.training.features.shortcut import standin
from tflearn.training.stage import Prepared

#: What a compiled step takes, and the step.
Step = tuple[Compiled, Callable[..., Any]]
#: How many batches are looked at for the lengths of texts among them.
LOOKED_AT = 64
#: Steps that a schedule is made for where the budget is a time.
_SOME_STEPS = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """Batches of one shape.

    Args:
        batch: One of them.
        size: Elements of its inputs.
        share: Share of the steps that have this shape.
    """

    batch: Any
    size: int
    share: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entered:
    """A stage that is about to train.

    Args:
        whole: The stage.
        trained: What trains: the stage, or what stands in for it.
        leg: Its largest phase.
        gathered: The form of what is computed once, if anything is.
        reason: Why nothing is, where that has a reason.
        mesh: The devices.
    """

    whole: Prepared
    trained: Prepared
    leg: course.Leg
    gathered: Gathered | None
    reason: str
    mesh: Any

    @property
    def groups(self) -> tuple[Any, ...]:
        """Trainable, other, optimizer and metrics variables of what trains."""
        return _groups(self.trained.network.model)

    def state(self) -> Any:
        """Returns what stands for the variables when a step is compiled."""
        return tuple(
            [ahead.abstract(x, self.mesh) for x in group] for group in self.groups
        )

    def load_step(self, batch: Any, *, batch_size: int | None = None) -> Step:
        """Compiles the train step for a batch.

        Args:
            batch: A batch.
            batch_size: Another number of examples.

        Raises:
            OutOfMemory: It does not fit.
        """
        model: Any = self.trained.network.model
        # `fit` does this before its first step; it makes the metrics' variables.
        model._symbolic_build(data_batch=batch)
        data = ahead.abstract_batch(batch, self.mesh, size=batch_size)
        return ahead.load_step(model, self.state(), data)

    def step_flops(self, batch: Any) -> float:
        """Counts the products of a step, of all devices together."""
        model: Any = self.trained.network.model
        model._symbolic_build(data_batch=batch)
        data = ahead.abstract_batch(batch, self.mesh)
        return ahead.step_flops(model, self.state(), data)

    def load_forward(
        self, model: Any, inputs: Any
    ) -> tuple[Compiled, Callable[..., Any], Any]:
        """Compiles a model in inference mode.

        Args:
            model: The model, or a part of it.
            inputs: A batch of what it takes.

        Returns:
            What it takes, what runs it, and the variables that it is called with
            before the inputs.
        """
        import jax

        def run(variables: Any, inputs: Any) -> Any:
            return model.stateless_call(*variables, inputs, training=False)[0]

        variables = (model.trainable_variables, model.non_trainable_variables)
        state = tuple([ahead.abstract(x, self.mesh) for x in y] for y in variables)
        data = ahead.abstract_batch(inputs, self.mesh)
        devices = self.mesh.size
        return *ahead.load(jax.jit(run), (state, data), devices=devices), variables


@contextlib.contextmanager
def entered(
    prepared: Prepared, *, distribution: Distribution, mesh: Any, cached: bool = True
) -> Iterator[Entered]:
    """Enters the largest phase of a stage, laid out over devices.

    Args:
        prepared: The stage.
        distribution: How it lies on devices; its kind is settled.
        mesh: A `jax.sharding.Mesh` of the devices, real ones or not.
        cached: Whether frozen layers may be computed once.
    """
    prepared.apply_regime()
    steps = prepared.total_steps or _SOME_STEPS
    legs = course.plan(prepared, steps)
    leg = max(legs, key=lambda leg: leg.census.trainable)
    course.apply(prepared, leg.span.regime)
    model = prepared.network.model
    with _laid_out(model, distribution, mesh):
        course.enter(prepared, leg, None, total_steps=steps)
        found = features.plan(prepared, total_steps=steps) if cached else ""
        gathered = (
            None if isinstance(found, str) else imagined.imagined(prepared, found)
        )
        yield Entered(
            whole=prepared,
            trained=standin(prepared, gathered) if gathered else prepared,
            leg=leg,
            gathered=gathered,
            reason=found if isinstance(found, str) else "",
            mesh=mesh,
        )


def host_mesh(
    count: int = 1,
    *,
    axes: Mapping[str, int] | None = None,
    platform: str | None = None,
) -> Any:
    """Returns a mesh over the first devices of this process.

    Args:
        count: How many.
        axes: Sizes of its axes by name; one axis `data` by default.
        platform: `cpu` for those of the host; those that a run would take by default.

    Returns:
        A `jax.sharding.Mesh`; None if there are not so many.
    """
    import jax

    devices = jax.devices(platform)[:count]
    if len(devices) < count:
        return None
    sizes = axes or {"data": count}
    return jax.sharding.Mesh(
        np.array(devices).reshape(tuple(sizes.values())), tuple(sizes)
    )


def host_count() -> int:
    """Returns how many devices of a host JAX has, stand-ins for others among them."""
    import jax

    return len(jax.devices("cpu"))


def largest_batch(prepared: Prepared) -> Any:
    """Returns the largest of some batches: texts of a batch differ in length."""
    return shapes(prepared)[-1].batch


def shapes(prepared: Prepared) -> list[Shape]:
    """Returns the shapes of the batches of a stage, the smallest first.

    Args:
        prepared: The stage, or what stands in for it.
    """
    varies = prepared.batches.examples.lengths is not None
    steps = prepared.total_steps or LOOKED_AT
    count = min(steps, LOOKED_AT) if varies else 1
    # Spread over the run, in which batches of one length may come in a row.
    looked = [prepared.batches[number * steps // count] for number in range(count)]
    groups: dict[Any, list[Any]] = {}
    for batch in looked:
        groups.setdefault(tuple(x.shape for x in arrays(batch)), []).append(batch)
    found = [
        Shape(batch=x[0], size=elements(x[0][0]), share=len(x) / count)
        for x in groups.values()
    ]
    return sorted(found, key=lambda shape: shape.size)


def evaluated(prepared: Prepared, split: str) -> tuple[Any, float, set[int]]:
    """Returns the largest batch of a split, and how many of it the split is worth.

    Args:
        prepared: The stage, or what stands in for it.
        split: The split.

    Returns:
        The batch, the number, and the lengths that there are.
    """
    examples, size = prepared.examples[split], prepared.stage.eval_batch_size
    orders = list(pipeline.ordered_indices(examples, batch_size=size))
    lengths = [pipeline.padded_length(examples, x) or 1 for x in orders]
    place = int(np.argmax(lengths))
    rows = min(size, len(examples))
    filled = np.pad(orders[place], (0, rows - len(orders[place])), mode="edge")
    longest = lengths[place] if examples.lengths is not None else None
    worth = sum(lengths) / lengths[place]
    return examples.batch(filled, length=longest), worth, set(lengths)


def arrays(batch: Any) -> list[np.ndarray]:
    """Returns the arrays of a batch."""
    return [np.asarray(x) for x in keras.tree.flatten(batch)]


def elements(inputs: Any) -> int:
    """Returns how many numbers there are in the inputs of a batch."""
    return sum(x.size for x in arrays(inputs))


@contextlib.contextmanager
def _laid_out(model: keras.Model, target: Distribution, mesh: Any) -> Iterator[None]:
    """Marks variables with their layouts; on one device they may have values."""
    if mesh.size == 1:
        yield
        return
    sizes, axes = placement.shapes(model), dict(mesh.shape)
    plan = layouts.plan(sizes, distribution=target, axes=axes, strict=False)
    with ahead.planned(placement.variables(model), plan):
        yield


def _groups(model: Any) -> tuple[Any, ...]:
    return (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
