"""Faulty data: each is one clear error that names the place."""

from __future__ import annotations

import dataclasses
import gzip
import io
import pathlib
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image
import pytest

from tflearn import data
from tflearn.data import sources
from tflearn.support.errors import ConfigError, DataError

Files = dict[str, bytes]

GOOD = b"text\tlabel\ngood\t1\nbad\t0\n"


def _png(shade: int) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (4, 4), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def _tsv(**declared: Any) -> Callable[[pathlib.Path], data.Data]:
    def make(folder: pathlib.Path) -> data.Data:
        names = ("train.tsv", "test.tsv")
        paths = {name.split(".")[0]: name for name in names if (folder / name).exists()}
        return data.Data(
            source=lambda: sources.tsv(paths or "train.tsv", folder=str(folder)),
            **declared,
        )

    return make


def _source(read: Callable[..., Any], *paths: Any, **declared: Any) -> Any:
    def make(folder: pathlib.Path) -> data.Data:
        return data.Data(source=lambda: read(*paths, folder=str(folder)), **declared)

    return make


def _rows(rows: Any, **declared: Any) -> Any:
    return lambda folder: data.Data(source=lambda: rows, **declared)


_IMAGES = {"input": "image"}
_FOLDER = _source(sources.image_folder, "", **_IMAGES)

