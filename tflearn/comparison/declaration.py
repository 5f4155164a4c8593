"""What a comparison declares: arms, seeds, an equal budget, tuning, labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import keras

from tflearn import objectives, regimes
from tflearn.backbones import Backbone
from tflearn.comparison import spending
from tflearn.data import Data
from tflearn.support.errors import ConfigError, nearest
from tflearn.training.features.grid import Candidate, Grid
from tflearn.training.stage import Stage

METHODS = ("halving", "grid")
#: What an arm cannot be called: what all arms share.
SHARED = "shared"
# Names are folders, and are listed with commas in --only.
_FORBIDDEN = set("/\\ ,")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tuning:
    """What is chosen for every arm by its own search on the validation split.

    Args:
        rates: Learning rates that are tried; what the optimizer of the arm takes as
            `learning_rate`. An arm may name its own.
        weight_decays: The same for `weight_decay`.
        share: Part of the arm's budget that the search may spend.
        method: `halving`: all candidates get a short run, the better half of them a
            longer one, and so on, every round for the same sum; `grid`: all get equal
            runs.

    Example:

    >>> [str(x) for x in Tuning(rates=(0.1, 0.01)).candidates(())]
    ['rate 0.1', 'rate 0.01']
    """

    rates: Sequence[float] = ()
    weight_decays: Sequence[float] = ()
    share: float = 0.3
    method: str = "halving"

    def __post_init__(self) -> None:
        """Checks the choices."""
        if self.method not in METHODS:
            raise ConfigError(
                "no such method of tuning",
                received=self.method,
                expected=", ".join(METHODS),
                nearest=nearest(str(self.method), METHODS),
            )
        if not 0 < self.share < 1:
            raise ConfigError(
                "Tuning.share is a part of the budget",
                received=self.share,
                expected="more than 0 and less than 1",
            )

    def candidates(self, rates: Sequence[float]) -> tuple[Candidate, ...]:
        """Returns what is tried.

        Args:
            rates: An arm's own rates; empty for those declared here.

        Raises:
            ConfigError: There is nothing to choose from.
        """
        grid = Grid(
            rates=tuple(rates or self.rates), weight_decays=tuple(self.weight_decays)
        )
        return grid.candidates


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to run the experiment; what is not given is that of the experiment.

    Args:
        name: Name of the arm and of its folder.
        regime: The rules of the last stage.
        backbone: Makes another backbone.
        optimizer: Replaces the last stage's optimizer, since regimes differ in the
            learning rate that suits them.
        budget: Replaces the last stage's budget, of each seed; not beside
            `Comparison.budget`.
        overrides: gin bindings over the whole declaration, such as
            `("data.Data.max_length = 32",)`.
        stages: Stages of its own right before the last one, such as a pretraining on
            texts without labels. They count as spent by the arm.
        rates: Learning rates that are tried instead of `Tuning.rates`.
    """

    name: str
    regime: Sequence[regimes.Rule] | None = None
    backbone: Callable[[], Backbone] | None = None
    optimizer: Callable[..., keras.optimizers.Optimizer] | None = None
    budget: str | None = None
    overrides: Sequence[str] = ()
    stages: Sequence[Stage] = ()
    rates: Sequence[float] = ()

    @property
    def is_apart(self) -> bool:
        """Whether its earlier stages are not those of the other arms."""
        return bool(self.overrides) or self.backbone is not None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """What is compared, and on which terms.

    Args:
        arms: The arms. Empty: scratch, frozen, partial, lora, full, as far as the
            backbone allows; and hybrid, where `unlabelled` is named.
        seeds: Every arm runs once a seed.
        budget: What every arm may spend for every number of labels, its tuning and all
            its seeds together: an amount of steps, epochs, examples, flops, seconds,
            minutes, hours or money. Without: a seed has what its last stage declares.
        price_per_hour: What an hour of the device costs, to turn money into time.
        tuning: What is tuned for every arm, out of its own budget.
        fractions: Parts of the training rows for a learning curve, such as `(0.1, 1)`.
        labels: Numbers of training rows for a learning curve, instead.
        unlabelled: Makes data without labels for the arm `hybrid`: it pretrains on them
            before it trains as `full` does.
        unlabelled_objective: What it learns from them; without one SimCLR for images,
            masked language modelling for encoders, causal for decoders.
        unlabelled_share: Part of the budget of a run that goes into that.
        workers: How many arms run side by side, each in a process of its own with its
            own devices; 0 runs all in this one.
    """

    arms: Sequence[Arm] = ()
    seeds: Sequence[int] = (0,)
    budget: str | None = None
    price_per_hour: float | None = None
    tuning: Tuning | None = None
    fractions: Sequence[float] = ()
    labels: Sequence[int] = ()
    unlabelled: Callable[[], Data] | None = None
    unlabelled_objective: Callable[[], objectives.SelfSupervised] | None = None
    unlabelled_share: float = 0.5
    workers: int = 0

    def __post_init__(self) -> None:
        """Checks what can be checked before anything is built."""
        self._check_names()
        if self.workers < 0:
            raise ConfigError(
                "Comparison.workers is how many arms run side by side",
                received=self.workers,
                expected="0 for all in one process, or more",
            )
        if self.budget is not None:
            spending.allowance(self.budget, self.price_per_hour)
        if self.price_per_hour is not None and "money" not in (self.budget or ""):
            raise ConfigError(
                "Comparison.price_per_hour is for a budget of money",
                fix="declare Comparison.budget = '0.50 money'",
            )
        _check_range("unlabelled_share", self.unlabelled_share, 0.0, 1.0)
        for fraction in self.fractions:
            _check_range("fractions", fraction, 0.0, 1.0, ends=True)
        if self.fractions and self.labels:
            raise ConfigError(
                "numbers of labels are given as fractions or as counts, not as both",
                received=f"fractions {self.fractions}, labels {self.labels}",
            )
        if self.labels and min(self.labels) < 1:
            raise ConfigError("a number of labels is at least 1", received=self.labels)
        if self.unlabelled is None and self.unlabelled_objective is not None:
            raise ConfigError(
                "an objective without labels needs data",
                fix="declare Comparison.unlabelled = @unlabelled/data.Data",
            )
        if self.unlabelled is not None and self.arms:
            raise ConfigError(
                "Comparison.unlabelled is for the default arms",
                received=f"arms {', '.join(arm.name for arm in self.arms)}",
                fix="give an arm Arm.stages of its own",
            )

    def _check_names(self) -> None:
        names = [arm.name for arm in self.arms]
        wrong = [x for x in names if x in ("", SHARED) or set(x) & _FORBIDDEN]
        if len(set(names)) < len(names) or wrong or not self.seeds:
            raise ConfigError(
                "a comparison needs arms with different names, and a seed",
                received=f"arms {names}, seeds {list(self.seeds)}",
                expected=f"names of letters, digits, '-' and '_', and not '{SHARED}'"
                if wrong
                else None,
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ConfigError("a seed is named twice", received=list(self.seeds))
        both = [x.name for x in self.arms if x.budget is not None]
        if both and self.budget is not None:
            raise ConfigError(
                "an arm has a budget of its own beside that of the comparison",
                received=", ".join(both),
                fix="leave out Arm.budget, so that all arms may spend the same",
            )

    def allowance(self, arm: Arm, last: Any) -> spending.Allowance:
        """Returns what an arm may spend for one number of labels.

        Args:
            arm: The arm.
            last: The experiment's last stage.
        """
        seeds = len(self.seeds)
        share = self.tuning.share if self.tuning else 0.0
        if self.budget is None:
            declared = arm.budget or last.budget
            whole = spending.allowance(declared, None)
            whole = dataclasses.replace(whole, amount=whole.amount * seeds)
        else:
            declared = None
            whole = spending.allowance(self.budget, self.price_per_hour)
        return spending.divide(whole, share=share, seeds=seeds, declared=declared)


def _check_range(
    field: str, value: float, low: float, high: float, *, ends: bool = False
) -> None:
    if not (low < value < high or (ends and value == high)):
        raise ConfigError(
            f"Comparison.{field} are parts of a whole",
            received=value,
            expected=f"more than {low:g} and {'at most' if ends else 'less than'} "
            f"{high:g}",
        )
