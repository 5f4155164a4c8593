"""Budgets: text to steps."""

from __future__ import annotations

import pytest

from tflearn.support.errors import ConfigError
from tflearn.training import budgets


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("7 steps", 7),
        ("1 step", 1),
        ("3 epochs", 12),
        ("0.5 epochs", 2),
        ("100 examples", 4),
        ("1e3 steps", 1000),
        (" 2 Epochs ", 8),
    ],
)
def test_a_budget_of_work_becomes_steps(text: str, steps: int) -> None:
    budget = budgets.parse(text)
    assert budgets.total_steps(budget, num_examples=100, batch_size=32) == steps


@pytest.mark.parametrize(
    ("text", "steps"), [("2 minutes", 240), ("1 hour", 7200), ("0.1 seconds", 1)]
)
def test_a_budget_of_time_needs_the_speed(text: str, steps: int) -> None:
    budget = budgets.parse(text)
    found = budgets.total_steps(
        budget, num_examples=100, batch_size=32, step_seconds=0.5
    )
    assert found == steps
    with pytest.raises(ValueError, match="step_seconds"):
        budgets.total_steps(budget, num_examples=100, batch_size=32)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("three epochs", "cannot be read"),
        ("3", "cannot be read"),
        ("", "cannot be read"),
        ("3 epoches", "Did you mean 'epochs'"),
        ("0 steps", "above 0"),
        ("1e999 steps", "above 0"),
        ("1.2.3 steps", "above 0"),
        ("-3 steps", "cannot be read"),
    ],
)
def test_a_wrong_budget_says_what_is_right(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        budgets.parse(text)
