"""Which bindings a declaration reaches from its roots.

A call enters the scope that its reference names. Without one it stays in the caller's
scope; a factory is called later, maybe by code that has left that scope, so that what
is bound in the scope is reached *perhaps*.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tflearn.support.declarations.statements import Binding, Call, Macro, leaves

Key = tuple[object, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Visit:
    """A call that the declaration leads to.

    Args:
        call: The call; its scope is the one that it happens in.
        certain: Whether it surely happens in that scope.
        live: Whether it happens at all, or would without an override.
    """

    call: Call
    certain: bool
    live: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Usage:
    """What is reached.

    Args:
        live: Keys of the bindings that have an effect.
        perhaps: Those of them that only a factory without a scope may reach.
        replaced: Keys of the bindings that had an effect but for an override.
        calls: The calls that happen.
    """

    live: frozenset[Key]
    perhaps: frozenset[Key]
    replaced: frozenset[Key]
    calls: tuple[Call, ...]


class _Walk:
    """A walk over the graph that references span between bindings."""

    def __init__(self, bindings: Mapping[Key, Binding]) -> None:
        """Stores the final bindings and indexes them by what they are bound to."""
        self.macros = {b.argument: b for b in bindings.values() if b.target is None}
        self.by_target: dict[object, list[Binding]] = {}
        for binding in bindings.values():
            if binding.target is not None:
                self.by_target.setdefault(binding.target, []).append(binding)
        self.visited: dict[Key, Visit] = {}
        self.certain: set[Key] = set()
        self.perhaps: set[Key] = set()
        self.replaced: set[Key] = set()

    def visit(self, visit: Visit) -> None:
        """Follows a call and all that it leads to."""
        call = visit.call
        key = (call.target, call.scope, call.evaluate, visit.certain, visit.live)
        if key in self.visited:
            return
        self.visited[key] = visit
        chosen: dict[str, Binding] = {}
        bound = [b for b in self.by_target.get(call.target, ()) if _holds(b, call)]
        for binding in sorted(bound, key=lambda one: len(one.scope)):
            if binding.argument in chosen:
                self._follow_values([chosen[binding.argument]], visit, live=False)
            chosen[binding.argument] = binding
            self._mark(binding, certain=visit.certain or not binding.scope, visit=visit)
        for binding in chosen.values():
            self._follow_values([binding], visit, live=visit.live)
            self._follow_values(binding.earlier(), visit, live=False)

    def _mark(self, binding: Binding, *, certain: bool, visit: Visit) -> None:
        if not visit.live:
            self.replaced.add(binding.key)
        elif certain:
            self.certain.add(binding.key)
        else:
            self.perhaps.add(binding.key)

    def _follow_values(
        self, bindings: Iterable[Binding], visit: Visit, *, live: bool
    ) -> None:
        for binding in bindings:
            for leaf in leaves(binding.value):
                if isinstance(leaf, Call):
                    self.visit(_next(leaf, visit, live=live))
                elif isinstance(leaf, Macro):
                    self._follow_macro(leaf.name, visit, live=live)

    def _follow_macro(self, name: str, visit: Visit, *, live: bool) -> None:
        binding = self.macros.get(name)
        marked = self.certain if live else self.replaced
        if binding is None or binding.key in marked:
            return
        marked.add(binding.key)
        # A macro is a call of its own: its value is made in a scope of its name.
        inside = dataclasses.replace(visit.call, scope=tuple(name.split("/")))
        visit = dataclasses.replace(visit, call=inside)
        self._follow_values([binding], visit, live=live)
        self._follow_values(binding.earlier(), visit, live=False)


def trace(bindings: Mapping[Key, Binding], roots: Sequence[object]) -> Usage:
    """Finds what the roots of a declaration reach.

    Args:
        bindings: The final bindings by key.
        roots: Functions or classes that are called first, in no scope.

    Returns:
        What is reached, surely, perhaps, or only but for an override.
    """
    walk = _Walk(bindings)
    for root in roots:
        call = Call(target=root, scope=(), name="", evaluate=True)
        walk.visit(Visit(call=call, certain=True, live=True))
    return Usage(
        live=frozenset(walk.certain | walk.perhaps),
        perhaps=frozenset(walk.perhaps - walk.certain),
        replaced=frozenset(walk.replaced - walk.certain - walk.perhaps),
        calls=tuple(visit.call for visit in walk.visited.values() if visit.live),
    )


def prefixes(scope: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yields the scopes whose bindings hold in a scope, the widest first.

    Example:

    >>> list(prefixes(("a", "b")))
    [(), ('a',), ('a', 'b')]
    """
    for length in range(len(scope) + 1):
        yield scope[:length]


def _holds(binding: Binding, call: Call) -> bool:
    return binding.scope in prefixes(call.scope)


def _next(leaf: Call, visit: Visit, *, live: bool) -> Visit:
    if leaf.scope:
        return Visit(call=leaf, certain=True, live=live)
    call = dataclasses.replace(leaf, scope=visit.call.scope)
    certain = visit.certain and (leaf.evaluate or not call.scope)
    return Visit(call=call, certain=certain, live=live)
