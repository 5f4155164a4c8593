"""Drawing splits and few-label subsets by hash, the same on every machine."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tflearn.data.paths import SPLITS, split_name
from tflearn.support.errors import ConfigError

_RANGE = float(2**64)


def content_digest(value: Any) -> bytes:
    """Returns 16 bytes that depend on the content of an input only.

    Args:
        value: A text, a pair of texts, or an array of pixels or numbers.

    Returns:
        The digest; equal inputs have equal ones.
    """
    total = hashlib.blake2b(digest_size=16)
    for part in value if isinstance(value, tuple) else (value,):
        if isinstance(part, str):
            content = part.encode("utf-8", errors="surrogatepass")
            header = "text"
        else:
            array = np.ascontiguousarray(part)
            content = array.tobytes()
            header = f"{array.dtype}{array.shape}"
        total.update(f"{header}:{len(content)}:".encode())
        total.update(content)
    return total.digest()


def check_shares(splits: Mapping[str, float]) -> dict[str, float]:
    """Returns declared shares under the names of the splits.

    Raises:
        ConfigError: A name is unknown or twice there, a share is not positive, or
            they do not add up to 1.
    """
    shares = {split_name(name): float(share) for name, share in splits.items()}
    if len(shares) != len(splits) or not set(shares) <= set(SPLITS):
        raise ConfigError(
            "splits are drawn under these names",
            received=", ".join(splits),
            expected=", ".join(SPLITS),
        )
    total = sum(shares.values())
    if min(shares.values(), default=0.0) <= 0 or abs(total - 1) > 1e-6:
        raise ConfigError(
            "the shares of the splits do not make a whole",
            received=f"{dict(splits)}, sum {total:g}",
            expected="positive shares that add up to 1",
            fix="splits = {'train': 0.8, 'validation': 0.1, 'test': 0.1}",
        )
    if "train" not in shares:
        raise ConfigError("no share goes to training", received=dict(splits))
    return shares


def draw(
    digests: Sequence[bytes],
    strata: Sequence[Any],
    shares: Mapping[str, float],
    *,
    seed: int,
) -> dict[str, np.ndarray]:
    """Divides rows by the hash of their content, each stratum by the same shares.

    Rows with equal content stay together, whatever their labels, and the order of
    the rows does not matter. In each stratum the rows, ordered
    by hash, are cut at the shares; where a share is not a whole number of rows, a hash
    of the stratum decides, so that small strata do not all lose the same split.
    Every stratum has at least one training row.

    Args:
        digests: Digest of each row's input.
        strata: Class of each row, or one value for all.
        shares: Share of each split; they add up to 1.
        seed: Another seed draws other splits.

    Returns:
        Row numbers by split, ascending.
    """
    groups = _groups(digests, strata)
    assigned: dict[str, list[int]] = {split: [] for split in shares}
    names, ends = list(shares), np.cumsum(list(shares.values()))
    for stratum, members in groups.items():
        ordered = sorted(members, key=lambda digest: _unit(seed, digest))
        offset = _unit(seed, "stratum", stratum)
        count = sum(len(members[digest]) for digest in ordered)
        done = 0
        for digest in ordered:
            share = (done + offset) / count
            place = min(int(np.searchsorted(ends, share, side="right")), len(names) - 1)
            # The first rows of a stratum go to training even if a hash says otherwise.
            split = "train" if done == 0 else names[place]
            assigned[split].extend(members[digest])
            done += len(members[digest])
    return {
        split: np.asarray(sorted(rows), dtype=np.int64)
        for split, rows in assigned.items()
    }


def few(
    digests: Sequence[bytes], classes: np.ndarray, count: int, *, seed: int
) -> np.ndarray:
    """Chooses at most `count` rows of each class, those with the lowest hashes.

    Args:
        digests: Digest of each row's input.
        classes: Class number of each row, `(rows,)`.
        count: Rows a class.
        seed: Another seed chooses other rows.

    Returns:
        Row numbers, ascending.
    """

    def rank(row: int) -> tuple[float, int]:
        return _unit(seed, "few", digests[row]), row

    order = sorted(range(len(digests)), key=rank)
    taken: dict[int, int] = {}
    chosen = []
    for row in order:
        number = int(classes[row])
        if taken.get(number, 0) < count:
            taken[number] = taken.get(number, 0) + 1
            chosen.append(row)
    return np.asarray(sorted(chosen), dtype=np.int64)


def nested(
    digests: Sequence[bytes], strata: Sequence[Any], count: int, *, seed: int
) -> np.ndarray:
    """Chooses rows by hash so that fewer are a part of more, stratified.

    Every stratum's rows, ordered by hash, are spread evenly over one order of all rows,
    of which the first are taken. The first row of every stratum comes before all
    others, so that no class is missing where there are rows for all.

    Args:
        digests: Digest of each row's input.
        strata: Class of each row, or one value for all.
        count: How many rows.
        seed: Another seed chooses other rows.

    Returns:
        Row numbers, ascending; all if there are not so many.

    Example:

    >>> rows = [bytes([x]) for x in range(8)]
    >>> three = nested(rows, [0, 1] * 4, 3, seed=0)
    >>> set(three.tolist()) < set(nested(rows, [0, 1] * 4, 5, seed=0).tolist())
    True
    """
    members: dict[Any, list[int]] = {}
    for row, stratum in enumerate(strata):
        members.setdefault(stratum, []).append(row)
    places: dict[int, tuple[bool, float, int]] = {}
    for stratum, rows in members.items():
        offset = _unit(seed, "stratum", stratum)
        rows.sort(key=lambda row: (_unit(seed, "labels", digests[row]), row))
        for rank, row in enumerate(rows):
            places[row] = (rank > 0, (rank + offset) / len(rows), row)
    chosen = sorted(places, key=lambda row: places[row])[:count]
    return np.asarray(sorted(chosen), dtype=np.int64)


def _groups(
    digests: Sequence[bytes], strata: Iterable[Any]
) -> dict[Any, dict[bytes, list[int]]]:
    """Gathers rows by stratum and content; the first row of a content decides."""
    home: dict[bytes, Any] = {}
    groups: dict[Any, dict[bytes, list[int]]] = {}
    for row, (digest, stratum) in enumerate(zip(digests, strata, strict=True)):
        stratum = home.setdefault(digest, stratum)
        groups.setdefault(stratum, {}).setdefault(digest, []).append(row)
    return groups


def _unit(seed: int, *parts: Any) -> float:
    """Returns a number in `[0, 1)` that depends on the seed and the parts."""
    total = hashlib.blake2b(str(int(seed)).encode(), digest_size=8)
    for part in parts:
        content = part if isinstance(part, bytes) else str(part).encode()
        total.update(f":{len(content)}:".encode() + content)
    return int.from_bytes(total.digest(), "big") / _RANGE
