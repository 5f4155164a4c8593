"""`--mode=predict`: what a run says of the rows of a file, in their order.

Labels and probabilities, numbers, or texts: how they go on, or what they become.
"""

from __future__ import annotations

import codecs
import csv
import dataclasses
import functools
import io
import json
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tflearn import config
from tflearn.commands import generation
from tflearn.commands.arguments import Arguments
from tflearn.data import Data, Split, images, sources
from tflearn.evaluation import calibration
from tflearn.support import files, storage
from tflearn.support.console import say, warn
from tflearn.support.errors import (
    BackboneError,
    ConfigError,
    DataError,
    FileError,
    nearest,
)
from tflearn.training import finished, run_directory
from tflearn.training.finished import FinishedRun

_READERS = {
    ".csv": sources.csv,
    ".tsv": sources.tsv,
    ".jsonl": sources.jsonl,
    ".txt": sources.text_lines,
    ".parquet": sources.parquet,
    ".npz": sources.npz,
}
FORMATS = ("jsonl", "csv")
Answer = Callable[[FinishedRun, Split, Data], Iterator[dict[str, Any]]]


def main(arguments: Arguments) -> int:
    """Writes one line a row; a row that cannot be used has an `error` in its place.

    Args:
        arguments: The flags. `input` is a file of rows, an image, a folder or archive
            of images, or `-` for lines of text (or JSON objects) on standard input.

    Returns:
        The exit code.
    """
    if arguments.format not in FORMATS:
        raise ConfigError(
            "unknown output format",
            received=arguments.format,
            expected=", ".join(FORMATS),
            nearest=nearest(arguments.format, FORMATS),
        )
    run = _open(storage.fetched(arguments.run_dir or ""))
    generation.check_flags(run, arguments)
    if run.task in generation.TASKS:
        answer = functools.partial(_generated, arguments=arguments)
    else:
        run.check_has_targets()
        answer = _answered
    if arguments.input == "-":
        rows = _from_text(run, sys.stdin.buffer.read(), answer)
    else:
        rows = _from_path(run, pathlib.Path(arguments.input or ""), answer)
    text = _as_csv(rows) if arguments.format == "csv" else _as_jsonl(rows)
    if arguments.output in (None, "-"):
        sys.stdout.write(text)
    else:
        files.write_text(arguments.output, text)
        bad = sum("error" in row for row in rows)
        say(f"{len(rows)} rows, {bad} of them unusable: {arguments.output}")
    return 0


def _open(folder: pathlib.Path) -> FinishedRun:
    """Opens a run; the declaration is read only if the model alone does not load."""
    try:
        return finished.open_run(folder)
    except FileError:
        # Damaged or unsafe: a reason not to import what its declaration names.
        raise
    except BackboneError:
        written = folder / run_directory.CONFIG
        if not written.is_file():
            raise
        # It imports the modules that define the user's own layers.
        config.load([str(written)])
        return finished.open_run(folder)


def _from_text(run: FinishedRun, text: bytes, answer: Answer) -> list[dict[str, Any]]:
    """Predicts lines; JSON objects are told from texts by the first character."""
    # Bytes: what is not UTF-8 is told of with its row, as that of a file is.
    found = text.removeprefix(codecs.BOM_UTF8).lstrip()
    suffix = ".jsonl" if found.startswith(b"{") else ".txt"
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        path = pathlib.Path(f"standard_input{suffix}")
        (folder / path).write_bytes(text)
        return _from_path(run, path, answer, folder=folder)


def _from_path(
    run: FinishedRun,
    path: pathlib.Path,
    answer: Answer,
    *,
    folder: pathlib.Path | None = None,
) -> list[dict[str, Any]]:
    reader: Callable[..., Any] | None = _READERS.get(path.suffix.lower())
    if reader is None and run.labels["kind"] == "image":
        reader = _images
    if reader is None:
        raise DataError(
            "the kind of the input file is unknown",
            received=path.name or "no --input",
            expected=f"a file that ends in {', '.join(_READERS)}, or '-'",
        )
    within = {} if folder is None else {"folder": str(folder)}
    data = Data(
        # Messages name the path alone, not the folder that it was put into.
        source=lambda: reader({"test": str(path)}, **within),
        input=_columns(run, reader),
        target=None,
        bad_row_tolerance=1.0,
        max_length=run.labels["max_length"],
        truncate=run.labels["truncate"],
    )
    dataset = data.load(target_kind="none", require_train=False)
    for note in dataset.notes:
        # Standard output may be the answers' own.
        warn(f"note: {note}")
    split = dataset.splits["test"]
    _check_kind(run, split)
    rows = {bad.ordinal: _error(bad.ordinal, bad.reason) for bad in split.bad}
    rows |= {row["row"]: row for row in answer(run, split, data)}
    if reader is _images:
        named = zip(split.table.ordinals, split.table.column("path"), strict=True)
        rows = {row: {"row": row, "path": path} | rows[row] for row, path in named}
    return [rows[key] for key in sorted(rows)]


