"""How far is a plan from what the run then takes?

Two small models on a CPU: a BERT of random weights on sentences of SST-2, whose
batches differ in length, and a ResNet on the digits of scikit-learn. Every regime at 32
examples a step, and full training at two more batch sizes. Each case is planned in a
process of its own, then trains in another, both from empty caches.

- memory: the plan's `process_bytes` (what the process held when everything was built,
  measured; optimizer and features, counted; the working memory of the largest program,
  by the compiler) against the most memory that the process of the run ever held.
- time: the plan's `run_seconds` against what the stage took by its own report, with
  compiling, evaluations, checkpoints and bootstrap. Imports, loading and the export of
  the model are in neither.

Prints a table, writes benchmarks/results/plan_check.json and the table of docs/plan.md.

Run: python -m benchmarks.plan_check [--data FOLDER] [--only text/32] [--results FOLDER]
"""

from __future__ import annotations

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence

from benchmarks import measuring
from benchmarks.measuring import ROOT, Numbers

COMMON = """
from __gin__ import dynamic_registration
import keras_hub
from tflearn import backbones
from tflearn import data
from tflearn import experiment
from tflearn import objectives
from tflearn import regimes
from tflearn.backbones import vocabularies
from tflearn.training import optimizers

experiment.Experiment.name = 'case'
experiment.Experiment.precision = 'float32'
experiment.Experiment.backbone = @backbones.hub
experiment.Experiment.stages = (@experiment.Stage(),)
experiment.Stage.name = 'tune'
experiment.Stage.data = @data.Data
experiment.Stage.objective = @objectives.classification
experiment.Stage.regime = @{regime}
{extra}
experiment.Stage.optimizer = @optimizers.adamw
experiment.Stage.budget = '{steps} steps'
experiment.Stage.batch_size = {batch}
optimizers.adamw.learning_rate = 0.0005
"""
MODELS = {
    "text": """
backbones.hub.architecture = @keras_hub.models.BertBackbone
backbones.hub.tokenizer = @vocabularies.wordpiece
vocabularies.wordpiece.texts = @data.training_texts
vocabularies.wordpiece.vocabulary_size = 4096
data.training_texts.data = @data.Data
data.training_texts.target_kind = 'class'
keras_hub.models.BertBackbone.num_layers = 4
keras_hub.models.BertBackbone.num_heads = 4
keras_hub.models.BertBackbone.hidden_dim = 256
keras_hub.models.BertBackbone.intermediate_dim = 1024
keras_hub.models.BertBackbone.max_sequence_length = 64
data.Data.source = @data.sources.tsv
data.Data.classes = ('0', '1')
data.Data.allow_overlap = True
data.Data.max_length = 64
data.Data.truncate = True
data.Data.examples_per_class = 400
data.sources.tsv.folder = '{data}/sst2'
data.sources.tsv.paths = {{'train': 'train.tsv', 'validation': 'dev.tsv'}}
data.sources.tsv.columns = ('text', 'label')
""",
    "image": """
backbones.hub.architecture = @keras_hub.models.ResNetBackbone
keras_hub.models.ResNetBackbone.input_conv_filters = [64]
keras_hub.models.ResNetBackbone.input_conv_kernel_sizes = [3]
keras_hub.models.ResNetBackbone.stackwise_num_filters = [64, 128, 256]
keras_hub.models.ResNetBackbone.stackwise_num_blocks = [1, 1, 1]
keras_hub.models.ResNetBackbone.stackwise_num_strides = [1, 2, 2]
keras_hub.models.ResNetBackbone.block_type = 'basic_block'
keras_hub.models.ResNetBackbone.image_shape = (64, 64, 1)
data.Data.source = @data.sources.sklearn
data.Data.input = 'image'
data.Data.splits = {{'train': 0.5, 'validation': 0.5}}
data.sources.sklearn.name = 'digits'
""",
}
REGIMES = {
    "scratch": ("regimes.scratch()", ""),
    "frozen": ("regimes.frozen()", ""),
    "partial": ("regimes.partial()", "regimes.partial.last = 1"),
    "lora": ("regimes.low_rank()", ""),
    "full": ("regimes.full()", ""),
}
PAGE = ROOT / "docs" / "plan.md"
BEGIN, END = "<!-- plan_check -->", "<!-- end of plan_check -->"
#: An adapter on convolutions, which have no queries.
EVERYWHERE = "regimes.low_rank.targets = 'backbone/*'"
#: Regimes and steps by batch size.
BATCHES: Mapping[int, tuple[Sequence[str], int]] = {
    8: (("full",), 100),
    32: (tuple(REGIMES), 60),
    96: (("full",), 20),
}


