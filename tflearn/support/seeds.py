"""Independent random streams from one seed."""

from __future__ import annotations

import hashlib


def derive(seed: int, *names: object) -> int:
    """Derives the seed of a named stream, the same on every machine.

    Hashing keeps streams independent: adding one never shifts another.

    Args:
        seed: The experiment's seed.
        *names: What the stream is for, such as `"shuffle", stage_name`.

    Returns:
        An integer in `[0, 2**31)`.

    Example:

    >>> derive(0, "shuffle") == derive(0, "shuffle")
    True
    >>> derive(0, "shuffle") == derive(0, "dropout")
    False
    """
    text = "/".join([str(int(seed)), *map(str, names)])
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:4], "big") & 0x7FFFFFFF
