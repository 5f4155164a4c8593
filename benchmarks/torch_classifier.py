"""The torch model that benchmarks on SST-2 compare with.

Needs an environment with torch, transformers and, for LoRA, peft.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers

# The last two name the output of attention and of the feed-forward block.
LORA_TARGETS = ["query", "key", "value", "intermediate.dense", "output.dense"]


class Classifier(torch.nn.Module):
    """Mean of the real tokens, then a linear layer.

    Args:
        encoder: A model of transformers.
        width: Of its hidden states.
    """

    def __init__(self, encoder: torch.nn.Module, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = torch.nn.Linear(width, 2)

    # `Trainer` hands over what has a name here.
    def forward(
        self, input_ids: Any, attention_mask: Any, labels: Any = None, **_: Any
    ) -> dict[str, torch.Tensor]:
        """Returns `logits` and, given labels, their `loss`, as `Trainer` wants it."""
        found = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        hidden = found.last_hidden_state
        mask = attention_mask[..., None].to(hidden.dtype)
        logits = self.head((hidden * mask).sum(1) / mask.sum(1))
        if labels is None:
            return {"logits": logits}
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        return {"loss": loss, "logits": logits}


def load(weights: str, *, lora: bool) -> Classifier:
    """Makes the classifier of pretrained weights.

    Args:
        weights: Folder of the encoder.
        lora: Whether PEFT's adapters of rank 8 train instead, on all blocks.
    """
    encoder = transformers.AutoModel.from_pretrained(weights, add_pooling_layer=False)
    width = encoder.config.hidden_size
    if lora:
        import peft

        config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=LORA_TARGETS)
        encoder = peft.get_peft_model(encoder, config)
    return Classifier(encoder, width)
