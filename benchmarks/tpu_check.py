"""Compiles shipped experiments for TPU slices; writes the table of docs/tpu_check.md.

    .venv-tpu/bin/python benchmarks/tpu_check.py --data=../shared/data
    .venv-tpu/bin/python benchmarks/tpu_check.py --data=../shared/data \\
        --only=llama --topology=v5e:4x4

Every experiment is compiled in a process of its own, and what is known already (in
`benchmarks/tpu_check.jsonl`) is not compiled again. `--table` only writes the table.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[1]
KNOWN = ROOT / "benchmarks/tpu_check.jsonl"
PAGE = ROOT / "docs/tpu_check.md"
BEGIN, END = "<!-- table -->", "<!-- end of table -->"

CIFAR, SST2 = "FOLDER = '{data}/cifar10_subset.tar'", "FOLDER = '{data}/sst2'"
PLAYS = "FILE = '{data}/tinyshakespeare.txt'"
LORA = ["regimes/lora.gin"]
# File, files after it, bindings. Batches that eight chips do not divide are changed.
EXPERIMENTS: list[tuple[str, list[str], list[str]]] = [
    ("quickstart/digits.gin", [], ["transfer/experiment.Stage.batch_size = 16"]),
    ("runs/sequence/dna_motif.gin", [], []),
    *(
        (f"runs/image/cifar10_{name}.gin", [], [CIFAR])
        for name in ("scratch", "transfer_keras_hub", "transfer_keras_cv")
        + ("simclr", "simclr_random", "mae")
    ),
    ("runs/image/image_text_contrastive.gin", [], []),
    ("runs/text/masked_lm_scratch.gin", [], [SST2]),
    *(
        (f"runs/text/sst2_{name}.gin", [], [SST2])
        for name in ("full", "frozen", "partial", "lora", "dora", "adapters")
        + ("bitfit", "llrd", "lpft", "hybrid", "masked_lm")
    ),
    *(
        (f"runs/text/shakespeare_{name}.gin", [], [PLAYS, "BATCH = 16"])
        for name in ("char", "bpe")
    ),
    ("runs/text/shakespeare_char_gpu.gin", [], [PLAYS]),
    ("runs/text/llama_1b.gin", [], [PLAYS]),
    ("runs/text/llama_1b.gin", LORA, [PLAYS]),
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=str(ROOT.parent / "shared/data"))
    parser.add_argument("--topology", default="v5e:2x4")
    parser.add_argument("--only", default="", help="a part of the file's name")
    parser.add_argument("--table", action="store_true", help="only write the table")
    parser.add_argument("--one", help="an experiment, as this program calls itself")
    given = parser.parse_args()
    if given.one:
        compile_one(json.loads(given.one))
        return 0
    if not given.table:
        for file, more, bindings in EXPERIMENTS:
            if given.only in file:
                job = [[file, *more], bindings, given.topology, given.data]
                compile_apart(job)
    write_table()
    return 0


def compile_apart(job: list) -> None:
    """Compiles one experiment in a process of its own, unless it is known."""
    files, _, topology, _ = job
    if any(x["files"] == files and x["topology"] == topology for x in known()):
        return
    print(topology, *files, flush=True)
    done = subprocess.run(
        [sys.executable, __file__, f"--one={json.dumps(job)}"],
        cwd=ROOT,
        env=os.environ | {"KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    rows = [json.loads(x) for x in done.stdout.splitlines() if x.startswith('{"')]
    if done.returncode or not rows:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        rows = [{"files": files, "topology": topology, "error": lines[-1][:300]}]
    with KNOWN.open("a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")


def compile_one(job: list) -> None:
    """Prints a line of JSON for every stage."""
    files, bindings, name, data = job
    from importlib import metadata

    from tflearn import config
    from tflearn.commands import topology as command
    from tflearn.distribution import topology

    wanted = topology.parse(name)
    topology.prepare()
    bindings = [binding.format(data=data) for binding in bindings]
    declared = config.load(files, bindings).experiment()
    versions = {x: metadata.version(x) for x in ("jax", "libtpu", "keras", "keras-hub")}
    for result in command.compile_experiment(declared, wanted):
        compiled = result.compiled
        row = {
            "files": files,
            "topology": name,
            "stage": result.stage,
            "kind": result.variant.kind,
            "batch": result.variant.batch_size,
            "total": compiled.total_bytes,
            "arguments": compiled.argument_bytes,
            "temporaries": compiled.temporary_bytes,
            "flops": compiled.product_flops,
            "sent": {
                kind: [traffic.count, traffic.num_bytes]
                for kind, traffic in compiled.collectives.items()
            },
            "seconds": compiled.seconds,
            "versions": versions,
        }
        print(json.dumps(row), flush=True)


def known() -> list[dict]:
    if not KNOWN.exists():
        return []
    lines = KNOWN.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def write_table() -> None:
    """Writes what is known between the two marks of the page."""
    rows = [
        "| experiment, stage | slice | layout, batch | MiB a chip: total "
        "(arguments + temporaries) | GFLOPs a chip | collectives a step, MiB |",
        "|---|---|---|---|---|---|",
        *(_row(x) for x in known()),
    ]
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    text = "\n".join(rows)
    PAGE.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def _row(row: dict) -> str:
    files = " + ".join(f"`{x}`" for x in row["files"])
    if "error" in row:
        return f"| {files} | {row['topology']} | {row['error']} | | | |"
    sent = ", ".join(
        f"{kind} {count} x, {size / 2**20:.1f}"
        for kind, (count, size) in row["sent"].items()
    )
    return (
        f"| {files}, {row['stage']} | {row['topology']} | {row['kind']}, "
        f"{row['batch']} | {row['total'] / 2**20:,.1f} "
        f"({row['arguments'] / 2**20:,.1f} + {row['temporaries'] / 2**20:,.1f}) "
        f"| {row['flops'] / 1e9:,.2f} | {sent or 'nothing'} |"
    )


if __name__ == "__main__":
    sys.exit(main())
