"""Tokens and passwords, taken out of what is printed, written or sent."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import Any

#: What stands in the place of a secret.
MARK = "<redacted>"
_LEAST_LENGTH = 8
_NAMED = re.compile(
    r"TOKEN|SECRET|PASSW(OR)?D|PASSPHRASE|CREDENTIAL|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY"
    r"|(^|_)KEY$|(^|_)AUTH$",
    re.IGNORECASE,
)
# Ways in which tokens are written, told by their own form.
_FORMS = re.compile(
    r"\b(hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}"
    r"|sk-[A-Za-z0-9_-]{20,}|AKIA[0-9A-Z]{16}|AIza[0-9A-Za-z_-]{35}"
    r"|glpat-[A-Za-z0-9_-]{20,})"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic)(\s+)[A-Za-z0-9._~+/=-]{8,}")
# The part of an URL before its host; the password may hold an @ itself.
_USER = re.compile(r"(?i)\b([a-z][a-z0-9+.-]{0,20}://)[^/\s'\"?#]{1,512}@")
_QUERY = re.compile(
    r"(?i)([?&](?:[\w.-]{0,64}(?:token|secret|password|signature|credential|api_?key)"
    r"|key|sig|auth|pwd)=)[^&\s'\"#]+"
)
# In gin: a text that is bound to a parameter of such a name, unlike `mask_token` and
# its kind, which are tokens of a vocabulary.
_BOUND = re.compile(
    r"(?i)((?<![A-Za-z0-9])(?:(?:api|access|secret|private)_?key|secret|credentials?"
    r"|password|passwd|passphrase|(?<!\w)token"
    r"|(?:hf|auth|access|api|refresh|bearer|github|kaggle|wandb)_token)"
    r"['\"]?\s*[=:]\s*)(?:'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\")"
)
# On a command line.
_FLAG = re.compile(
    r"(?i)(--[\w-]{0,64}(?:token|secret|password|passwd|api[_-]?key)(?:=|\s+))[^\s'\"]+"
)


def redact(text: str) -> str:
    """Takes secrets out of a text.

    These are: values of environment variables that are named like secrets, users and
    passwords in URLs, tokens in the query of URLs, tokens of known form, and texts
    that are bound to a parameter named like a secret.

    Args:
        text: Anything.

    Returns:
        The text, with `<redacted>` in the place of each.

    Example:

    >>> redact("gs://me:pw@host/a?token=abc&x=1")
    'gs://<redacted>@host/a?token=<redacted>&x=1'
    """
    return _redact(text, _values())


def _redact(text: str, values: Sequence[str]) -> str:
    for value in values:
        text = text.replace(value, MARK)
    text = _USER.sub(rf"\g<1>{MARK}@", text) if "@" in text else text
    text = _QUERY.sub(rf"\g<1>{MARK}", text) if "=" in text else text
    text = _FORMS.sub(MARK, text)
    text = _BEARER.sub(rf"\g<1>\g<2>{MARK}", text)
    text = _FLAG.sub(rf"\g<1>{MARK}", text) if "--" in text else text
    return _BOUND.sub(rf"\g<1>'{MARK}'", text)


def redact_all(value: Any) -> Any:
    """Takes secrets out of all texts in tables and lists, their keys included.

    Args:
        value: What JSON knows.
    """
    # Looked up once: a report holds thousands of texts.
    return _redact_all(value, _values())


def _redact_all(value: Any, values: Sequence[str]) -> Any:
    if isinstance(value, str):
        return _redact(value, values)
    if isinstance(value, dict):
        return {
            _redact_all(key, values): _redact_all(item, values)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(_redact_all(item, values) for item in value)
    return value


def same(stored: str, text: str) -> bool:
    """Tells whether a stored text is another with its secrets taken out.

    Args:
        stored: What was written, redacted.
        text: The text, secrets and all.

    Example:

    >>> same("a = 'x://<redacted>@b'", "a = 'x://me:pw@b'")
    True
    """
    lines, others = stored.split("\n"), text.split("\n")
    return len(lines) == len(others) and all(map(_same_line, lines, others))


def redact_tracebacks() -> None:
    """Takes secrets out of the tracebacks of this process from now on."""

    def show(kind: Any, error: Any, trace: Any) -> None:
        text = "".join(traceback.format_exception(kind, error, trace))
        print(redact(text), end="", file=sys.stderr)

    sys.excepthook = show
    threading.excepthook = lambda args: show(
        args.exc_type, args.exc_value, args.exc_traceback
    )


class RedactingFilter(logging.Filter):
    """Takes secrets out of log lines, as a filter of a handler."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Puts the redacted message in the place of the record's own."""
        record.msg, record.args = redact(record.getMessage()), ()
        return True


def _values() -> list[str]:
    """Returns the secrets of the environment, the longest first."""
    found = {
        value
        for name, value in os.environ.items()
        if _NAMED.search(name) and len(value) >= _LEAST_LENGTH
        # The name of a file with credentials is no secret.
        if not os.path.exists(value)
    }
    return sorted(found, key=len, reverse=True)


def _same_line(stored: str, line: str) -> bool:
    first, *parts = stored.split(MARK)
    if not parts:
        return stored == line
    place, last = len(first), parts.pop()
    if not line.startswith(first):
        return False
    for part in parts:
        found = line.find(part, place)
        if found < 0:
            return False
        place = found + len(part)
    return len(line) - len(last) >= place and line.endswith(last)