# name: files, declaration, what the message has to say
CASES: dict[str, tuple[Files, Any, str]] = {
    "no file": ({"trian.tsv": GOOD}, _tsv(), "no such file.*mean 'trian.tsv'"),
    "no folder": (
        {},
        _source(sources.tsv, {"train": "nowhere/a.tsv"}),
        "no such folder",
    ),
    "glob without a match": (
        {"train.tsv": GOOD},
        _source(sources.tsv, {"train": "*.csv"}),
        "a glob matches no file",
    ),
    "empty file": ({"train.tsv": b""}, _tsv(), "the file is empty.*train.tsv"),
    "header only": ({"train.tsv": b"text\tlabel\n"}, _tsv(), "no rows"),
    "missing column": (
        {"train.tsv": b"sentence\tlable\nx\t1\n"},
        _tsv(input="sentence"),
        "no column 'label'.*'sentence', 'lable'.*mean 'lable'",
    ),
    "missing slice column": (
        {"train.tsv": GOOD},
        _tsv(slices=("lenght",)),
        "no column 'lenght'",
    ),
    "wrong number of fields": (
        {"train.tsv": GOOD + b"odd\n"},
        _tsv(),
        "1 of 3 rows.*train.tsv:4: 1 fields instead of 2",
    ),
    "not UTF-8": (
        {"train.tsv": GOOD + b"caf\xe9\t1\n"},
        _tsv(),
        "train.tsv:4: byte 0xe9 at character 4 is not UTF-8",
    ),
    "UTF-16": (
        {"train.tsv": "text\tlabel\n".encode("utf-16")},
        _tsv(),
        "UTF-16.*iconv",
    ),
    "damaged gzip": (
        {"train.tsv.gz": gzip.compress(GOOD)[:-9]},
        _source(sources.tsv, {"train": "train.tsv.gz"}),
        "cannot read the file",
    ),
    "empty text": (
        {"train.tsv": GOOD + b" \t1\n\t0\n"},
        _tsv(),
        "2 of 4 rows.*train.tsv:4: empty text; train.tsv:5: empty text",
    ),
    "empty label": (
        {"train.tsv": GOOD + b"x\t\n"},
        _tsv(),
        "train.tsv:4: empty label",
    ),
    "more than three faults": (
        {"train.tsv": GOOD + b"x\t\n" * 5},
        _tsv(),
        "5 of 7 rows.*train.tsv:6: empty label; and 2 more",
    ),
    "label outside of the declared classes": (
        {"train.tsv": GOOD + b"x\tpositiv\n"},
        _tsv(classes=("0", "1", "positive")),
        "train.tsv:4: label 'positiv' is outside.*mean 'positive'",
    ),
    "label that training does not have": (
        {"train.tsv": GOOD, "test.tsv": b"text\tlabel\nfine\t2\n"},
        _tsv(),
        "test.tsv:2: label '2' never occurs in the training rows",
    ),
    "class without a training example": (
        {"train.tsv": GOOD},
        _tsv(classes=("0", "1", "2")),
        "1 classes have no training example.*'2'",
    ),
    "class that is to be kept is absent": (
        {"train.tsv": GOOD},
        _tsv(only_classes=("0", "one")),
        "no row of a class in only_classes.*one",
    ),
    "overlap of train and test": (
        {"train.tsv": GOOD, "test.tsv": GOOD},
        _tsv(),
        "2 examples of 'test' are also in 'train'.*test.tsv:2 = train.tsv:2",
    ),
    "no splits": (
        {"a.tsv": GOOD},
        _source(sources.tsv, "a.tsv"),
        "no splits.*declare data.Data.splits",
    ),
    "no training rows": (
        {"test.tsv": GOOD},
        _source(sources.tsv, {"test": "test.tsv"}),
        "no training rows",
    ),
    "split given and drawn": (
        {"train.tsv": GOOD, "test.tsv": GOOD},
        _tsv(splits={"train": 0.5, "test": 0.5}),
        "both given by the source and to be drawn",
    ),
    "two spellings of a split": (
        {"train.tsv": GOOD},
        _source(sources.tsv, {"dev": "train.tsv", "val": "train.tsv"}),
        "declared twice",
    ),
    "two columns of one name": (
        {"train.tsv": b"text\ttext\nx\t1\n"},
        _tsv(),
        "two columns have one name",
    ),
    "quote that is never closed": (
        {"a.csv": b'text,label\n"good,1\nbad,0\n'},
        _source(sources.csv, {"train": "a.csv"}),
        "a.csv:2: the record cannot be read",
    ),
    "long delimiter": (
        {},
        _source(sources.csv, {"train": "a.csv"}, None, "||"),
        "delimiter is one character",
    ),
    "line that is not JSON": (
        {"a.jsonl": b'{"text": "x", "label": 1}\n{"text": \n'},
        _source(sources.jsonl, {"train": "a.jsonl"}),
        "a.jsonl:2: not JSON",
    ),
    "no JSON at all": (
        {"a.jsonl": GOOD},
        _source(sources.jsonl, {"train": "a.jsonl"}),
        "no line is a JSON object",
    ),
    "half of a character": (
        {"a.jsonl": b'{"text": "x", "label": 1}\n{"text": "y \\ud83d", "label": 0}\n'},
        _source(sources.jsonl, {"train": "a.jsonl"}),
        r"a.jsonl:2: \\ud83d at character 3 is half of a character",
    ),
    "row that lacks a key": (
        {"a.jsonl": b'{"text": "x", "label": 1}\n{"label": 0}\n'},
        _source(sources.jsonl, {"train": "a.jsonl"}),
        "a.jsonl:2: no text",
    ),
    "null": (
        {"a.jsonl": b'{"text": "x", "label": 1}\n{"text": "y", "label": null}\n'},
        _source(sources.jsonl, {"train": "a.jsonl"}),
        "a.jsonl:2: no label",
    ),
    "number instead of a text": (
        {"a.jsonl": b'{"text": "x", "label": 1}\n{"text": 5, "label": 0}\n'},
        _source(sources.jsonl, {"train": "a.jsonl"}),
        "a.jsonl:2: int instead of a text",
    ),
    "not a Parquet file": (
        {"a.parquet": b"text"},
        _source(sources.parquet, {"train": "a.parquet"}),
        "not a readable Parquet file",
    ),
    "not an npz file": (
        {"a.npz": b"text"},
        _source(sources.npz, {"train": "a.npz"}),
        "not a readable .npz file",
    ),
    "unreadable image": (
        {
            "train/a/1.png": _png(1),
            "train/b/2.png": _png(2)[:40],
            "train/b/3.jpg": b"no image",
            "train/b/4.png": _png(4),
        },
        _FOLDER,
        "2 of 4 rows.*train/b/2.png: unreadable image.*train/b/3.jpg",
    ),
    "empty image": (
        {"train/a/1.png": _png(1), "train/b/2.png": b""},
        _FOLDER,
        "train/b/2.png: unreadable image",
    ),
    "empty class folder": (
        {"train/a/1.png": _png(1), "train/b/": b""},
        _FOLDER,
        "1 class folders have no image file.*train/b",
    ),
    "class folder of other files": (
        {"train/a/1.png": _png(1), "train/b/2.heic": b"x"},
        _FOLDER,
        "1 class folders have no image file.*train/b",
    ),
    "folder without images": (
        {"train/a/1.txt": b"x"},
        _FOLDER,
        "the folder has no image file",
    ),
    "images without classes": (
        {"1.png": _png(1)},
        _source(sources.image_folder, {"train": ""}, **_IMAGES),
        "no column 'label'",
    ),
    "not an archive": (
        {"a.tar": b"no archive"},
        _source(sources.image_folder, "a.tar", **_IMAGES),
        "not a folder and not an archive",
    ),
    "no such folder in the archive": (
        {"a.zip": b"PK\x05\x06" + bytes(18)},
        _source(sources.image_folder, "a.zip/train", **_IMAGES),
        "the archive has no such folder",
    ),
    "float pixels": (
        {},
        _rows({"train": [{"image": np.ones((4, 4, 3)), "label": 0}]}, **_IMAGES),
        "the pixels of an image are not bytes",
    ),
    "NaN among numbers": (
        {},
        _rows(
            {"train": [{"x": [1.0, 2.0], "label": 0}, {"x": [1, np.nan], "label": 1}]},
            input="x",
        ),
        r"train\[1\]: nan among the numbers",
    ),
    "numbers of different length": (
        {},
        _rows(
            {"train": [{"x": [1.0, 2.0], "label": 0}, {"x": [1.0], "label": 1}]},
            input="x",
        ),
        "1 numbers instead of 2",
    ),
    "word in a numeric column": (
        {"a.csv": b"x,y,label\n1,2,a\n3,4,b\n5,six,b\n"},
        _source(sources.csv, {"train": "a.csv"}, input=("x", "y")),
        "a.csv:4: 'six' is not a number",
    ),
    "input of no kind": (
        {},
        _rows({"train": [{"text": {1, 2}, "label": 0}]}),
        "hold nothing a model can take.*set",
    ),
    "rows that are no dicts": ({}, _rows({"train": [1, 2]}), "is not a dict"),
    "rows that cannot be counted": (
        {},
        _rows({"train": iter([])}),
        "rows that cannot be counted",
    ),
    "no rows": ({}, _rows({"train": []}), "has no rows"),
    "unknown split only": ({}, _rows({"fit": [{"text": "x"}]}), "no split.*known"),
    "unknown set of scikit-learn": (
        {},
        lambda folder: data.Data(source=lambda: sources.sklearn("digit")),
        "ships no such set.*mean 'digits'",
    ),
}


