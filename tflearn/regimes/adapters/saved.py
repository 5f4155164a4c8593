"""Models that keep their adapters when Keras saves them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import keras

from tflearn.backbones import graph
from tflearn.regimes.adapters.attach import adapters_of, attach, attached
from tflearn.regimes.adapters.kinds import make
from tflearn.regimes.adapters.merging import merged
from tflearn.support.errors import RegimeError


@keras.saving.register_keras_serializable(package="tflearn")
class AdaptedModel(keras.Model):
    """A functional model whose configuration says which layers have adapters.

    Keras rebuilds layers from their classes, so a plain model loses its adapters when
    it is saved; this one attaches them again before its weights are read. With
    `import tflearn`, `keras.saving.load_model` finds it.
    """

    def get_config(self) -> dict[str, Any]:
        """Returns the functional configuration and the adapters by layer and name."""
        specs = {
            path: {
                name: {
                    "kind": adapter.kind,
                    "options": adapter.options(),
                    "active": adapter.active,
                    "trainable": adapter.trainable,
                }
                for name, adapter in found.items()
            }
            for path, found in adapters_of(self).items()
        }
        return super().get_config() | {"adapters": specs}

    def save_own_variables(self, store: Any) -> None:
        """Tells the adapters that this file declares them; Keras asks it first.

        Args:
            store: Where Keras wants the weights.
        """
        for found in adapters_of(self).values():
            for adapter in found.values():
                adapter.declared = True
        super().save_own_variables(store)

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> AdaptedModel:
        """Makes the model and attaches its adapters."""
        plain = {key: value for key, value in config.items() if key != "adapters"}
        plain = _before_quantization(plain)
        inner = keras.Model.from_config(plain, custom_objects)
        layers = graph.layers_by_path(inner)
        for path, by_name in config["adapters"].items():
            for name, spec in by_name.items():
                adapter = make(spec["kind"], spec["options"])
                attach(layers[path], adapter, name=name)
                adapter.trainable = spec["trainable"]
            # The last one attached is the active one.
            for name, spec in by_name.items():
                attached(layers[path])[name].active = spec["active"]
        return cls(inner.input, inner.output, name=inner.name)


def _before_quantization(config: Any) -> Any:
    """Makes layers that were quantized inside another layer come as float ones.

    An attention layer writes down only that its projections were quantized, not how:
    Keras would rebuild them with quantized activations, or groups of another size. The
    adapter quantizes its host again as it was, before weights are read.
    """
    if isinstance(config, (list, tuple)):
        return type(config)(map(_before_quantization, config))
    if not isinstance(config, Mapping):
        return config
    if config.get("class_name") != "DTypePolicyMap":
        return {key: _before_quantization(value) for key, value in config.items()}
    own = config["config"]
    kept = {
        path: policy
        for path, policy in own["policy_map"].items()
        if keras.dtype_policies.deserialize(policy).quantization_mode is None
    }
    if not kept:
        return own["default_policy"]
    return {**config, "config": {**own, "policy_map": kept}}


@contextlib.contextmanager
def exportable(model: keras.Model) -> Iterator[keras.Model]:
    """Gives a model that Keras can save and load, whatever adapters it has.

    Args:
        model: A functional model. Inside the block the adapters that can be merged
            are; afterwards it is what it was, to the last bit.

    Yields:
        The model itself if it has no adapters, else an uncompiled model of its layers
        (whose optimizer's slots would not fit): an `AdaptedModel` if adapters that
        cannot be merged are left.

    Raises:
        RegimeError: The model is not functional.

    Example:

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    >>> with exportable(model) as plain:
    ...     plain is model
    True
    """
    if not adapters_of(model):
        yield model
        return
    if not getattr(model, "inputs", None):
        raise RegimeError(
            "only a functional model can be saved without its adapters",
            received=f"{model.name} ({type(model).__name__})",
        )
    with merged(model, strict=False) as plain:
        kind = AdaptedModel if adapters_of(plain) else keras.Model
        try:
            yield kind(plain.input, plain.output, name=plain.name)
        finally:
            for found in adapters_of(plain).values():
                for adapter in found.values():
                    adapter.declared = False
