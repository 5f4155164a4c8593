"""Which rule decides about a layer: the first whose selector names it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

import keras

from tflearn.regimes.adapters import KINDS
from tflearn.regimes.rules import ACTIONS, Rule
from tflearn.regimes.selective import SORTS
from tflearn.support.errors import RegimeError, nearest
from tflearn.support.patterns import matches


def decide(
    layers: Mapping[str, keras.Layer],
    units: Iterable[str],
    rules: Sequence[Rule],
    blocks: Sequence[str],
) -> dict[str, Rule]:
    """Finds the deciding rule of every layer.

    Args:
        layers: Layers by path, parents first.
        units: Paths of those that own weights; each must be covered.
        rules: Ordered rules. One that adapts selects, among the layers its pattern
            names, those of a kind that can have the adapter.
        blocks: Patterns of the backbone's repeated blocks, relative to it.

    Returns:
        Rules by path, for the layers that any rule selects.

    Raises:
        RegimeError: A rule selects nothing, one that adapts decides nothing, or a
            layer with weights is not covered.
    """
    if not rules:
        raise RegimeError(
            "a regime needs at least one rule", fix="start with regimes.full()"
        )
    selectors = [_selector(rule, layers, blocks) for rule in rules]
    matched = [False] * len(rules)
    decided: dict[str, Rule] = {}
    for path in layers:
        for index, selects in enumerate(selectors):
            if selects(path):
                # A rule shadowed by earlier ones still matched something.
                matched[index] = True
                decided.setdefault(path, rules[index])
    for rule, found in zip(rules, matched, strict=True):
        if not found:
            raise _no_match(rule, layers, list(units))
    deciding = set(map(id, decided.values()))
    for rule in rules:
        if rule.adapts and not rule.merges and id(rule) not in deciding:
            raise RegimeError(
                "earlier rules decide about every layer that this one adapts",
                received=str(rule),
                fix="put rules for few layers before those for many",
            )
    bare = [path for path in units if path not in decided]
    if bare:
        raise RegimeError(
            f"no rule covers {len(bare)} layers",
            received=", ".join(bare[:5]),
            expected="every layer that owns weights matched by a rule",
            fix="end the regime with rules.train('*') or rules.freeze('*')",
        )
    return decided


def _selector(
    rule: Rule,
    layers: Mapping[str, keras.Layer],
    blocks: Sequence[str],
) -> Callable[[str], bool]:
    given = [x for x in (rule.pattern, rule.last, rule.above) if x is not None]
    actions = (*ACTIONS, *KINDS)
    if rule.action not in actions:
        raise RegimeError(
            "unknown action of a rule",
            received=rule.action,
            expected=actions,
            nearest=nearest(rule.action, actions),
        )
    if len(given) != 1:
        raise RegimeError(
            "a rule takes exactly one of pattern, last and above", received=rule
        )
    if rule.pattern is None:
        selected = _behind(rule, layers, blocks)
        return lambda path: any(matches(name, path) for name in selected)
    fits = _fits(rule)
    if fits is None:
        return functools.partial(matches, rule.pattern)
    pattern = rule.pattern
    return lambda path: matches(pattern, path) and fits(layers[path])


def _fits(rule: Rule) -> Callable[[keras.Layer], bool] | None:
    """Returns which of the layers that a pattern names a rule is for; None: all."""
    if rule.action in KINDS:
        return KINDS[rule.action].supports
    if rule.only is None:
        return None
    if rule.only not in SORTS:
        raise RegimeError(
            "unknown sort of layers",
            received=str(rule),
            expected=SORTS,
            nearest=nearest(rule.only, SORTS),
        )
    return SORTS[rule.only]


def _behind(
    rule: Rule,
    layers: Mapping[str, keras.Layer],
    blocks: Sequence[str],
) -> list[str]:
    """Returns the backbone's direct layers behind (or from) a place on."""
    backbone = layers.get("backbone")
    if backbone is None or not isinstance(backbone, keras.Model):
        raise RegimeError("this rule needs a functional backbone", received=str(rule))
    # Blocks may lie inside a layer, as a ViT's do in its encoder.
    names = [path for path in layers if path.startswith("backbone/")]
    if rule.last is not None:
        if not 1 <= rule.last <= len(blocks):
            raise RegimeError(
                "the backbone does not have so many blocks",
                received=str(rule),
                expected=f"1 to {len(blocks)}: {', '.join(blocks) or 'none found'}",
                fix="select layers with partial(pattern=...) instead",
            )
        pattern = f"backbone/{blocks[-rule.last]}"
        first = min(i for i, name in enumerate(names) if matches(pattern, name))
        return names[first:]
    last = [i for i, name in enumerate(names) if matches(rule.above or "", name)]
    return names[max(last) + 1 :] if last else []


def _no_match(
    rule: Rule, layers: Mapping[str, keras.Layer], units: Sequence[str]
) -> RegimeError:
    wanted = rule.pattern or rule.above or ""
    named = [path for path in units if matches(wanted, path)]
    kinds = ", ".join(sorted({type(layers[path]).__name__ for path in named}))
    if rule.action in KINDS and named:
        return RegimeError(
            f"no layer of this pattern can have an adapter of kind '{rule.action}'",
            received=f"{rule}, which names layers of kind {kinds}",
            expected=KINDS[rule.action].hosts,
        )
    if rule.only and named:
        return RegimeError(
            f"no layer of this pattern is a {rule.only}",
            received=f"{rule}, which names layers of kind {kinds}",
        )
    # The first two parts of a path are what users name: backbone/block_3.
    candidates = {
        "/".join(path.split("/")[:depth]) for path in units for depth in (2, 9)
    }
    return RegimeError(
        "a rule matches no layer",
        received=str(rule),
        expected=f"a pattern over paths such as {', '.join(units[:3])}",
        nearest=nearest(wanted, sorted(candidates)),
    )
