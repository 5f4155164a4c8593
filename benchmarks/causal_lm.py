"""How many tokens a second does a language model from scratch train on, beside torch?

Tiny Shakespeare by characters, the shipped `shakespeare_char.gin` (4 layers, 4 heads,
width 128, context 64, batch 12, no dropout, full windows) against a plain torch loop of
a model of the same shape: pre-norm blocks, GELU, `scaled_dot_product_attention`, AdamW,
clipping at 1. `large` is 6 layers of width 384, context 256, batch 16.

Run: python -m benchmarks.causal_lm --file=FILE --torch_python=PYTHON
     [--size char] [--repeats 5] [--backend jax]
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time
from typing import Any

from benchmarks import measuring
from benchmarks.measuring import Contender, Measure, Numbers
from benchmarks.stages import roofline, tflearn_stage, torch_peak

# Layers, heads, width, context, batch, steps a round.
SIZES = {"char": (4, 4, 128, 64, 12, 200), "large": (6, 6, 384, 256, 16, 6)}


def ours(flags: argparse.Namespace) -> tuple[Numbers, Measure]:
    layers, heads, width, context, batch, steps = SIZES[flags.size]
    bindings = [
        f"FILE = '{flags.file}'",
        f"LAYERS = {layers}",
        f"HEADS = {heads}",
        f"WIDTH = {width}",
        f"INNER = {4 * width}",
        f"CONTEXT = {context}",
        f"BATCH = {batch}",
        f"experiment.Experiment.precision = '{flags.precision}'",
    ]
    said, measure = tflearn_stage(
        "runs/text/shakespeare_char.gin", bindings, steps=flags.steps or steps
    )

    def tokens() -> Numbers:
        found = measure()
        return {"seconds": found["seconds"], "per_second": found["tokens_per_second"]}

    return said, tokens


def torch_loop(flags: argparse.Namespace) -> tuple[Numbers, Measure]:
    import torch
    from torch.nn import functional

    layers, heads, width, context, batch, steps = SIZES[flags.size]
    steps = flags.steps or steps
    text = pathlib.Path(flags.file).read_text(encoding="utf-8")
    letters = sorted(set(text))
    number = {letter: i for i, letter in enumerate(letters)}
    tokens = torch.tensor([number[letter] for letter in text])

    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = torch.nn.ModuleList(
                torch.nn.LayerNorm(width) for _ in range(2)
            )
            self.qkv = torch.nn.Linear(width, 3 * width)
            self.out = torch.nn.Linear(width, width)
            self.up = torch.nn.Linear(width, 4 * width)
            self.down = torch.nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            rows, length, _ = x.shape
            parts = self.qkv(self.norms[0](x)).view(rows, length, 3, heads, -1)
            q, k, v = parts.permute(2, 0, 3, 1, 4)
            mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(mixed.transpose(1, 2).reshape(rows, length, width))
            hidden = functional.gelu(self.up(self.norms[1](x)), approximate="tanh")
            return x + self.down(hidden)

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens = torch.nn.Embedding(len(letters), width)
            self.places = torch.nn.Embedding(context, width)
            self.blocks = torch.nn.Sequential(*(Block() for _ in range(layers)))
            self.norm = torch.nn.LayerNorm(width)
            self.head = torch.nn.Linear(width, len(letters), bias=False)

        def forward(self, x: Any) -> Any:
            hidden = self.tokens(x) + self.places(torch.arange(x.shape[1]))
            return self.head(self.norm(self.blocks(hidden)))

    torch.manual_seed(0)
    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    half = flags.precision == "mixed_bfloat16"

    def measure() -> Numbers:
        began = time.perf_counter()
        for _ in range(steps):
            starts = torch.randint(len(tokens) - context - 1, (batch,)).tolist()
            rows = torch.stack([tokens[i : i + context + 1] for i in starts])
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                logits = model(rows[:, :-1])
            loss = functional.cross_entropy(
                logits.flatten(0, 1).float(), rows[:, 1:].flatten()
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "per_second": steps * batch * context / seconds}

    measure()
    parameters = sum(x.numel() for x in model.parameters())
    return {"parameters": parameters, "peak_gflops": torch_peak()}, measure


PREPARE = {"ours": ours, "torch": torch_loop}


def contenders(flags: argparse.Namespace) -> list[Contender]:
    found = []
    for precision in ("float32", "mixed_bfloat16"):
        for name, kind in (("tflearn", "ours"), ("torch loop", "torch")):
            if kind == "torch" and not flags.torch_python:
                continue
            found.append(
                Contender(
                    name=f"{name} {precision.removeprefix('mixed_')}",
                    prepare=kind,
                    python=flags.torch_python if kind == "torch" else sys.executable,
                    flags=[f"--precision={precision}"],
                    environment={"KERAS_BACKEND": flags.backend},
                )
            )
    return found


def main() -> None:
    parser = measuring.parser(__doc__)
    parser.add_argument("--file", required=True, help="tinyshakespeare.txt")
    parser.add_argument("--size", default="char", choices=tuple(SIZES))
    parser.add_argument("--steps", type=int, help="steps a round")
    parser.add_argument("--precision", default="float32", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    flags.file = str(pathlib.Path(flags.file).absolute())
    if flags.contender:
        measuring.serve(PREPARE[flags.contender], flags)
        return
    passed = [f"--file={flags.file}", f"--size={flags.size}"]
    passed += [f"--steps={flags.steps}"] if flags.steps else []
    found = measuring.compare(
        "benchmarks.causal_lm",
        contenders(flags),
        repeats=flags.repeats,
        flags=passed,
    )
    summary = measuring.summarize(found)
    title = f"causal language model from scratch, {flags.size}"
    measuring.show(title, summary, "tokens/s")
    layers, _, width, context, *_ = SIZES[flags.size]
    flops = 3 * 2 * layers * (12 * width**2 + context * width)
    said = {name: entry["said"] for name, entry in found.items()}
    lines = {
        name: roofline(said, row["median"], flops=flops, dtype=name.split()[-1])
        for name, row in summary.items()
    }
    measuring.write(
        f"causal_lm_{flags.size}_{flags.backend}",
        {
            "question": title,
            "unit": "tokens/s",
            "summary": summary,
            "roofline": lines,
            "contenders": found,
        },
        results=flags.results,
    )


if __name__ == "__main__":
    main()
