"""Generated sequences: data for demonstrations that need no download."""

from __future__ import annotations

import numpy as np

from tflearn.support.errors import DataError

_ATTEMPTS = 1000


def planted_motif(
    motif: str = "TGACGTCA",
    num_examples: int = 4000,
    length: int = 60,
    alphabet: str = "ACGT",
    seed: int = 0,
) -> list[dict[str, str]]:
    """Draws sequences; half of them hold a motif at a random place.

    The other half hold the motif's letters in another order, so that counting letters
    does not tell the two apart, and never the motif itself.

    Args:
        motif: What is planted; the default is the cAMP response element of DNA.
        num_examples: How many sequences.
        length: Letters of a sequence.
        alphabet: The letters, each as frequent as any other.
        seed: Another seed draws other sequences.

    Returns:
        Rows with the columns `sequence` and `label`: `motif` or `none`.

    Raises:
        DataError: The motif does not fit into the sequence, or has no other order.

    Example:

    >>> rows = planted_motif(num_examples=2, length=12)
    >>> [row["label"] for row in rows], "TGACGTCA" in rows[0]["sequence"]
    (['motif', 'none'], True)
    """
    if not 1 < len(motif) <= length or not set(motif) <= set(alphabet):
        raise DataError(
            "this motif cannot be planted",
            received=f"'{motif}' in {length} letters of '{alphabet}'",
            expected=f"2 to {length} letters of the alphabet",
        )
    if len(set(motif)) == 1:
        raise DataError(
            "a motif of one letter has no other order",
            received=motif,
            fix="give a motif of different letters",
        )
    rng = np.random.default_rng(seed)
    letters, word = np.array(list(alphabet)), np.array(list(motif))
    rows = []
    for number in range(num_examples):
        planted = number % 2 == 0
        sequence = _sequence(rng, letters, word, length, planted=planted)
        rows.append({"sequence": sequence, "label": "motif" if planted else "none"})
    return rows


def reversed_letters(
    num_examples: int = 4000,
    min_length: int = 3,
    max_length: int = 8,
    alphabet: str = "abcdefgh",
    seed: int = 0,
) -> list[dict[str, str]]:
    """Draws words of letters, each with the same word backwards.

    Args:
        num_examples: How many words; no two are equal.
        min_length: Letters of the shortest words.
        max_length: Letters of the longest words; all lengths are drawn equally often,
            as long as there are new words.
        alphabet: The letters, each as frequent as any other.
        seed: Another seed draws other words.

    Returns:
        Rows with the columns `text` and `reversed`.

    Raises:
        DataError: There are not so many different words.

    Example:

    >>> rows = reversed_letters(num_examples=100)
    >>> rows[0]["reversed"] == rows[0]["text"][::-1]
    True
    """
    possible = sum(len(set(alphabet)) ** n for n in range(min_length, max_length + 1))
    # Up to half of all words are found quickly by drawing.
    if not 1 <= min_length <= max_length or 2 * num_examples > possible:
        raise DataError(
            "there are too few different words",
            received=f"{num_examples:,} words of {min_length} to {max_length} letters "
            f"of '{alphabet}'",
            expected=f"at most half of the {possible:,} words there are",
        )
    rng = np.random.default_rng(seed)
    letters = np.array(sorted(set(alphabet)))
    words: dict[str, None] = {}
    while len(words) < num_examples:
        length = rng.integers(min_length, max_length + 1)
        words["".join(rng.choice(letters, size=length))] = None
    return [{"text": word, "reversed": word[::-1]} for word in words]


def _sequence(
    rng: np.random.Generator,
    letters: np.ndarray,
    motif: np.ndarray,
    length: int,
    *,
    planted: bool,
) -> str:
    for _ in range(_ATTEMPTS):
        sequence = rng.choice(letters, size=length)
        start = rng.integers(0, length - len(motif) + 1)
        word = motif if planted else rng.permutation(motif)
        sequence[start : start + len(motif)] = word
        # The motif also comes about by chance.
        if ("".join(motif) in "".join(sequence)) == planted:
            return "".join(sequence)
    raise DataError(
        "the motif is in nearly every sequence by chance",
        received=f"'{''.join(motif)}' in {length} letters of '{''.join(letters)}'",
        fix="give a longer motif or shorter sequences",
    )
