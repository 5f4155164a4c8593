"""What a compiled program sends between devices, read from its text.

XLA prints the program that every device runs. Each collective operation is counted with
the bytes of the tensor that is exchanged, whole: what an all-reduce sums, what an
all-gather has afterwards, what a reduce-scatter begins with. How many bytes pass a link
depends on how the network carries it out; a ring moves about twice these bytes for an
all-reduce and once for the others.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
#: Bits of an element where the name of the type does not end in them.
_BITS = {"pred": 8, "s4": 4, "u4": 4}

_SHAPE = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(")
_CALLED = re.compile(r"\b(body|calls|to_apply)=%?([\w.\-]+)")
_TRIPS = re.compile(r'known_trip_count"?:\s*\{"?n"?:"?(\d+)')
_LOOP = re.compile(r"\b(condition|body)=%?([\w.\-]+)")
_NAME = re.compile(r"\s*(?:ROOT )?%([\w.\-]+) = ")
_INDEX = re.compile(r"get-tuple-element\(.*\bindex=(\d+)")
_CONSTANT = re.compile(r" constant\((\d+)\)")
_OPERANDS = re.compile(r" (?:compare|add|tuple)\(([^()]*)\)")
_CHANNEL = re.compile(r"channel_id=(\d+)")
# Groups as `{{0,1},{2,3}}`, as `[2,4]<=[8]`, as `mesh['a'=2,'b'=4] {'b'}`.
_LISTED = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_IOTA = re.compile(r"replica_groups=\[\d+,(\d+)\]")
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Traffic:
    """Collective operations of one kind.

    Args:
        count: How often a step carries them out.
        num_bytes: Bytes of the tensors they exchange, over all of them.
    """

    count: int = 0
    num_bytes: int = 0


def collectives(text: str) -> dict[str, Traffic]:
    r"""Counts the collective operations of a compiled program.

    Args:
        text: The program as `jax.stages.Compiled.as_text` prints it.

    Returns:
        Traffic by kind, kinds that do not occur left out. Operations inside a loop
        count as often as it runs, once if the text does not tell how often.

    Example:

    >>> collectives("ENTRY %main (p: f32[4]) -> f32[4] {\n"
    ...     "  ROOT %r = f32[4]{0} all-reduce(%p), to_apply=%add\n}")
    {'all-reduce': Traffic(count=1, num_bytes=16)}
    """
    bodies, entry = _computations(text)
    times = _times(bodies, entry)
    seen: dict[tuple[str, str], tuple[int, int]] = {}
    for name, lines in bodies.items():
        # What nothing calls is printed as well, for the sake of its name.
        if name not in times:
            continue
        for kind, channel, size in _exchanged(name, lines):
            # A TPU spreads one operation over several fusions, to compute meanwhile,
            # some of them in loops; they share its channel.
            count, most = seen.get((kind, channel), (times[name], 0))
            seen[kind, channel] = min(count, times[name]), max(most, size)
    found: dict[str, Traffic] = {}
    for (kind, _), (count, size) in seen.items():
        before = found.get(kind, Traffic())
        found[kind] = Traffic(
            count=before.count + count, num_bytes=before.num_bytes + count * size
        )
    return {kind: found[kind] for kind in KINDS if kind in found}


def shape_bytes(text: str) -> int:
    """Returns the bytes of the arrays that a shape names.

    Args:
        text: Such as `(bf16[8,128]{1,0:T(8,128)(2,1)}, f32[])`.

    Example:

    >>> shape_bytes("(bf16[8,128]{1,0:T(8,128)(2,1)}, f32[])")
    2052
    """
    return sum(_sizes(text))


def _sizes(text: str) -> list[int]:
    return [
        -(-_bits(dtype) * math.prod(int(x) for x in sizes.split(",") if x) // 8)
        for dtype, sizes in _SHAPE.findall(text)
        if _bits(dtype)
    ]


def _bits(dtype: str) -> int:
    """Returns the bits of an element; 0 for a token, which is no array."""
    if dtype in _BITS:
        return _BITS[dtype]
    digits = re.search(r"\d+", dtype)
    return int(digits.group()) if digits else 0


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Splits a program into its computations; returns the name of the first, too."""
    bodies: dict[str, list[str]] = {}
    entry, current = "", ""
    for line in text.splitlines():
        head = _COMPUTATION.match(line)
        if head is not None:
            current = head.group(1)
            bodies[current] = []
            entry = current if line.startswith("ENTRY") else entry
        elif current:
            bodies[current].append(line)
    return bodies, entry


