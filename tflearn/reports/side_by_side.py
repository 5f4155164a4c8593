"""Several comparisons in one table; only what shares its test examples is judged."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from tflearn.reports import compare, verdict
from tflearn.reports.arms import ArmResult
from tflearn.reports.claims import Claim, listed
from tflearn.reports.compare import KeptComparison
from tflearn.reports.verdict import Verdict
from tflearn.support.errors import ConfigError


def write_side_by_side(
    folders: Sequence[pathlib.Path], target: pathlib.Path
) -> dict[str, Any]:
    """Lays comparisons side by side: the same files as a comparison has.

    Arms are named "comparison: arm". Those that were tested on the same examples are
    judged together, the others among themselves, and the page says so.

    Args:
        folders: At least two folders that hold a comparison.
        target: Where to write; none of the folders.

    Returns:
        What `compare.json` holds: that of a comparison, and `beside`.

    Raises:
        ConfigError: There are fewer than two folders, or the target is one of them.
        RunError: A folder holds no comparison, or they do not measure one thing.
    """
    folders, target = [pathlib.Path(x) for x in folders], pathlib.Path(target)
    _check_folders(folders, target)
    found = dict(
        zip(_names(folders), map(compare.read_comparison, folders), strict=True)
    )
    arms = [arm for name, x in found.items() for arm in _named(name, x.arms)]
    compare.check(arms, one_test_set=False)
    return compare.write_judged(
        " beside ".join(found),
        arms,
        _judge(_groups(found)),
        folder=target,
        notes=[
            *_unequal(found),
            *(f"{name}: {note}" for name, x in found.items() for note in x.notes),
        ],
        beside=[
            {"name": name, "title": x.title, "folder": str(folder)}
            for (name, x), folder in zip(found.items(), folders, strict=True)
        ],
    )


def _check_folders(folders: Sequence[pathlib.Path], target: pathlib.Path) -> None:
    places = [folder.resolve() for folder in folders]
    if len(set(places)) < 2 or len(set(places)) < len(places):
        raise ConfigError(
            "comparisons are laid side by side",
            received=", ".join(map(str, folders)) or "none",
            expected="at least two different folders",
        )
    if target.resolve() in places:
        raise ConfigError(
            "this would overwrite one of the comparisons",
            received=str(target),
            fix="name another folder to write to",
        )


def _names(folders: Sequence[pathlib.Path]) -> list[str]:
    """Names comparisons by their folders, by whole paths where names are the same."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(x) for x in folders]


def _named(name: str, arms: Sequence[ArmResult]) -> list[ArmResult]:
    return [dataclasses.replace(arm, name=f"{name}: {arm.name}") for arm in arms]


def _groups(found: Mapping[str, KeptComparison]) -> dict[str, list[ArmResult]]:
    """Returns the arms by what they were tested on, under the comparisons' names."""
    members: dict[tuple[str, ...], list[str]] = {}
    for name, comparison in found.items():
        drawn = sorted({x for arm in comparison.arms for x in arm.drawn_from})
        # What kept no resamples shares them with nobody.
        members.setdefault(tuple(drawn) or (name,), []).append(name)
    return {
        listed(names): [arm for name in names for arm in _named(name, found[name].arms)]
        for names in members.values()
    }


def _judge(groups: Mapping[str, Sequence[ArmResult]]) -> Verdict:
    """Judges each group by itself; over several groups nobody wins."""
    judged = {names: verdict.judge(arms) for names, arms in groups.items()}
    if len(judged) == 1:
        return next(iter(judged.values()))
    apart = Claim(
        sentence=(
            f"{listed(list(groups))} were not tested on the same examples, so that no "
            "arm of the one is judged against an arm of the other."
        ),
        rests_on="Numbers",
        figures={},
    )
    return Verdict(
        claims=[apart, *(x.claims[0] for x in judged.values())],
        pairs=[pair for x in judged.values() for pair in x.pairs],
    )


def _unequal(found: Mapping[str, KeptComparison]) -> list[str]:
    """Says in what the comparisons differ beside their arms."""
    notes = []
    for what in ("budget", "labels"):
        values = {
            name: sorted({str(getattr(arm, what)) for arm in comparison.arms})
            for name, comparison in found.items()
        }
        if len(set(map(tuple, values.values()))) > 1:
            told = "; ".join(f"{name}: {', '.join(x)}" for name, x in values.items())
            notes.append(f"The comparisons are not on equal terms in {what} ({told}).")
    return notes
