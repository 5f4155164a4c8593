"""What does a step with LoRA of rank 8 on all blocks cost, beside PEFT?

The setting of `benchmarks.full_finetuning`, the body frozen but for adapters beside
every linear layer of the blocks: the shipped `sst2_lora.gin` against PEFT's on
transformers' `Trainer`, padded to the longest of a batch.

Run: python -m benchmarks.lora --data=FOLDER --torch_python=PYTHON
     [--repeats 5] [--backend jax] [--only NAME,NAME]
"""

from __future__ import annotations

import argparse
import pathlib
import sys

from benchmarks import full_finetuning, measuring
from benchmarks.measuring import Contender


def contenders(flags: argparse.Namespace) -> list[Contender]:
    backend = {"KERAS_BACKEND": flags.backend}

    def made(name: str, kind: str, precision: str, *more: str) -> Contender:
        return Contender(
            name=name,
            prepare=kind,
            python=flags.torch_python if kind == "torch" else sys.executable,
            flags=[f"--precision={precision}", *more],
            environment=backend,
        )

    found = [
        made("tflearn float32", "ours", "float32"),
        made("tflearn bfloat16", "ours", "mixed_bfloat16"),
    ]
    if flags.torch_python:
        found += [
            made("peft float32", "torch", "float32"),
            made("peft bfloat16", "torch", "mixed_bfloat16"),
            made("peft sorted", "torch", "float32", "--sorted"),
        ]
    return full_finetuning.choose(found, flags.only)


def main() -> None:
    parser = measuring.parser(__doc__)
    full_finetuning.add_flags(parser, run="sst2_lora")
    flags = parser.parse_args()
    flags.data = str(pathlib.Path(flags.data).absolute())
    found = measuring.compare(
        "benchmarks.full_finetuning",
        contenders(flags),
        repeats=flags.repeats,
        flags=full_finetuning.passed_on(flags),
    )
    summary = measuring.summarize(found)
    measuring.show("LoRA, rank 8, SST-2, MiniLM", summary, "examples/s")
    measuring.write(
        f"lora_{flags.backend}",
        {
            "question": "LoRA of rank 8 on all blocks, SST-2, MiniLM, batch 32",
            "unit": "examples/s",
            "summary": summary,
            "contenders": found,
        },
        results=flags.results,
    )


if __name__ == "__main__":
    main()
