"""Applying rules to a model: freezing whole layers, and what freezing means.

A frozen layer is `trainable = False`, which stops its gradients and the statistics of
normalisation layers and survives saving. Keras leaves Dropout and other random layers
of a frozen part active; here a frozen layer runs in inference mode throughout.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras

from tflearn.backbones import graph
from tflearn.regimes.census import Census, CensusRow
from tflearn.regimes.rules import ACTIONS, Rule
from tflearn.support.errors import RegimeError, nearest
from tflearn.support.patterns import matches


def layer_paths(model: keras.Model) -> dict[str, keras.Layer]:
    """Returns every layer by the path that rules are matched against.

    Args:
        model: A functional model, its backbone a layer named `backbone`.

    Returns:
        Layers and their sublayers, parents first. Whatever is not part of the
        backbone lies under `head/`; without a backbone, paths are plain names.
    """
    layers = graph.layers_by_path(model)
    if "backbone" not in layers:
        return layers
    return {
        path if path.split("/")[0] in ("backbone", "head") else f"head/{path}": layer
        for path, layer in layers.items()
    }


def unit_layers(model: keras.Model) -> dict[str, keras.Layer]:
    """Returns the layers that own weights themselves, by path."""
    return {path: x for path, x in layer_paths(model).items() if own_weights(x)}


def own_weights(layer: keras.Layer) -> list[keras.Variable]:
    """Returns the weights that a layer owns itself, not through its sublayers."""
    inner = {id(w) for x in graph.layers_by_path(layer).values() for w in x.weights}
    return [weight for weight in layer.weights if id(weight) not in inner]


def apply(
    model: keras.Model,
    rules: Sequence[Rule],
    *,
    blocks: Sequence[str] = (),
    unused: Iterable[str] = (),
) -> Census:
    """Makes the layers of a model trainable or frozen as ordered rules say.

    Args:
        model: The model; its flags are set from scratch, whatever they were.
        rules: First-match rules; every rule must match and every layer that owns
            weights must be matched.
        blocks: Patterns of the backbone's repeated blocks in order, relative to it.
        unused: Paths of layers that feed no output; they are frozen.

    Returns:
        What became of every layer.

    Raises:
        RegimeError: A rule matches nothing, or no rule covers a layer.
    """
    layers = layer_paths(model)
    owned = {path: w for path, x in layers.items() if (w := own_weights(x))}
    decided = _decide(layers, owned, rules, blocks)
    roles = {
        path: "unused" if path in set(unused) else _ROLES[rule.action]
        for path, rule in decided.items()
    }
    model.trainable = True
    _set_flags(layers, set(owned), roles)
    rows = [
        CensusRow(
            path=path,
            parameters=sum(map(_size, weights)),
            trainable=sum(
                _size(weight)
                for weight in weights
                if weight.trainable and layers[path].trainable
            ),
            role=roles[path],
            rule=str(decided[path]),
        )
        for path, weights in owned.items()
    ]
    return Census(rows=tuple(rows))


def reinitialize(model: keras.Model, census: Census) -> int:
    """Gives every layer that the census calls fresh new initial values.

    Args:
        model: The model; the values come from Keras's global seed.
        census: What `apply` returned for it.

    Returns:
        Number of weights that were set.
    """
    paths = census.paths("fresh")
    if not paths:
        return 0
    source = unit_layers(keras.models.clone_model(model))
    target = unit_layers(model)
    count = 0
    for path in paths:
        pairs = zip(own_weights(source[path]), own_weights(target[path]), strict=True)
        for new, old in pairs:
            old.assign(new.value)
            count += _size(old)
    return count


_ROLES = {"freeze": "frozen", "train": "trained", "fresh": "fresh"}


def _decide(
    layers: Mapping[str, keras.Layer],
    units: Iterable[str],
    rules: Sequence[Rule],
    blocks: Sequence[str],
) -> dict[str, Rule]:
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
            raise _no_match(rule, list(units))
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
    if rule.action not in ACTIONS:
        raise RegimeError(
            "unknown action of a rule",
            received=rule.action,
            expected=ACTIONS,
            nearest=nearest(rule.action, ACTIONS),
        )
    if len(given) != 1:
        raise RegimeError(
            "a rule takes exactly one of pattern, last and above", received=rule
        )
    if rule.pattern is not None:
        return functools.partial(matches, rule.pattern)
    selected = _behind(rule, layers, blocks)
    return lambda path: any(matches(name, path) for name in selected)


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


def _no_match(rule: Rule, units: Sequence[str]) -> RegimeError:
    wanted = rule.pattern or rule.above or ""
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


def _set_flags(
    layers: Mapping[str, keras.Layer], units: set[str], roles: Mapping[str, str]
) -> None:
    moving = {path for path, role in roles.items() if role in ("trained", "fresh")}
    # Parents come first: setting a parent sets its sublayers, which then follow.
    for path, layer in layers.items():
        inside = {x for x in units if x == path or x.startswith(f"{path}/")}
        trains = bool(inside & moving) if inside else roles.get(path) != "frozen"
        if path in units and trains and path not in moving:
            raise RegimeError(
                "a layer's own weights cannot be frozen while a layer in it trains",
                received=path,
                fix=f"freeze or train all of '{path}'",
            )
        layer.trainable = trains
        _set_inference_mode(layer, on=not trains)


def _set_inference_mode(layer: keras.Layer, *, on: bool) -> None:
    """Makes a layer ignore `training=True`, or heed it again."""
    # The wrapper hides the method on the instance alone, so configurations, saving
    # and other instances do not see it.
    layer.__dict__.pop("call", None)
    if on and "training" in inspect.signature(layer.call).parameters:
        layer.__dict__["call"] = _in_inference_mode(layer.call)


def _in_inference_mode(call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def frozen_call(*args: Any, **kwargs: Any) -> Any:
        return call(*args, **(kwargs | {"training": False}))

    return frozen_call


def _size(weight: keras.Variable) -> int:
    return math.prod(weight.shape)
