"""How varied texts are: what a model that repeats itself cannot hide."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence


def distinct_n(texts: Iterable[Sequence[Hashable]], *, n: int) -> float:
    """Computes distinct-n: the share of different ones among all n-grams.

        distinct-n = |set of all n-grams of all texts| / number of n-grams

    The more texts, the lower: compare equal numbers of tokens only.

    Args:
        texts: Tokens or words of each text.
        n: Length of the n-grams.

    Returns:
        A number in (0, 1]; NaN if no text has n tokens.

    Raises:
        ValueError: n is below 1.

    Example:

    >>> distinct_n(["abab", "abc"], n=2)
    0.6

    References:
        Li et al., 2016, A Diversity-Promoting Objective Function for Neural
        Conversation Models, arXiv:1510.03055.
    """
    grams = [gram for text in texts for gram in _n_grams(text, n)]
    return len(set(grams)) / len(grams) if grams else float("nan")


def repetition_rate(texts: Iterable[Sequence[Hashable]], *, n: int = 4) -> float:
    """Computes the share of n-grams that stood in the same text before.

        rate = 1 - (sum of different n-grams of each text) / (number of n-grams)

    Unlike distinct-n it does not count what different texts have in common.

    Args:
        texts: Tokens or words of each text.
        n: Length of the n-grams.

    Returns:
        A number in [0, 1), 0 without repetition; NaN if no text has n tokens.

    Raises:
        ValueError: n is below 1.

    Example:

    >>> repetition_rate(["ababab", "abc"], n=3)
    0.4

    References:
        Welleck et al., 2020, Neural Text Generation with Unlikelihood Training,
        arXiv:1908.04319: seq-rep-n, there averaged over texts.
    """
    counts = [
        (len(set(grams)), len(grams)) for grams in (_n_grams(t, n) for t in texts)
    ]
    total = sum(number for _, number in counts)
    return 1 - sum(unique for unique, _ in counts) / total if total else float("nan")


def diversity(texts: Sequence[Sequence[Hashable]]) -> dict[str, float]:
    """Computes the usual figures: distinct-1, -2, -3 and repetition of 4-grams.

    Args:
        texts: Tokens or words of each text.

    Returns:
        The figures by name; those without any n-gram are left out.

    Example:

    >>> diversity([[1, 2, 1, 2]])["distinct_2"]
    0.6666666666666666
    """
    figures = {f"distinct_{n}": distinct_n(texts, n=n) for n in (1, 2, 3)}
    figures["repetition_4"] = repetition_rate(texts, n=4)
    return {name: value for name, value in figures.items() if value == value}


def _n_grams(tokens: Sequence[Hashable], n: int) -> list[tuple[Hashable, ...]]:
    if n < 1:
        raise ValueError(f"n-grams have at least one token. Received: n={n}")
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
