"""Generated sequences are what their labels say."""

from __future__ import annotations

import collections
import statistics

import pytest

from tflearn.data import sources
from tflearn.support.errors import DataError

MOTIF = "TGACGTCA"


def test_the_label_says_whether_the_motif_is_there() -> None:
    rows = sources.planted_motif(num_examples=400, length=60)
    assert collections.Counter(row["label"] for row in rows) == {
        "motif": 200,
        "none": 200,
    }
    for row in rows:
        assert (MOTIF in row["sequence"]) == (row["label"] == "motif")
        assert len(row["sequence"]) == 60
    assert len({row["sequence"] for row in rows}) == 400


def test_the_motif_is_anywhere() -> None:
    rows = sources.planted_motif(num_examples=400, length=30)
    places = {row["sequence"].find(MOTIF) for row in rows}
    assert places == set(range(-1, 30 - len(MOTIF) + 1))


def test_counting_letters_does_not_give_it_away() -> None:
    # The motif is nearly all there is, and its letters are of two kinds only.
    rows = sources.planted_motif("AACACACA", num_examples=400, length=10)
    means = {
        label: statistics.mean(
            row["sequence"].count("A") for row in rows if row["label"] == label
        )
        for label in ("motif", "none")
    }
    assert means["motif"] == pytest.approx(means["none"], abs=0.25)


def test_a_seed_decides_what_is_drawn() -> None:
    one, same, other = (
        sources.planted_motif(num_examples=4, seed=seed) for seed in (0, 0, 1)
    )
    assert one == same
    assert one != other


MISTAKES = {
    "cannot be planted": {"motif": "ACGT", "length": 3},
    "Received: 'ACX'": {"motif": "ACX"},
    "no other order": {"motif": "AAA"},
    "by chance": {"motif": "AC", "length": 2000, "num_examples": 2},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_what_cannot_be_drawn_is_an_error(message: str) -> None:
    with pytest.raises(DataError, match=message):
        sources.planted_motif(**MISTAKES[message])
