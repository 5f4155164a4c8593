"""Special tokens: what they are for, and how they are shown."""

from __future__ import annotations

from collections.abc import Sequence

from tflearn.support.errors import BackboneError, nearest

#: What a special token may be for, and the text that stands for it in a vocabulary. No
#: text is ever tokenized to one of them, not even this very text.
ROLES = {
    "pad": "[PAD]",
    "unknown": "[UNK]",
    "start": "[CLS]",
    "separator": "[SEP]",
    "end": "[END]",
    "mask": "[MASK]",
}


def check_roles(special_tokens: Sequence[str]) -> tuple[str, ...]:
    """Returns declared special tokens as they are, if they are sound.

    Args:
        special_tokens: Names of roles; their ids are 0, 1, ... in this order.

    Returns:
        The roles.

    Raises:
        BackboneError: A role is unknown or there twice.

    Example:

    >>> check_roles(["pad", "end"])
    ('pad', 'end')
    """
    if isinstance(special_tokens, str):
        raise BackboneError(
            "special_tokens takes several names",
            received=special_tokens,
            expected=f"a tuple; one name is written ('{special_tokens}',)",
        )
    for role in special_tokens:
        if role not in ROLES:
            raise BackboneError(
                "there is no such special token",
                received=role,
                expected=", ".join(ROLES),
                nearest=nearest(str(role), ROLES),
            )
    if len(set(special_tokens)) != len(special_tokens):
        raise BackboneError(
            "a special token is declared twice", received=", ".join(special_tokens)
        )
    return tuple(special_tokens)
