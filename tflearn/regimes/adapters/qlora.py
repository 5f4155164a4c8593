"""QLoRA: LoRA on a base whose kernel is stored in 8 or 4 bits."""

from __future__ import annotations

from typing import Any

import keras

from tflearn.regimes.adapters.adapter import Adapter
from tflearn.regimes.adapters.lora import LoRA
from tflearn.support.errors import RegimeError

BITS = (8, 4)


class QLoRA(LoRA):
    """LoRA whose host's kernel is quantized, weights only.

    Eight bits: one scale for each output. Four bits: one scale and zero point for
    each output and each group of `block_size` inputs. Activations stay in the compute
    dtype; quantizing them too, as Keras does by default, makes gradients that have
    little to do with those of the float model. The quantization is lost
    information: detaching the adapter does not bring the float kernel back, and
    there is no merging.

    Args:
        bits: 8 or 4.
        block_size: Inputs a scale of four bits serves; -1 is all of them.
        rank: As of `LoRA`.
        alpha: As of `LoRA`.
        dropout: As of `LoRA`.
        rslora: As of `LoRA`.

    References:
        Dettmers et al. 2023, https://arxiv.org/abs/2305.14314 (there with the
        4-bit type NF4; here integers, which Keras stores on both backends)
    """

    kind = "qlora"
    hosts = "Dense, EinsumDense"
    mergeable = False

    def __init__(
        self,
        *,
        bits: int = 8,
        block_size: int = 128,
        rank: int = 8,
        alpha: float = 16.0,
        dropout: float = 0.0,
        rslora: bool = False,
        **kwargs: Any,
    ) -> None:
        """Checks the hyper-parameters."""
        super().__init__(
            rank=rank, alpha=alpha, dropout=dropout, rslora=rslora, **kwargs
        )
        if bits not in BITS:
            raise RegimeError(
                "a base is quantized to 8 or 4 bits", received=bits, expected="8 or 4"
            )
        self.bits = bits
        self.block_size = block_size

    @classmethod
    def supports(cls, host: keras.Layer) -> bool:
        """Dense and EinsumDense, no subclasses: what Keras quantizes."""
        return type(host) in (keras.layers.Dense, keras.layers.EinsumDense)

    def options(self) -> dict[str, Any]:
        """Returns bits and block size, and what LoRA has."""
        own = {"bits": self.bits, "block_size": self.block_size}
        return own | super().options()

    def prepare(self, host: keras.Layer) -> None:
        """Quantizes the kernel, unless it is in that form already."""
        found = host.dtype_policy.quantization_mode
        if found is None:
            self._quantize(host)
        elif found != f"int{self.bits}":
            raise RegimeError(
                "the layer is quantized in another way",
                received=f"{host.name}: {found}",
                expected=f"float weights or int{self.bits}",
                fix="start from a backbone with float weights",
            )

    def _quantize(self, host: keras.Layer) -> None:
        if self.bits == 8:
            config = keras.quantizers.Int8QuantizationConfig(activation_quantizer=None)
        else:
            config = keras.quantizers.Int4QuantizationConfig(block_size=self.block_size)
        # The instance's own `call` would hide what the new dtype policy brings.
        host.quantize(config=config)

    def merge_into(self, host: keras.Layer) -> None:
        """Refuses: the sum does not fit into the few bits of the base."""
        Adapter.merge_into(self, host)
