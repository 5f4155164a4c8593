"""Makes `prefix_bert.npz`: what PEFT's prefix tuning gives on a tiny random BERT.

Generated with torch 2.13.0 (CPU), transformers 5.23.0 and peft 0.21.2:

    python tests/golden/make_prefix_golden.py

The file holds the weights of the BERT under their Hugging Face names (`weight:...`),
the prefix `(length, layers, 2, heads, head_dim)`, the inputs and the outputs. These
packages are not needed to run the tests.
"""

from __future__ import annotations

import pathlib

import numpy as np

LAYERS, HEADS, WIDTH, LENGTH = 2, 2, 8, 3


def make() -> dict[str, np.ndarray]:
    """Returns the arrays of the file."""
    import peft
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=20,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=12,
        max_position_embeddings=16,
        # KerasHub's BERT has this form of GELU.
        hidden_act="gelu_new",
        initializer_range=0.4,
        attn_implementation="eager",
    )
    bert = transformers.BertModel(config)
    for name, parameter in bert.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    weights = {
        f"weight:{name}": value.detach().numpy().copy()
        for name, value in bert.named_parameters()
    }
    declared = peft.PrefixTuningConfig(
        task_type="FEATURE_EXTRACTION", num_virtual_tokens=LENGTH
    )
    model = peft.get_peft_model(bert, declared).eval()
    prefix = model.prompt_encoder["default"].embedding.weight
    ids = torch.randint(0, 20, (2, 6))
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
    with torch.no_grad():
        outputs = model(input_ids=ids, attention_mask=mask)
    return weights | {
        "prefix": prefix.detach()
        .numpy()
        .reshape(LENGTH, LAYERS, 2, HEADS, WIDTH // HEADS),
        "token_ids": ids.numpy().astype("int32"),
        "padding_mask": mask.numpy().astype("int32"),
        "sequence_output": outputs.last_hidden_state.numpy(),
        "pooled_output": outputs.pooler_output.numpy(),
    }


if __name__ == "__main__":
    target = pathlib.Path(__file__).with_name("prefix_bert.npz")
    np.savez_compressed(target, **make())
