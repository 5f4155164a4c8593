"""The one pattern syntax of tflearn: shell wildcards over slash-separated paths.

`*` matches any characters, slashes included; `?` one character; `[abc]` one of a
set; `|` separates alternatives. A pattern that names a layer covers everything
inside it: `backbone/block_1` matches `backbone/block_1/attention/query`, and never
`backbone/block_10`.
"""

from __future__ import annotations

import fnmatch
import functools
import re


def matches(pattern: str, path: str) -> bool:
    """Tells whether `pattern` names `path` or one of the layers it lies in.

    Args:
        pattern: Wildcard pattern, alternatives separated by `|`.
        path: Slash-separated path of a layer or variable.

    Returns:
        True if the pattern matches the whole path or a whole leading part of it.

    Example:

    >>> matches("backbone/block_[01]", "backbone/block_1/dense")
    True
    >>> matches("backbone/block_1", "backbone/block_10")
    False
    """
    return _compiled(pattern).fullmatch(path) is not None


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    alternatives = (part.strip() for part in pattern.split("|"))
    # `translate` wraps in `(?s:...)\Z`; the anchor would forbid what follows.
    bodies = (fnmatch.translate(part).removesuffix(r"\Z") for part in alternatives)
    return re.compile(rf"(?:{'|'.join(bodies)})(?:/.*)?", re.DOTALL)
