"""Numbers as a person reads them."""

from __future__ import annotations


def bytes_text(num_bytes: float) -> str:
    """Formats a size with binary units.

    Example:

    >>> bytes_text(1536)
    '1.5 KiB'
    """
    size = float(num_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def duration_text(seconds: float) -> str:
    """Formats a duration.

    Example:

    >>> duration_text(75)
    '1m 15s'
    """
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes}m" if hours else f"{minutes}m {rest}s"


def count_text(count: int) -> str:
    """Formats a count with thousands separators.

    Example:

    >>> count_text(22713216)
    '22,713,216'
    """
    return f"{count:,}"


def flops_text(flops: float) -> str:
    """Formats a number of floating-point operations as a budget is written.

    Example:

    >>> flops_text(1.234e15), flops_text(950)
    ('1.23e15', '950')
    """
    if flops < 1000:
        return f"{flops:.0f}"
    mantissa, exponent = f"{flops:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}"
