"""Generated sequences: data for a demonstration that needs no download."""

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
