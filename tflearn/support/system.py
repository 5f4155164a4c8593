"""What the system refuses a run: room on a disk, or memory. Told in one message.

Everything a run writes appears whole or not at all, so after such an error the last
checkpoint stands and the same command goes on from it.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

from tflearn.support.errors import RunError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
# Checkpoints are written by a library that has errors without numbers.
_SAID_NO_ROOM = ("No space left on device", "Disk quota exceeded", "File too large")
_SAID_NO_MEMORY = ("Out of memory", "out of memory", "OOM when allocating")
#: Begins the note of an error that says what would fit into the memory.
FITS = "fits: "


class SystemRefusal(RunError):
    """The system refused the run something; nothing of it is lost."""

    exit_code = 75


def explain(error: BaseException) -> SystemRefusal | None:
    """Returns the message for an error of the system, None for any other error.

    Args:
        error: What was raised; what it was raised from is looked at, too, and its
            notes say where it happened.

    Example:

    >>> full = OSError(errno.ENOSPC, "No space left on device", "runs/a/report.json")
    >>> str(explain(full)).split(". ")[0]
    'there is no room left on the disk'
    >>> explain(ValueError("other")) is None
    True
    """
    for found in _chain(error):
        said, number = str(found), getattr(found, "errno", None)
        if number in _NO_ROOM or any(text in said for text in _SAID_NO_ROOM):
            return SystemRefusal(
                "there is no room left on the disk",
                received=_short(found),
                fix="make room and run the same command: it goes on from the last "
                "checkpoint",
            )
        if isinstance(found, OSError) and number in _READ_ONLY:
            return SystemRefusal(
                "the system does not let this be written",
                received=_short(found),
                fix="choose another --output_dir, or change what its owner may do",
            )
        if isinstance(found, TimeoutError):
            # Orbax takes the time by the clock on the wall.
            return SystemRefusal(
                "something did not answer in time, or the clock jumped",
                received=_short(found),
                fix="run the same command again: it goes on from the last checkpoint",
            )
        if is_memory(found):
            return SystemRefusal(
                "there is not enough memory",
                received=_short(found),
                fix=f"{_fits(error)}a smaller batch_size (with "
                "gradient_accumulation_steps of the "
                "optimizer the updates stay the same), "
                "distribution.Distribution.rematerialize, or a regime that trains less",
            )
    return None


def is_memory(error: BaseException) -> bool:
    """Tells whether an error means that memory gave out."""
    said = str(error)
    return isinstance(error, MemoryError) or any(x in said for x in _SAID_NO_MEMORY)


def _fits(error: BaseException) -> str:
    for note in _notes(error):
        if note.startswith(FITS) and note != FITS:
            return note.removeprefix(FITS) + "; "
    return ""


def _notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", ()))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _short(error: BaseException) -> str:
    notes = " ".join(x for x in _notes(error) if not x.startswith(FITS))
    said = " ".join(f"{notes} {error}".split())
    # JAX says where it was once for every call that was on the way.
    return re.sub(r"([A-Z][^:]+: )\1+", r"\1", said)[:300]
