"""The arms that a comparison has without declared ones, as the backbone allows."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tflearn import objectives, regimes
from tflearn.comparison import arms, spending
from tflearn.comparison.declaration import Arm, Comparison
from tflearn.comparison.points import Point
from tflearn.experiment import Built, Experiment, Stage
from tflearn.objectives.language import isolation
from tflearn.regimes import Rule
from tflearn.support.errors import ConfigError, TflearnError

HYBRID = "hybrid"
_PRETRAINING = "unlabelled"
# `partial` trains so large a part of the blocks.
_QUARTER = 4
_OBJECTIVES = ("simclr", "masked_lm", "causal_lm")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A default arm that the experiment does not allow.

    Args:
        name: Its name.
        reason: Why.
    """

    name: str
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Default:
    """A default arm as it is written down, since it hangs on the backbone.

    Args:
        name: Its name.
        rules: Its regime.
        objective: What `hybrid` learns without labels; empty for a declared objective
            and for other arms.
    """

    name: str
    rules: tuple[Rule, ...]
    objective: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns what `from_json` reads."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Default:
        """Reads what `to_json` gave, after it was JSON."""
        rules = tuple(
            Rule(**rule | {"options": tuple((k, v) for k, v in rule["options"])})
            for rule in found["rules"]
        )
        return cls(name=found["name"], rules=rules, objective=found["objective"])

    def arm(self, base: Experiment, comparison: Comparison) -> Arm:
        """Makes the arm.

        Args:
            base: The experiment.
            comparison: The comparison.
        """
        plain = Arm(name=self.name, regime=self.rules)
        if self.name != HYBRID:
            return plain
        stage = _pretraining(base, comparison, self.objective, plain)
        return dataclasses.replace(plain, stages=(stage,))


def default(
    base: Experiment, comparison: Comparison, built: Built
) -> tuple[tuple[Default, ...], tuple[LeftOut, ...]]:
    """Returns the arms that a comparison has without declared ones.

    Args:
        base: The experiment.
        comparison: The comparison.
        built: The experiment, built.

    Returns:
        The arms, and those that the experiment does not allow.
    """
    found, left_out = [], []
    for name, make in _makers(base, comparison, built):
        try:
            made = make()
            arm = made.arm(base, comparison)
            arms.check(base, arm, built)
            if arm.stages:
                _check_budget(base, comparison, arm)
            found.append(made)
        except TflearnError as error:
            left_out.append(LeftOut(name=name, reason=str(error)))
    return tuple(found), tuple(left_out)


def _check_budget(base: Experiment, comparison: Comparison, arm: Arm) -> None:
    """Lets a stage of an arm that is counted in another unit show here."""
    Point(
        base=base, arm=arm, comparison=comparison, folder=pathlib.Path(), labels=None
    ).seed_budget()


def _makers(
    base: Experiment, comparison: Comparison, built: Built
) -> Iterator[tuple[str, Callable[[], Default]]]:
    # A backbone without blocks is refused by the rule, which says so.
    last = max(1, len(built.backbone.blocks) // _QUARTER)
    plain = {
        "scratch": regimes.scratch(),
        "frozen": regimes.frozen(),
        "partial": regimes.partial(last=last),
    }
    for name, rules in plain.items():
        yield name, lambda name=name, rules=rules: Default(name=name, rules=rules)
    yield "lora", lambda: _lora(base, built)
    yield "full", lambda: Default(name="full", rules=regimes.full())
    if comparison.unlabelled is not None:
        yield (
            HYBRID,
            lambda: Default(
                name=HYBRID,
                rules=regimes.full(),
                objective="" if comparison.unlabelled_objective else _objective(built),
            ),
        )


def _lora(base: Experiment, built: Built) -> Default:
    """LoRA on queries and values; without attention, on all layers that can have it."""
    rules = regimes.low_rank()
    try:
        arms.check(base, Arm(name="lora", regime=rules), built)
    except TflearnError:
        rules = regimes.low_rank(targets="backbone/*")
    return Default(name="lora", rules=rules)


def _objective(built: Built) -> str:
    backbone = built.backbone
    if backbone.kind == "image":
        return "simclr"
    if backbone.kind != "text":
        raise ConfigError(
            "there is no objective without labels for these inputs",
            received=f"inputs of kind '{backbone.kind}'",
            expected="texts or images",
            fix="declare Comparison.unlabelled_objective",
        )
    try:
        isolation.check_not_decoder(backbone, "masked_lm")
    except TflearnError:
        return "causal_lm"
    return "masked_lm"


def _pretraining(
    base: Experiment, comparison: Comparison, objective: str, arm: Arm
) -> Stage:
    """Returns the stage without labels, with its part of what a run may spend."""
    stage, data = base.stages[-1], comparison.unlabelled
    declared = comparison.unlabelled_objective or getattr(objectives, objective, None)
    if data is None or declared is None:
        raise ConfigError(
            "the arm 'hybrid' needs data without labels, and an objective for them",
            expected=", ".join(_OBJECTIVES),
            fix="declare Comparison.unlabelled",
        )
    allowed = comparison.allowance(arm, stage)
    amount = allowed.each * comparison.unlabelled_share
    names = [x.name for x in base.stages]
    return Stage(
        name=_PRETRAINING if _PRETRAINING not in names else f"{_PRETRAINING}_data",
        data=data,
        objective=declared,
        regime=regimes.full(),
        optimizer=stage.optimizer,
        budget=spending.text(amount, allowed.unit),
        batch_size=stage.batch_size,
        eval_batch_size=stage.eval_batch_size,
        faults=stage.faults,
    )