def _write(folder: pathlib.Path, files: Files) -> None:
    for name, content in files.items():
        path = folder / name
        if name.endswith("/"):
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@pytest.mark.parametrize("name", CASES)
def test_faulty_data_is_one_clear_error(name: str, tmp_path: pathlib.Path) -> None:
    files, make, message = CASES[name]
    _write(tmp_path, files)
    with pytest.raises(DataError, match=f"(?s){message}"):
        make(tmp_path).load(target_kind="class")


@pytest.mark.parametrize("name", ["wrong number of fields", "not UTF-8", "empty label"])
def test_faulty_rows_below_the_tolerance_are_left_out_and_counted(
    name: str, tmp_path: pathlib.Path
) -> None:
    files, make, _ = CASES[name]
    _write(tmp_path, files)
    declared = dataclasses.replace(make(tmp_path), bad_row_tolerance=0.4)
    loaded = declared.load(target_kind="class")
    assert list(loaded.splits["train"].inputs) == ["good", "bad"]
    assert len(loaded.splits["train"].bad) == 1
    assert "train: 1 of 3 rows left out: train.tsv:4" in loaded.notes[0]


def test_a_faulty_conll_line_is_named_and_costs_its_sentence(
    tmp_path: pathlib.Path,
) -> None:
    (tmp_path / "a.conll").write_bytes(b"a\tO\nb\n\nc\tO\n")
    declared = _source(sources.conll, {"train": "a.conll"})(tmp_path)
    with pytest.raises(DataError, match="1 of 2.*a.conll:2: 1 fields instead of 2"):
        declared.load(target_kind="none")


