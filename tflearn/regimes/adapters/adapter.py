"""What every adapter is: a small layer that changes what its host layer computes."""

from __future__ import annotations

from typing import Any, ClassVar

import keras

from tflearn.support.errors import RegimeError


class Adapter(keras.layers.Layer):
    """Base of adapters; a kind of adapter overrides what is below.

    An adapter lives inside its host: its weights have paths such as
    `backbone/block_0/query/adapter/a`, while the host's own weights stay the host's.
    It holds no reference to the host, which would make the host its own sublayer;
    every method that needs the host is given it.

    Attributes:
        kind: Name of the kind; the action of its rule and its name in files.
        hosts: What layers `supports` accepts, in words.
        mergeable: Whether its effect can be written into the host's weights.
        adapter_name: The name it was attached under.
        active: Whether the host calls it.
        reached: Whether the host was called with it.
        declared: Whether the model being saved says in its configuration that the
            adapter is there.
    """

    kind: ClassVar[str] = ""
    hosts: ClassVar[str] = ""
    mergeable: ClassVar[bool] = False

    adapter_name: str = "default"
    active: bool = True
    reached: bool = False
    declared: bool = False

    @classmethod
    def supports(cls, host: keras.Layer) -> bool:
        """Tells whether a layer can be a host of this kind.

        Args:
            host: A built layer.
        """
        raise NotImplementedError

    def options(self) -> dict[str, Any]:
        """Returns the hyper-parameters: what the constructor takes to make it anew."""
        return {}

    def prepare(self, host: keras.Layer) -> None:
        """Changes the host before weights are made, as quantization does.

        Args:
            host: The layer that gets the adapter; nothing is done by default.
        """

    def build_for(self, host: keras.Layer) -> None:
        """Creates the weights, for the shapes of the host.

        Args:
            host: A built layer that `supports` accepted.
        """
        raise NotImplementedError

    def around(
        self, host: keras.Layer, host_call: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """Computes what the host returns while the adapter is active.

        Dropout and other sublayers of the adapter are called as layers: Keras then
        tells them whether this is training, whatever mode the host runs in.

        Args:
            host: The host.
            host_call: Its own computation.
            *args: As the host was called.
            **kwargs: As the host was called.

        Returns:
            The outputs, of the host's shape and dtype.
        """
        raise NotImplementedError

    def merge_into(self, host: keras.Layer) -> None:
        """Writes the effect into the host's weights.

        Args:
            host: The host; the caller detaches the adapter afterwards.

        Raises:
            RegimeError: This kind cannot be merged.
        """
        raise RegimeError(
            f"an adapter of kind '{self.kind}' cannot be merged",
            received=host.name,
            fix="keep the adapter, or freeze its layer",
        )

    def save_own_variables(self, store: Any) -> None:
        """Hands the weights to a Keras file.

        Args:
            store: Where Keras wants them.

        Raises:
            RegimeError: The file would be read back without the adapter.
        """
        if not self.declared:
            raise RegimeError(
                "Keras would lose an adapter when it reads the file",
                received=f"{self.kind} '{self.adapter_name}' in a plain model",
                fix="with adapters.exportable(model) as plain: plain.save(...)",
            )
        super().save_own_variables(store)

    def get_config(self) -> dict[str, Any]:
        """Returns the configuration of the layer, hyper-parameters included."""
        return super().get_config() | self.options()
