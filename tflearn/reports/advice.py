"""A prior in words: sentences with the figures they rest on, and arms in order.

What it says is decided in `tflearn.planning.advice`; here is how it is shown.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, Self

from tflearn.reports.claims import listed
from tflearn.reports.report import plain
from tflearn.support import files, secrets

#: What a comparison's folder keeps of it, written before any arm runs.
FILE = "advice.json"

#: What stands above every advice.
PRIOR = (
    "A prior, not a result: read from the figures below before anything was trained, "
    "and to be replaced by a comparison of these arms on these data."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reason:
    """One sentence of an advice.

    Args:
        sentence: What is said; the figure is in it.
        figures: The figures it rests on, by what they are.
        source: Who found what the sentence draws on, or that nobody measured it.
        threshold: What the figure is held against, and where that number is from.
        speaks_for: Arms that it speaks for.
        speaks_against: Arms that it speaks against.
    """

    sentence: str
    figures: Mapping[str, float]
    source: str
    threshold: str = ""
    speaks_for: Sequence[str] = ()
    speaks_against: Sequence[str] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Advice:
    """Which arms are worth running, and why.

    Args:
        arms: The arms worth running, the first one first.
        waiting: The arms that can wait until those have run.
        reasons: Why.
        unknown: What could not be read, each with the reason.
    """

    arms: Sequence[str]
    waiting: Sequence[str] = ()
    reasons: Sequence[Reason] = ()
    unknown: Sequence[str] = ()

    @property
    def summary(self) -> str:
        """The arms in one sentence.

        Example:

        >>> Advice(arms=("frozen", "lora"), waiting=("scratch",)).summary
        'Worth running, in this order: frozen and lora; scratch can wait.'
        """
        if not self.arms and not self.waiting:
            return "No arm of this experiment is one that the prior knows."
        told = []
        if self.arms:
            told.append(f"Worth running, in this order: {listed(self.arms)}")
        if self.waiting:
            told.append(f"{listed(self.waiting)} can wait")
        return "; ".join(told) + "."

    def to_json(self) -> dict[str, Any]:
        """Returns what `from_json` reads, and the marks that it is a prior."""
        return {"prior": PRIOR, "summary": self.summary, **dataclasses.asdict(self)}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Self:
        """Reads what `to_json` gave, after it was JSON."""
        return cls(
            arms=tuple(found["arms"]),
            waiting=tuple(found["waiting"]),
            reasons=tuple(Reason(**reason) for reason in found["reasons"]),
            unknown=tuple(found["unknown"]),
        )


def lines(advice: Advice) -> list[str]:
    """Says an advice in lines for the terminal.

    Args:
        advice: The advice.

    Returns:
        The mark of a prior, the arms, then a line a reason with its source.
    """
    reasons = [
        f"  {reason.sentence} [{'; '.join(filter(None, _grounds(reason)))}]"
        for reason in advice.reasons
    ]
    return [
        PRIOR,
        advice.summary,
        *reasons,
        *(f"  not read: {what}" for what in advice.unknown),
    ]


def write(advice: Advice, situation: Mapping[str, Any], folder: pathlib.Path) -> None:
    """Writes an advice, so that what was said before stays what it was.

    Args:
        advice: The advice.
        situation: What it was read from.
        folder: Where to write; made if need be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = plain({**advice.to_json(), "situation": situation})
    files.write_json(folder / FILE, secrets.redact_all(found))


def read(folder: pathlib.Path) -> Advice | None:
    """Reads what `write` wrote; None where nothing was written."""
    path = pathlib.Path(folder) / FILE
    return Advice.from_json(files.read_json(path)) if path.is_file() else None


def _grounds(reason: Reason) -> tuple[str, str]:
    return reason.source, reason.threshold