def _images(paths: Mapping[str, str]) -> Mapping[str, Any]:
    """Reads one image, or all of a folder or archive."""
    (path,) = paths.values()
    if pathlib.Path(path).suffix.lower() not in images.SUFFIXES:
        return sources.image_folder(paths)
    if not pathlib.Path(path).is_file():
        raise DataError("there is no such image", received=path)
    return {
        split: [{"image": images.open_image(path), "path": path}] for split in paths
    }


def _columns(run: FinishedRun, reader: Any) -> str | tuple[str, ...]:
    declared = run.labels["input"]
    if reader is sources.text_lines:
        return "text"
    if reader is _images:
        return "image"
    return declared if isinstance(declared, str) else tuple(declared)


def _check_kind(run: FinishedRun, split: Split) -> None:
    kind, columns = run.labels["kind"], run.labels["input"]
    if kind == "text" and not isinstance(columns, str) and len(columns) == 2:
        kind = "pair"
    if split.kind != kind:
        named = columns if isinstance(columns, str) else ", ".join(columns)
        raise DataError(
            "the run was trained on other inputs than these rows hold",
            received=f"inputs of kind '{split.kind}'",
            expected=f"inputs of kind '{kind}' ({named})",
            fix=f"give a file, or JSON objects, with {named}",
        )


def _without(split: Split, left_out: Mapping[int, str]) -> Split:
    if not left_out:
        return split
    kept = [index for index in range(len(split)) if index not in left_out]
    inputs = [split.inputs[index] for index in kept]
    return dataclasses.replace(split, inputs=inputs, rows=split.rows[kept])


def _error(row: int, reason: str) -> dict[str, Any]:
    return {"row": row, "error": reason}


def _answered(run: FinishedRun, split: Split, data: Data) -> Iterator[dict[str, Any]]:
    """Gives what the model predicts for the rows that it takes."""
    long = run.too_long(split, data)
    yield from (_error(split.ordinal(x), reason) for x, reason in long.items())
    split = _without(split, long)
    if len(split):
        yield from _results(run, split, run.outputs(split, data))


def _generated(
    run: FinishedRun, split: Split, data: Data, *, arguments: Arguments
) -> Iterator[dict[str, Any]]:
    """Gives texts; one of any length goes on, but an encoder takes none too long."""
    tokens = generation.read(run, split)
    faults = generation.faults(run, tokens, data)
    yield from (_error(split.ordinal(x), reason) for x, reason in faults.items())
    split = _without(split, faults)
    tokens = [ids for row, ids in enumerate(tokens) if row not in faults]
    if len(split):
        yield from generation.results(run, split, tokens, arguments)


def _results(
    run: FinishedRun, split: Split, outputs: np.ndarray
) -> Iterator[dict[str, Any]]:
    if run.task == "number":
        for index, value in enumerate(outputs[:, 0].tolist()):
            yield {"row": split.ordinal(index), "value": value}
        return
    classes = run.labels["classes"]
    logits = outputs / (run.labels["temperature"] or 1.0)
    multi_label = run.task == "multi_label"
    for index, scores in enumerate(
        calibration.probabilities(logits, multi_label=multi_label).tolist()
    ):
        named = dict(zip(classes, scores, strict=True))
        row: dict[str, Any] = {"row": split.ordinal(index)}
        if multi_label:
            row["labels"] = [name for name, score in named.items() if score > 0.5]
        else:
            row["label"] = max(named, key=lambda name: named[name])
        yield row | {"probabilities": named}


def _as_jsonl(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _as_csv(rows: list[dict[str, Any]]) -> str:
    flat = [_flat(row) for row in rows]
    names = list(dict.fromkeys(name for row in flat for name in row))
    # The error column stands last, whichever row comes first.
    names.sort(key=lambda name: name == "error")
    file = io.StringIO()
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return file.getvalue()


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    row = dict(row)
    named = row.pop("probabilities", {})
    if "labels" in row:
        row["labels"] = "|".join(row["labels"])
    return row | {f"probability:{name}": score for name, score in named.items()}
