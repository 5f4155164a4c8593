"""Computing activations again in the backward pass instead of keeping them.

Keras's own scope fails where a layer in it draws random numbers (its new seed would
leave the function that is computed twice) and knows layers by their names alone. Here
the layers are named by a pattern, and what a layer updates comes out as a result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras

from tflearn.regimes.trainability import layer_paths
from tflearn.support.errors import ConfigError, nearest
from tflearn.support.patterns import matches

_MASK = "_keras_mask"


def rematerialize(model: keras.Model, pattern: str) -> tuple[str, ...]:
    """Lets layers compute their activations again in the backward pass.

    Only what enters such a layer and leaves it is kept, so repeated blocks are what
    to name: `backbone/transformer_layer_*`.

    Args:
        model: The model; its layers are changed in place.
        pattern: Pattern of layers. Of nested ones the outermost is taken.

    Returns:
        Paths of the layers.

    Raises:
        ConfigError: The pattern matches no layer, or the backend is TensorFlow.
    """
    if keras.backend.backend() == "tensorflow":
        raise ConfigError(
            "rematerialization fails in TensorFlow's graphs (keras #21207)",
            received=f"rematerialize = '{pattern}'",
            fix="run with --backend=jax",
        )
    layers = layer_paths(model)
    named = [path for path in layers if matches(pattern, path)]
    outermost = [
        path for path in named if not any(path.startswith(f"{x}/") for x in named)
    ]
    # The backbone itself is a model: what is computed inside would have no outside.
    if not outermost:
        raise ConfigError(
            "rematerialize matches no layer",
            received=pattern,
            expected=f"a pattern over paths such as {next(iter(layers), '')}",
            nearest=nearest(pattern, layers),
        )
    for path in outermost:
        layer = layers[path]
        # Past `__setattr__`, which would track them. Keras asks the layer's method
        # only if it believes that a scope was open when the layer was made.
        layer.__dict__["_remat_mode"] = "declared"
        layer.__dict__["rematerialized_call"] = _Rematerialized(layer)
    return tuple(outermost)


class _Inner(keras.StatelessScope):
    """Reads what the scope around it reads, keeps updates to itself."""

    def get_current_value(self, variable: keras.Variable) -> Any:
        found = super().get_current_value(variable)
        return (
            self.original_scope.get_current_value(variable)
            if found is None and self.original_scope is not None
            else found
        )


class _Rematerialized:
    """What Keras calls to get the function that is called instead of `layer.call`."""

    def __init__(self, layer: keras.Layer) -> None:
        self._layer = layer

    def __call__(
        self, call: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Callable[..., Any]:
        layer = self._layer

        def recomputed(*args: Any, **kwargs: Any) -> Any:
            leaves = keras.tree.flatten((args, kwargs))
            places = [i for i, leaf in enumerate(leaves) if _is_traced(leaf)]
            if not places:
                return call(*args, **kwargs)
            tensors = [leaves[i] for i in places]
            masks = [getattr(x, _MASK, None) for x in tensors]
            collected: list[keras.Variable] = []

            def pure(tensors: list[Any], masks: list[Any]) -> Any:
                inner = list(leaves)
                for place, tensor, mask in zip(places, tensors, masks, strict=True):
                    if mask is not None:
                        setattr(tensor, _MASK, mask)
                    inner[place] = tensor
                args_, kwargs_ = keras.tree.pack_sequence_as((args, kwargs), inner)
                with _Inner(collect_losses=True) as scope:
                    outputs = call(*args_, **kwargs_)
                collected[:] = [
                    x for x in layer.variables if id(x) in scope.state_mapping
                ]
                updates = [scope.state_mapping[id(x)] for x in collected]
                return outputs, updates, scope.losses

            outputs, updates, losses = keras.remat(pure)(tensors, masks)
            for variable, value in zip(collected, updates, strict=True):
                variable.assign(value)
            for loss in losses:
                layer.add_loss(loss)
            return outputs

        return recomputed


def _is_traced(leaf: Any) -> bool:
    # In a compiled function; shapes that are only inferred need no gradient.
    import jax.core

    return isinstance(leaf, jax.core.Tracer)
