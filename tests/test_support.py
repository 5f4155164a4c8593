"""Errors, patterns, files and seeds."""

from __future__ import annotations

import fnmatch
import json
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tflearn.support import files, patterns, seeds
from tflearn.support.errors import DataError, nearest

NAMES = st.text("ab_1", min_size=1, max_size=4)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


def test_an_error_says_received_expected_fix_and_nearest() -> None:
    error = DataError(
        "no column 'txt'",
        received="'txt'",
        expected="text, label",
        fix="rename it",
        nearest="text",
    )
    assert str(error) == (
        "no column 'txt'. Received: 'txt'. Expected: text, label. "
        "Fix: rename it. Did you mean 'text'?"
    )
    assert isinstance(error, ValueError)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("frozn", "frozen"), ("FULL", "full"), ("zzzzzz", None)],
)
def test_nearest_ignores_case_and_gives_up_on_nonsense(name, expected) -> None:
    assert nearest(name, ["frozen", "full", "partial"]) == expected


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("backbone/*", "backbone/block_1/dense", True),
        ("backbone/*", "backbone", False),
        ("backbone", "backbone/block_1/dense", True),
        ("backbone/block_1", "backbone/block_10", False),
        ("*/norm", "backbone/block_1/norm/gamma", True),
        ("*/norm", "backbone/block_1/normal", False),
        ("head/* | backbone/block_?", "backbone/block_7/dense", True),
        ("backbone/block_[!0]", "backbone/block_0", False),
        ("a.c", "abc", False),
    ],
)
def test_patterns(pattern: str, path: str, expected: bool) -> None:
    assert patterns.matches(pattern, path) is expected


@given(PATHS, PATHS)
def test_a_pattern_covers_what_it_names_and_all_inside(pattern, path) -> None:
    parts = path.split("/")
    leading = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
    expected = any(fnmatch.fnmatchcase(lead, pattern) for lead in leading)
    assert patterns.matches(pattern, path) == expected


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    tmp_path: pathlib.Path,
) -> None:
    target = tmp_path / "deep" / "report.json"
    files.write_json(target, {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(target, {"a": float("nan")})
    with pytest.raises(UnicodeEncodeError):
        files.write_text(target, "\ud800")
    assert json.loads(target.read_text()) == {"a": 1}
    assert [path.name for path in target.parent.iterdir()] == ["report.json"]


def test_digest_keeps_the_borders_between_parts() -> None:
    assert files.digest("ab", "c") != files.digest("a", "bc")


def test_derived_seeds_are_stable_and_independent() -> None:
    assert seeds.derive(0, "shuffle", "tune") == 765031344
    assert len({seeds.derive(s, n) for s in range(10) for n in "abc"}) == 30
