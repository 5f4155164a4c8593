"""Logits of an encoder-decoder's next token, and what its decoder begins with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from tflearn.heads.language_model import LanguageModel

_OUTPUT = "decoder_sequence_output"


@keras.saving.register_keras_serializable(package="tflearn")
class EncoderDecoder(LanguageModel):
    """An encoder-decoder of KerasHub and logits over its vocabulary.

    A functional model of `encoder_token_ids`, `encoder_padding_mask`,
    `decoder_token_ids` and `decoder_padding_mask`, int `(batch, length)` each; its
    outputs are logits of the next token of the decoder, `(batch, length, vocabulary)`.

    Args:
        backbone: Such as `T5Backbone` or `BartBackbone`, named `backbone`.
        decoder_prompt: Ids that the decoder is given before the first token that is
            its own; saved with the model, so that it can be generated from.
        tied: Whether logits come from the token embedding. None: where it can.
        name: Name of the model.
    """

    def __init__(
        self,
        backbone: Any,
        *,
        decoder_prompt: Sequence[int],
        tied: bool | None = None,
        name: str = "encoder_decoder",
    ) -> None:
        # T5 scales what it multiplies with its own embedding.
        scaled = bool(getattr(backbone, "tie_embedding_weights", False))
        super().__init__(
            backbone,
            tied=tied,
            output=_OUTPUT,
            scale=backbone.hidden_dim**-0.5 if scaled else 1.0,
            name=name,
        )
        self.decoder_prompt = tuple(int(token) for token in decoder_prompt)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        config = super().get_config()
        kept = {name: config[name] for name in ("backbone", "tied", "name")}
        return kept | {"decoder_prompt": list(self.decoder_prompt)}