def _times(bodies: Mapping[str, list[str]], entry: str) -> dict[str, int]:
    """Counts how often a step runs each computation."""
    calls = {name: list(_calls(lines, bodies)) for name, lines in bodies.items()}
    times: dict[str, int] = {}
    waiting = [(entry, 1)]
    # Computations do not call themselves, so this ends.
    while waiting:
        name, factor = waiting.pop()
        times[name] = times.get(name, 0) + factor
        waiting += [(called, factor * trips) for called, trips in calls.get(name, ())]
    return times


def _calls(
    lines: list[str], bodies: Mapping[str, list[str]]
) -> Iterator[tuple[str, int]]:
    for line in lines:
        for role, name in _CALLED.findall(line):
            yield name, _trips(line, bodies) if role == "body" else 1


def _trips(line: str, bodies: Mapping[str, list[str]]) -> int:
    """Returns how often a loop runs; 1 if that cannot be told."""
    known = _TRIPS.search(line)
    if known is not None:
        return int(known.group(1))
    called = dict(_LOOP.findall(line))
    condition = bodies.get(called.get("condition", ""), [])
    body = bodies.get(called.get("body", ""), [])
    # The rings that the compiler makes of a product count up from 0 to a constant.
    defined = _defined(condition)
    root = next((x for x in condition if "ROOT" in x and "direction=LT" in x), "")
    compared = _operands(root)
    if len(compared) != 2:
        return 1
    counter = _INDEX.search(defined.get(compared[0], ""))
    end = _CONSTANT.search(defined.get(compared[1], ""))
    step = _step(body, counter.group(1)) if counter else None
    return -(-int(end.group(1)) // step) if end and step else 1


def _step(body: list[str], index: str) -> int | None:
    """Returns what a loop's body adds to an element of its state."""
    defined = _defined(body)
    root = next((line for line in body if line.strip().startswith("ROOT")), "")
    results = _operands(root)
    if not results or int(index) >= len(results):
        return None
    added = defined.get(results[int(index)], "")
    if " add(" not in added:
        return None
    constants = [_CONSTANT.search(defined.get(x, "")) for x in _operands(added)]
    found = [int(x.group(1)) for x in constants if x]
    return found[0] if len(found) == 1 and found[0] > 0 else None


def _defined(lines: list[str]) -> dict[str, str]:
    """Returns the lines of a computation by what they define."""
    found = ((_NAME.match(line), line) for line in lines)
    return {match.group(1): line for match, line in found if match}


def _operands(line: str) -> list[str]:
    match = _OPERANDS.search(line)
    return re.findall(r"%([\w.\-]+)", match.group(1)) if match else []


def _exchanged(name: str, lines: list[str]) -> Iterator[tuple[str, str, int]]:
    """Yields kind, channel and bytes of the collectives of a computation."""
    for number, line in enumerate(lines):
        match = _COLLECTIVE.search(line)
        if match is None:
            continue
        shape, kind, started = match.groups()
        sizes = _sizes(shape)
        if started and kind == "all-gather":
            # (operands..., results...)
            sizes = sizes[len(sizes) // 2 :]
        elif started and kind == "collective-permute":
            sizes = [max(sizes, default=0)]
        size = sum(sizes)
        if kind == "reduce-scatter":
            size *= _group_size(line)
        # A TPU carries out a reduce-scatter as a fusion of a sum and a slice.
        if kind == "all-reduce" and name.startswith("all-reduce-scatter"):
            kind = "reduce-scatter"
        channel = _CHANNEL.search(line)
        yield kind, channel.group(1) if channel else f"{name}/{number}", size


def _group_size(line: str) -> int:
    """Returns how many devices take part in an operation."""
    if found := _IOTA.search(line):
        return int(found.group(1))
    if found := _LISTED.search(line):
        return len(found.group(1).split(","))
    if found := _MESH.search(line):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", found.group(1)))
        named = re.findall(r"'(\w+)'", found.group(2))
        return math.prod(int(sizes[axis]) for axis in named)
    return 1