def test_overlap_can_be_allowed(tmp_path: pathlib.Path) -> None:
    files, make, _ = CASES["overlap of train and test"]
    _write(tmp_path, files)
    declared = dataclasses.replace(make(tmp_path), allow_overlap=True)
    notes = declared.load(target_kind="class").notes
    assert any("2 examples of 'test' are also in 'train'" in note for note in notes)


def test_images_are_compared_by_their_pixels(tmp_path: pathlib.Path) -> None:
    _write(tmp_path, {"train/a/1.png": _png(1), "train/b/2.png": _png(2)})
    (tmp_path / "test" / "a").mkdir(parents=True)
    PIL.Image.new("RGB", (4, 4), (1, 0, 0)).save(tmp_path / "test" / "a" / "x.bmp")
    with pytest.raises(DataError, match="1 examples of 'test' are also in 'train'"):
        _FOLDER(tmp_path).load(target_kind="class")


def test_names_in_an_archive_are_never_paths(tmp_path: pathlib.Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("../../train/a/1.png", _png(1))
        archive.writestr("/train/b/2.png", _png(2))
    tables = sources.image_folder("a.zip", folder=str(tmp_path))
    assert list(tables["train"].column("label")) == ["a", "b"]
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a.zip"]


CONFIG_CASES: dict[str, tuple[dict[str, Any], str]] = {
    "source is no function": ({"source": {}}, "takes a function.*parentheses"),
    "classes is a text": ({"classes": "pos"}, "takes several names"),
    "class twice": ({"classes": ("a", "a")}, "no or repeated names"),
    "slices is a text": ({"slices": "topic"}, "takes several values"),
    "augment is one layer": ({"augment": len}, "takes several values"),
    "tolerance": ({"bad_row_tolerance": 1.5}, "out of its range.*at most 1"),
    "max_length": ({"max_length": 0}, "out of its range"),
    "workers": ({"workers": -1}, "out of its range"),
    "examples_per_class": ({"examples_per_class": 0}, "out of its range"),
    "balance": ({"balance": "sample"}, "balance classes.*mean 'sampling'"),
    "shares": ({"splits": {"train": 0.5, "test": 0.4}}, "do not make a whole"),
    "no share for training": ({"splits": {"test": 1.0}}, "no share goes to training"),
    "name of a share": ({"splits": {"trian": 1.0}}, "drawn under these names"),
}


@pytest.mark.parametrize("name", CONFIG_CASES)
def test_a_faulty_declaration_is_one_clear_error(name: str) -> None:
    declared, message = CONFIG_CASES[name]
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        data.Data(**({"source": dict} | declared))


@pytest.mark.parametrize("kind", ["multi_label", "number"])
@pytest.mark.parametrize(
    "declared",
    [{"only_classes": ("a",)}, {"examples_per_class": 2}, {"balance": "sampling"}],
)
def test_what_needs_one_class_each_is_refused_for_other_targets(
    kind: str, declared: dict[str, Any]
) -> None:
    with pytest.raises(ConfigError, match="class"):
        data.Data(source=dict, **declared).load(target_kind=kind)


def test_an_unknown_kind_of_targets_is_refused() -> None:
    with pytest.raises(ConfigError, match="no such kind"):
        data.Data(source=dict).load(target_kind="classes")