def main() -> None:
    parser = measuring.parser(__doc__)
    parser.add_argument("--data", default=str(ROOT.parent / "shared" / "data"))
    parser.add_argument("--only", default="", help="a part of a case: text/32/full")
    flags = parser.parse_args()
    rows: list[Numbers] = []
    for kind in MODELS:
        for batch, (regimes, steps) in BATCHES.items():
            names = [x for x in regimes if flags.only in f"{kind}/{batch}/{x}"]
            with tempfile.TemporaryDirectory() as folder:
                place = pathlib.Path(folder)
                files = {
                    x: written(place, kind, batch, x, steps, flags.data) for x in names
                }
                rows += [
                    case(kind, batch, name, path, place) for name, path in files.items()
                ]
    report(rows, flags.results, complete=not flags.only)


def written(
    folder: pathlib.Path, kind: str, batch: int, regime: str, steps: int, data: str
) -> pathlib.Path:
    """Writes the declaration of a case."""
    rules, extra = REGIMES[regime]
    if kind == "image" and regime == "lora":
        extra = EVERYWHERE
    values = {"regime": rules, "extra": extra, "steps": steps, "batch": batch}
    text = COMMON.format(**values) + MODELS[kind].format(data=data)
    path = folder / f"{regime}.gin"
    path.write_text(text, encoding="utf-8")
    return path


def case(
    kind: str, batch: int, regime: str, path: pathlib.Path, folder: pathlib.Path
) -> Numbers:
    """Plans a case, trains it, and lays both side by side."""
    began = time.perf_counter()
    plan = folder / f"{regime}_plan"
    run(path, "--mode=plan", "--regimes=declared", f"--output_dir={plan}")
    planned = time.perf_counter() - began
    found = json.loads((plan / "plan.json").read_text(encoding="utf-8"))["runs"][-1]
    target = folder / f"{regime}_run"
    run(path, f"--output_dir={target}")
    told = json.loads((target / "report.json").read_text(encoding="utf-8"))
    figures = {name: x["value"] for name, x in found["figures"].items()}
    real = {
        "memory": told["peak_memory_bytes"],
        "seconds": sum(told["stages"][-1]["seconds"].values()),
    }
    row = {
        "case": f"{kind}, {regime}, batch {batch}",
        "planned_bytes": figures["process_bytes"],
        "real_bytes": real["memory"],
        "memory_ratio": figures["process_bytes"] / real["memory"],
        "planned_seconds": figures["run_seconds"],
        "real_seconds": real["seconds"],
        "time_ratio": figures["run_seconds"] / real["seconds"],
        "plan_took_seconds": planned,
        "figures": figures,
        "stage_seconds": told["stages"][-1]["seconds"],
    }
    shown = {k: v for k, v in row.items() if not isinstance(v, dict)}
    print(json.dumps(measuring.shorten(shown)), flush=True)
    return row


def run(path: pathlib.Path, *flags: str) -> None:
    """Runs the command line with nothing kept from before."""
    with tempfile.TemporaryDirectory() as cache:
        environment = os.environ | {
            "KERAS_BACKEND": "jax",
            "TFLEARN_CACHE": cache,
            "JAX_COMPILATION_CACHE_DIR": f"{cache}/compiled",
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        command = [sys.executable, "-m", "tflearn.run", f"--gin_file={path}", *flags]
        subprocess.run(
            command, check=True, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
        )


def report(rows: Sequence[Numbers], results: str | None, *, complete: bool) -> None:
    """Prints how far plans lie from runs; writes it if all cases were run."""
    off = {
        name: [abs(row[f"{name}_ratio"] - 1) for row in rows]
        for name in ("memory", "time")
    }
    medians = {name: statistics.median(values) for name, values in off.items()}
    worst = {name: max(values) for name, values in off.items()}
    table = [
        "| case | memory, MiB: planned | measured | ratio | run, s: planned | measured "
        "| ratio |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {row['case']} | {row['planned_bytes'] / 2**20:,.0f} "
            f"| {row['real_bytes'] / 2**20:,.0f} | {row['memory_ratio']:.2f} "
            f"| {row['planned_seconds']:.1f} | {row['real_seconds']:.1f} "
            f"| {row['time_ratio']:.2f} |"
            for row in rows
        ),
    ]
    said = (
        f"Median distance {medians['memory']:.0%} in memory and {medians['time']:.0%} "
        f"in time; the largest {worst['memory']:.0%} and {worst['time']:.0%}."
    )
    text = "\n".join([*table, "", said])
    print(text)
    if complete and results is None:
        write_docs(text)
    if complete:
        record = {
            "question": "How far is a plan from what the run takes?",
            "unit": "share",
            "median_off": medians,
            "largest_off": worst,
            "cases": list(rows),
        }
        measuring.write("plan_check", record, results=results)


def write_docs(text: str) -> None:
    """Writes the table between the two marks of the page."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
