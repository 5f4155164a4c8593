"""Several arms side by side: `compare.json`, `compare.html`, `compare.csv` and plots.

What the figures carry is judged in `tflearn.evaluation.significance` and put into words
in `tflearn.reports.verdict`.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from tflearn.reports import advice as advices
from tflearn.reports import comparison_page, kept_arms, verdict
from tflearn.reports.arms import ArmResult, LabelPoint
from tflearn.reports.report import plain
from tflearn.reports.verdict import Verdict
from tflearn.support import files, secrets
from tflearn.support.errors import RunError

__all__ = [
    "ArmResult",
    "KeptComparison",
    "LabelPoint",
    "read_comparison",
    "check",
    "redraw",
    "write_comparison",
    "write_judged",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeptComparison:
    """A comparison that was read back.

    Args:
        title: What is compared.
        arms: The arms in the order they are shown.
        notes: What the reader must know beside the verdict.
        beside: The comparisons that the arms come from, if they are of several.
    """

    title: str
    arms: Sequence[ArmResult]
    notes: Sequence[str] = ()
    beside: Sequence[Mapping[str, str]] = ()


def write_comparison(
    title: str, arms: Sequence[ArmResult], folder: pathlib.Path
) -> dict[str, Any]:
    """Writes `compare.json`, `.html`, `.csv`, `resamples.json` and `plots/`.

    Args:
        title: What is compared, such as the experiment's name.
        arms: The arms in the order they are shown.
        folder: Where to write; made if need be.

    Returns:
        What `compare.json` holds.

    Raises:
        RunError: There are no arms, or they do not measure one thing.
    """
    check(arms)
    return write_judged(title, arms, verdict.judge(arms), folder=folder)


def write_judged(
    title: str,
    arms: Sequence[ArmResult],
    judged: Verdict,
    *,
    folder: pathlib.Path,
    notes: Sequence[str] = (),
    beside: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """Writes the files of a comparison whose verdict is known.

    Args:
        title: What is compared.
        arms: The arms in the order they are shown.
        judged: The verdict.
        folder: Where to write; made if need be.
        notes: What the reader must know beside the verdict.
        beside: The comparisons that the arms come from, if they are of several.

    Returns:
        What `compare.json` holds.
    """
    folder = pathlib.Path(folder)
    advice = advices.read(folder)
    found = plain(
        {
            "title": title,
            "metric": arms[0].metric,
            "split": arms[0].split,
            "verdict": judged.text,
            "claims": [dataclasses.asdict(claim) for claim in judged.claims],
            "winner": judged.winner,
            "notes": notes,
            "beside": beside,
            "advice": advice and advice.to_json(),
            "pairs": [dataclasses.asdict(pair) for pair in judged.pairs],
            "arms": [kept_arms.told(arm) for arm in arms],
        }
    )
    page = comparison_page.draw(
        title, arms, judged, folder=folder, notes=notes, advice=advice
    )
    files.write_text(folder / "compare.html", page)
    files.write_text(folder / "compare.csv", kept_arms.points_csv(arms))
    kept_arms.write_resamples(arms, folder)
    files.write_json(folder / kept_arms.FILE, secrets.redact_all(found))
    return found


def read_comparison(folder: pathlib.Path) -> KeptComparison:
    """Reads what `write_comparison` wrote.

    Args:
        folder: The comparison's folder.

    Returns:
        Title and arms, the resamples included.

    Raises:
        RunError: The folder holds no comparison that this version can read.
    """
    found, arms = kept_arms.read(pathlib.Path(folder))
    return KeptComparison(
        title=found["title"],
        arms=arms,
        notes=tuple(found.get("notes", ())),
        beside=tuple(found.get("beside", ())),
    )


def redraw(folder: pathlib.Path) -> dict[str, Any]:
    """Judges and draws a comparison again from its own files; nothing is trained.

    Args:
        folder: The comparison's folder.

    Returns:
        What `compare.json` holds now.

    Raises:
        RunError: The folder holds no comparison, or several side by side.
    """
    found = read_comparison(folder)
    if found.beside:
        raise RunError(
            "comparisons that lie side by side are drawn from their own folders",
            received=str(folder),
            fix="run --mode=compare --beside again",
        )
    check(found.arms)
    judged = verdict.judge(found.arms)
    return write_judged(
        found.title, found.arms, judged, folder=folder, notes=found.notes
    )


def check(arms: Sequence[ArmResult], *, one_test_set: bool = True) -> None:
    """Checks that arms can stand in one table.

    Args:
        arms: The arms.
        one_test_set: Whether they must have been tested on the same examples.

    Raises:
        RunError: They cannot.
    """
    if not arms:
        raise RunError("a comparison has no arms")
    drawn = {told for arm in arms for told in arm.drawn_from}
    if one_test_set and len(drawn) > 1:
        raise RunError(
            "the arms of a comparison were not tested on the same examples",
            received="; ".join(sorted(drawn)),
            fix="name one test split for all, or split by the same seed",
        )
    measured = sorted({f"{arm.split} {arm.metric}" for arm in arms})
    if len(measured) > 1:
        raise RunError(
            "the arms of a comparison do not measure one thing",
            received=", ".join(measured),
            expected="one metric on one split",
        )
