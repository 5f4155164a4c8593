"""Errors, patterns, files and seeds."""

from __future__ import annotations

import fnmatch
import json
import os
import pathlib
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tflearn.support import cache, files, patterns, seeds
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


def _is_cached(path: pathlib.Path) -> bool:
    """Tells whether the first page of a file can be read without the disk."""
    with path.open("rb") as file:
        try:
            return os.preadv(file.fileno(), [bytearray(4096)], 0, os.RWF_NOWAIT) > 0
        except BlockingIOError:
            return False


@pytest.mark.skipif(sys.platform != "linux", reason="no such call there")
def test_files_leave_memory_and_stay_on_disk(tmp_path) -> None:
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True
    )
    if "tmpfs" in kind.stdout:
        pytest.skip("a file system in memory keeps all")
    path = tmp_path / "folder" / "file"
    path.parent.mkdir()
    with path.open("wb") as file:
        file.write(b"x" * 2**20)
        os.fsync(file.fileno())
    assert _is_cached(path)
    (tmp_path / "nowhere").symlink_to("gone")
    files.free_page_cache(tmp_path)
    assert not _is_cached(path)
    assert path.read_bytes() == b"x" * 2**20


def test_folders_that_vanish_are_passed_over(tmp_path) -> None:
    stop = threading.Event()

    def rename() -> None:
        while not stop.is_set():
            for names in (("a", "b"), ("b", "a")):
                (tmp_path / names[0]).rename(tmp_path / names[1])

    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "deep" / "file").touch()
    busy = threading.Thread(target=rename)
    busy.start()
    try:
        for _ in range(300):
            files.free_page_cache(tmp_path)
    finally:
        stop.set()
        busy.join()


def test_digest_keeps_the_borders_between_parts() -> None:
    assert files.digest("ab", "c") != files.digest("a", "bc")


def test_what_was_made_once_is_read_until_it_is_damaged(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TFLEARN_CACHE", str(tmp_path))
    made = []

    def make() -> str:
        made.append(len(made))
        return f"value {made[-1]}"

    def write(value: str, folder: pathlib.Path) -> None:
        (folder / "value").write_text(value)

    def reuse(key: str) -> str:
        return cache.reuse(
            "values",
            key,
            make=make,
            read=lambda folder: (folder / "value").read_text(),
            write=write,
        )

    assert [reuse("a"), reuse("a"), reuse("b")] == ["value 0", "value 0", "value 1"]
    (tmp_path / "values/a/value").write_text("value 9")
    assert [reuse("a"), reuse("a")] == ["value 2", "value 2"]
    # Nothing unfinished is left behind.
    assert sorted(path.name for path in (tmp_path / "values").iterdir()) == ["a", "b"]


def test_a_cache_that_cannot_be_written_is_told_of(
    tmp_path, monkeypatch, capsys
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("TFLEARN_CACHE", str(tmp_path / "file"))
    found = cache.reuse(
        "values", "a", make=lambda: 1, read=lambda folder: 2, write=lambda x, y: None
    )
    assert found == 1
    assert "values are not kept" in capsys.readouterr().out


def test_derived_seeds_are_stable_and_independent() -> None:
    assert seeds.derive(0, "shuffle", "tune") == 765031344
    assert len({seeds.derive(s, n) for s in range(10) for n in "abc"}) == 30
