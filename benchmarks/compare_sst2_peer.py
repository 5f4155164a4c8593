"""The peer of `benchmarks.compare_sst2`: seconds a step of each regime, by hand.

The setting of `compare/sst2_minilm.gin` with torch, transformers and PEFT: the same
weights, mean pooling over real tokens, a linear head, AdamW, batches of 32 padded to
their longest text, float32 or bfloat16 (autocast). Prints one line of JSON: seconds a
training step by regime, and seconds of an evaluation on the validation and the test
split.

Needs an environment of its own: pip install torch transformers peft.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import peft
import torch
import transformers

from benchmarks import sst2, torch_classifier

BATCH, LENGTH, WARM = 32, 64, 4
REGIMES = ("scratch", "frozen", "partial", "lora", "full", "masked_lm")


def make(regime: str, weights: str) -> torch.nn.Module:
    """Returns the model of a regime, its frozen weights without gradients."""
    if regime == "masked_lm":
        return transformers.AutoModelForMaskedLM.from_pretrained(weights)
    encoder = transformers.AutoModel.from_pretrained(weights, add_pooling_layer=False)
    width = encoder.config.hidden_size
    if regime == "scratch":
        encoder = type(encoder)(encoder.config, add_pooling_layer=False)
    if regime in ("frozen", "partial"):
        encoder.requires_grad_(False)
    if regime == "partial":
        encoder.encoder.layer[-1].requires_grad_(True)
    if regime == "lora":
        config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"])
        encoder = peft.get_peft_model(encoder, config)
    return torch_classifier.Classifier(encoder, width)


def step_seconds(regime: str, flags: argparse.Namespace, texts: list[str]) -> float:
    """Measures training steps of a regime."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(flags.weights)
    masks = transformers.DataCollatorForLanguageModeling(tokenizer)
    model = make(regime, flags.weights).train()
    moving = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(moving, lr=1e-4)
    labels = torch.zeros(BATCH, dtype=torch.long)

    def classify(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return model(**batch, labels=labels)["loss"]

    def unmask(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        inputs, targets = masks.torch_mask_tokens(batch["input_ids"])
        return model(**batch | {"input_ids": inputs, "labels": targets}).loss

    loss: Callable[..., torch.Tensor] = unmask if regime == "masked_lm" else classify
    started = 0.0
    for step in range(WARM + flags.steps):
        if step == WARM:
            started = time.perf_counter()
        first = step * BATCH % (len(texts) - BATCH)
        batch = encode(tokenizer, texts[first : first + BATCH])
        optimizer.zero_grad()
        with half(flags):
            value = loss(batch)
        value.backward()
        torch.nn.utils.clip_grad_norm_(moving, 1.0)
        optimizer.step()
    return (time.perf_counter() - started) / flags.steps


def half(flags: argparse.Namespace) -> torch.autocast:
    """As `Trainer(bf16=True)` computes, or in float32."""
    return torch.autocast(
        "cpu", torch.bfloat16, enabled=flags.precision == "mixed_bfloat16"
    )


def encode(tokenizer: object, texts: list[str]) -> dict[str, torch.Tensor]:
    return dict(
        tokenizer(  # type: ignore[operator]
            texts,
            padding=True,
            truncation=True,
            max_length=LENGTH,
            return_tensors="pt",
        )
    )


def evaluate_seconds(flags: argparse.Namespace, data: dict[str, sst2.Rows]) -> float:
    """Measures one evaluation of both splits that a run is judged by."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(flags.weights)
    model = make("frozen", flags.weights).eval()
    started = time.perf_counter()
    with torch.no_grad(), half(flags):
        for split in ("validation", "test"):
            texts = sorted(data[split][0], key=len)
            for first in range(0, len(texts), 128):
                model(**encode(tokenizer, texts[first : first + 128]))
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--only_start", action="store_true")
    flags = parser.parse_args()
    data = sst2.read(flags.data)
    if flags.only_start:
        # Imports, data and a model: what every run by hand begins with.
        make("full", flags.weights)
        return
    texts = data["train"][0]
    found = {regime: step_seconds(regime, flags, texts) for regime in REGIMES}
    evaluated = evaluate_seconds(flags, data)
    print(json.dumps({"step_seconds": found, "evaluate_seconds": evaluated}))


if __name__ == "__main__":
    main()
