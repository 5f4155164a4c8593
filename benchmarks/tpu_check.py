"""Compiles shipped experiments for TPU slices; writes the table of docs/tpu_check.md.

    .venv-tpu/bin/python benchmarks/tpu_check.py --data=FOLDER
    .venv-tpu/bin/python benchmarks/tpu_check.py --data=FOLDER --multi_host
    .venv-tpu/bin/python benchmarks/tpu_check.py --data=FOLDER --only=dna_motif \\
        --topology=v5e:16x16 --change="experiment.Stage.batch_size = 256"
    python benchmarks/tpu_check.py --write-docs

The list is what lies in gin/quickstart, gin/runs and gin/compare. `--multi_host` takes
v5e:4x4, sixteen chips on several hosts, in place of eight on one. Every experiment is
compiled in a process of its own; what `benchmarks/tpu_check.jsonl` knows already is not
compiled again, failures excepted, and the page is written anew after each. FOLDER holds
sst2/, cifar10_subset.tar and tinyshakespeare.txt.
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

# What a file needs that includes one of these.
DATA = {
    "data/cifar10_folder.gin": "FOLDER = '{data}/cifar10_subset.tar'",
    "data/sst2.gin": "FOLDER = '{data}/sst2'",
    "data/shakespeare.gin": "FILE = '{data}/tinyshakespeare.txt'",
}
# Batches that eight chips do not divide.
LABELS = ["label/experiment.Stage.batch_size = 104"]
DIGITS = ["transfer/experiment.Stage.batch_size = 16"]
CHANGES = {
    "compare/digits.gin": DIGITS,
    "quickstart/digits.gin": DIGITS,
    "runs/image/cifar10_mae.gin": LABELS,
    "runs/image/cifar10_simclr.gin": LABELS,
    "runs/image/cifar10_simclr_random.gin": LABELS,
    "runs/text/shakespeare_bpe.gin": ["BATCH = 16"],
    "runs/text/shakespeare_char.gin": ["BATCH = 16"],
}
# Those that sixteen do not divide.
MULTI_HOST = "v5e:4x4"
LABELS_16 = ["label/experiment.Stage.batch_size = 96"]
TRANSFER_16 = ["transfer/experiment.Stage.batch_size = 48"]
CHANGES_16 = CHANGES | {
    "compare/cifar10_folder.gin": TRANSFER_16,
    "runs/image/cifar10_mae.gin": LABELS_16,
    "runs/image/cifar10_simclr.gin": LABELS_16,
    "runs/image/cifar10_simclr_random.gin": LABELS_16,
    "runs/image/cifar10_transfer_keras_cv.gin": TRANSFER_16,
    "runs/image/cifar10_transfer_keras_hub.gin": TRANSFER_16,
}
# The slices that files are for, where it is not the usual one.
SLICES = {"runs/text/llama_1b.gin": "v5e:4x4"}
# Compiled a second time, with another file after them.
ALSO = {"runs/text/llama_1b.gin": "regimes/lora.gin"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=str(ROOT.parent / "shared/data"))
    parser.add_argument("--topology", help="a slice; v5e:2x4 for most by default")
    parser.add_argument("--multi_host", action="store_true", help=MULTI_HOST)
    parser.add_argument("--only", default="", help="a part of the file's name")
    parser.add_argument("--change", action="append", default=[], help="a gin binding")
    parser.add_argument("--teacher", help="a finished run, for sst2_distilled.gin")
    parser.add_argument("--write-docs", action="store_true", help="only write the page")
    parser.add_argument("--one", help="an experiment, as this program calls itself")
    given = parser.parse_args()
    if given.one:
        compile_one(json.loads(given.one))
        return 0
    if not given.write_docs:
        for files in shipped():
            if given.only in files[0]:
                compile_apart(job(files, given))
                write_docs()
    write_docs()
    return 0


def shipped() -> list[list[str]]:
    """Returns the complete files that ship, each with the files given after it."""
    gin = ROOT / "gin"
    folders = ("quickstart/*.gin", "runs/**/*.gin", "compare/*.gin")
    found = [path for folder in folders for path in gin.glob(folder)]
    names = sorted(path.relative_to(gin).as_posix() for path in found)
    again = [[name, ALSO[name]] for name in names if name in ALSO]
    return [[name] for name in names] + again


def job(files: list[str], given: argparse.Namespace) -> dict:
    """Returns what compiling some files takes, in a form that JSON can hold."""
    text = (ROOT / "gin" / files[0]).read_text(encoding="utf-8")
    needs = [x for fragment, x in DATA.items() if f"include '{fragment}'" in text]
    if given.teacher and "TEACHER = %gin.REQUIRED" in text:
        needs.append(f"TEACHER = '{given.teacher}'")
    usual = MULTI_HOST if given.multi_host else SLICES.get(files[0], "v5e:2x4")
    changes = CHANGES_16 if given.multi_host else CHANGES
    return {
        "files": files,
        "topology": given.topology or usual,
        "needs": [x.format(data=given.data) for x in needs],
        "changes": changes.get(files[0], []) + given.change,
        "data": given.data,
    }


def compile_apart(wanted: dict) -> None:
    """Compiles one experiment in a process of its own, unless it is known."""
    same = [x for x in known() if _key(x) == _key(wanted)]
    if same and not any("error" in x for x in same):
        return
    print(wanted["topology"], *wanted["files"], flush=True)
    done = subprocess.run(
        [sys.executable, __file__, f"--one={json.dumps(wanted)}"],
        cwd=ROOT,
        env=os.environ | {"KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=False,
    )
    rows = [json.loads(x) for x in done.stdout.splitlines() if x.startswith('{"')]
    if done.returncode or not rows:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        said = lines[-1] if lines else f"exit code {done.returncode}"
        said = said.replace(wanted["data"], "FOLDER").replace(f"{ROOT}/", "")[:300]
        key = {name: wanted[name] for name in ("files", "topology", "changes")}
        rows.append({**key, "error": said})
    rest = [x for x in known() if _key(x) != _key(wanted)]
    text = "".join(json.dumps(row) + "\n" for row in rest + rows)
    KNOWN.write_text(text, encoding="utf-8")


def _key(row: dict) -> tuple:
    return tuple(row["files"]), row["topology"], tuple(row["changes"])


def compile_one(wanted: dict) -> None:
    """Prints a line of JSON for every stage."""
    from importlib import metadata

    from tflearn import config
    from tflearn.commands import topology as command
    from tflearn.distribution import topology

    target = topology.parse(wanted["topology"])
    topology.prepare()
    bindings = wanted["needs"] + wanted["changes"]
    declared = config.load(wanted["files"], bindings).experiment()
    versions = {x: metadata.version(x) for x in ("jax", "libtpu", "keras", "keras-hub")}
    for result in command.compile_experiment(declared, target):
        compiled = result.compiled
        row = {
            "files": wanted["files"],
            "topology": wanted["topology"],
            "changes": wanted["changes"],
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


def write_docs() -> None:
    """Writes what is known between the two marks of the page."""
    rows = sorted(known(), key=lambda x: (x["files"], x["topology"]))
    table = [
        "| experiment, stage | slice | layout, batch | MiB a chip: total "
        "(arguments + temporaries) | GFLOPs a chip | collectives a step, MiB |",
        "|---|---|---|---|---|---|",
        *(_row(x) for x in rows),
    ]
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    text = "\n".join(table)
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
