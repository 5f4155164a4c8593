"""What a stage remembers between intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(kw_only=True)
class State:
    """What a stage remembers between intervals; saved with every checkpoint.

    Args:
        step: Steps trained.
        inside: How many of them belong to an interval that has not ended.
        total_steps: Where the stage ends.
        interval: Steps between validations.
        history: One dict an interval.
        best: Best headline metric on the validation split.
        best_step: Where it was reached.
        waited: Validations since then.
        seconds: Wall-clock time spent training.
        stopped: Why it ended early, or an empty string.
        rollbacks: How often the stage went back after a fault.
        digests: Fingerprints of what is frozen in this phase, from its beginning;
            empty in the first phase, where the stage's beginning tells.
    """

    step: int = 0
    inside: int = 0
    total_steps: int = 0
    interval: int = 0
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    best: float | None = None
    best_step: int = 0
    waited: int = 0
    seconds: float = 0.0
    stopped: str = ""
    rollbacks: int = 0
    digests: dict[str, str] = dataclasses.field(default_factory=dict)


#: Called with the state after every interval.
Observer = Callable[[State], None]
