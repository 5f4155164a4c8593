"""Every source gives the same rows for the same content: one table, one contract."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import io
import json
import pathlib
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image
import pytest

from tflearn import data
from tflearn.data import sources
from tflearn.support.errors import DataError

# Texts that readers like to change: nulls, quotes, separators, other line separators.
TRAIN = (
    ("NA", "pos"),
    ('says "yes, no"', "neg"),
    ("None", "pos"),
    ("größe\u2028次", "neg"),
    ("nan", "pos"),
)
TEST = (("null", "neg"), (" spaces ", "pos"))
SPLITS = {"train": TRAIN, "test": TEST}
NAMES = {"train": "train.{}", "test": "test.{}"}


def _write(
    folder: pathlib.Path, suffix: str, write: Callable[[pathlib.Path, Any], None]
) -> dict[str, str]:
    paths = {split: f"{split}.{suffix}" for split in SPLITS}
    for split, rows in SPLITS.items():
        write(folder / paths[split], rows)
    return paths


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _csv(folder: pathlib.Path) -> Callable[[], Any]:
    def write(path: pathlib.Path, rows: Any) -> None:
        lines = ["text,label", *(f"{_quoted(t)},{label}" for t, label in rows)]
        path.write_text("\r\n".join(lines) + "\r\n", encoding="utf-8-sig")

    paths = _write(folder, "csv", write)
    return lambda: sources.csv(paths, folder=str(folder))


def _csv_without_header(folder: pathlib.Path) -> Callable[[], Any]:
    def write(path: pathlib.Path, rows: Any) -> None:
        lines = [f"{_quoted(t)};{label}" for t, label in rows]
        path.write_text("\n".join(lines), encoding="utf-8")

    paths = _write(folder, "csv", write)
    return lambda: sources.csv(
        paths, columns=("text", "label"), delimiter=";", folder=str(folder)
    )


def _tsv(folder: pathlib.Path) -> Callable[[], Any]:
    def write(path: pathlib.Path, rows: Any) -> None:
        lines = ["\t".join(row) for row in rows]
        path.write_text("\n".join(lines), encoding="utf-8")

    paths = _write(folder, "tsv", write)
    return lambda: sources.tsv(paths, columns=("text", "label"), folder=str(folder))


def _tsv_glob(folder: pathlib.Path) -> Callable[[], Any]:
    for split, rows in SPLITS.items():
        (folder / split).mkdir()
        for number, part in enumerate((rows[:1], rows[1:])):
            lines = ["text\tlabel", *("\t".join(row) for row in part)]
            path = folder / split / f"part-{number}.tsv.gz"
            path.write_bytes(gzip.compress("\n".join(lines).encode()))
    paths = {split: f"{split}/part-*.tsv.gz" for split in SPLITS}
    return lambda: sources.tsv(paths, folder=str(folder))


def _jsonl(folder: pathlib.Path) -> Callable[[], Any]:
    def write(path: pathlib.Path, rows: Any) -> None:
        lines = [
            json.dumps({"text": t, "label": label}, ensure_ascii=False)
            for t, label in rows
        ]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    paths = _write(folder, "jsonl", write)
    return lambda: sources.jsonl(paths, folder=str(folder))


def _parquet(folder: pathlib.Path) -> Callable[[], Any]:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def write(path: pathlib.Path, rows: Any) -> None:
        texts, labels = zip(*rows, strict=True)
        table = pyarrow.table({"text": list(texts), "label": list(labels), "x": texts})
        parquet.write_table(table, path)

    paths = _write(folder, "parquet", write)
    return lambda: sources.parquet(paths, ("text", "label"), folder=str(folder))


def _npz(folder: pathlib.Path) -> Callable[[], Any]:
    columns = {}
    for split, rows in SPLITS.items():
        columns[f"text_{split}"] = np.asarray([text for text, _ in rows])
        columns[f"label_{split}"] = np.asarray([label for _, label in rows])
    np.savez(folder / "rows.npz", **columns)
    return lambda: sources.npz("rows.npz", folder=str(folder))


def _arrays(folder: pathlib.Path) -> Callable[[], Any]:
    columns = {
        split: {"text": [row[0] for row in rows], "label": [row[1] for row in rows]}
        for split, rows in SPLITS.items()
    }
    return functools.partial(sources.arrays, columns)


def _function(folder: pathlib.Path) -> Callable[[], Any]:
    def rows() -> Any:
        return {
            split: [{"text": text, "label": label} for text, label in rows]
            for split, rows in SPLITS.items()
        }

    return rows


def _text_folder(folder: pathlib.Path) -> Callable[[], Any]:
    for split, rows in SPLITS.items():
        for number, (text, label) in enumerate(rows):
            path = folder / "top" / split / label / f"{number}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return lambda: sources.text_folder("top", folder=str(folder))


def _hugging_face(folder: pathlib.Path) -> Callable[[], Any]:
    library = pytest.importorskip("datasets")
    features = library.Features(
        text=library.Value("string"), label=library.ClassLabel(names=["neg", "pos"])
    )
    library.DatasetDict(
        {
            split: library.Dataset.from_dict(
                {"text": [r[0] for r in rows], "label": [r[1] for r in rows]},
                features=features,
            )
            for split, rows in SPLITS.items()
        }
    ).save_to_disk(str(folder / "saved"))
    return lambda: sources.hugging_face("saved", folder=str(folder))


def _hugging_face_files(folder: pathlib.Path) -> Callable[[], Any]:
    library = pytest.importorskip("datasets")
    library.config.HF_DATASETS_CACHE = folder / "cache"
    _jsonl(folder)
    files = {split: f"{split}.jsonl" for split in SPLITS}
    return lambda: sources.hugging_face("json", data_files=files, folder=str(folder))


def _tfds(folder: pathlib.Path) -> Callable[[], Any]:
    prepared = _prepare_tfds(folder, "array_record")
    return lambda: sources.tfds(directory=prepared)


def _prepare_tfds(folder: pathlib.Path, file_format: str) -> str:
    library = pytest.importorskip("tensorflow_datasets")
    pytest.importorskip("array_record")

    class Rows(library.core.GeneratorBasedBuilder, skip_registration=True):
        """A few rows."""

        VERSION = library.core.Version("1.0.0")

        def _info(self) -> Any:
            features = library.features.FeaturesDict(
                {
                    "text": library.features.Text(),
                    "label": library.features.ClassLabel(names=["neg", "pos"]),
                }
            )
            return library.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, manager: Any) -> Any:
            return {split: self._generate_examples(split) for split in SPLITS}

        def _generate_examples(self, split: str) -> Any:
            for number, (text, label) in enumerate(SPLITS[split]):
                yield number, {"text": text, "label": label}

    builder = Rows(data_dir=str(folder), file_format=file_format)
    builder.download_and_prepare()
    return str(builder.data_path)


TEXT_SOURCES = {
    "csv": (_csv, "train.csv:3"),
    "csv without header": (_csv_without_header, "train.csv:2"),
    "tsv": (_tsv, "train.tsv:2"),
    "tsv glob": (_tsv_glob, "train/part-1.tsv.gz:2"),
    "jsonl": (_jsonl, "train.jsonl:2"),
    "parquet": (_parquet, "train.parquet:2"),
    "npz": (_npz, "rows.npz:train[1]"),
    "arrays": (_arrays, "train[1]"),
    "function": (_function, "rows:train[1]"),
    "hugging_face": (_hugging_face, "saved:train[1]"),
    "hugging_face files": (_hugging_face_files, "json:train[1]"),
}
# These order the rows themselves.
SORTING_SOURCES = {"text_folder": _text_folder, "tfds": _tfds}


@pytest.mark.parametrize("name", TEXT_SOURCES)
def test_sources_of_text_give_the_same_rows(name: str, tmp_path: pathlib.Path) -> None:
    make, location = TEXT_SOURCES[name]
    loaded = data.Data(source=make(tmp_path)).load(target_kind="class")
    train, test = loaded.splits["train"], loaded.splits["test"]
    assert list(train.inputs) == [text for text, _ in TRAIN]
    assert list(test.inputs) == [text for text, _ in TEST]
    assert loaded.classes == ("neg", "pos")
    assert train.targets is not None and train.targets.dtype == np.int32
    assert train.targets.tolist() == [1, 0, 1, 0, 1]
    assert train.locate(1) == location
    assert loaded.fingerprint == _reference()


@pytest.mark.parametrize("name", SORTING_SOURCES)
def test_sources_that_sort_give_the_same_set_of_rows(
    name: str, tmp_path: pathlib.Path
) -> None:
    loaded = data.Data(source=SORTING_SOURCES[name](tmp_path)).load(target_kind="class")
    for split, rows in SPLITS.items():
        made = loaded.splits[split]
        assert made.targets is not None
        found = {
            (text.strip(), loaded.classes[target])
            for text, target in zip(made.inputs, made.targets, strict=True)
        }
        assert found == {(text.strip(), label) for text, label in rows}


def _reference() -> str:
    made = data.Data(source=_function(pathlib.Path())).load(target_kind="class")
    return made.fingerprint


def _pixels(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (6, 5, 3), dtype=np.uint8)


def _png(number: int) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.fromarray(_pixels(number)).save(buffer, "PNG")
    return buffer.getvalue()


IMAGES = {
    "train/cat/a.png": 0,
    "train/dog/b.png": 1,
    "test/cat/c.png": 2,
    "test/dog/d.png": 3,
}


def _image_folder(folder: pathlib.Path) -> Callable[[], Any]:
    for name, number in IMAGES.items():
        path = folder / "pets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_png(number))
    return lambda: sources.image_folder("pets", folder=str(folder))


def _tar(folder: pathlib.Path) -> Callable[[], Any]:
    with tarfile.open(folder / "pets.tar", "w") as archive:
        for name, number in IMAGES.items():
            member = tarfile.TarInfo(f"./pets/{name}")
            member.size = len(_png(number))
            archive.addfile(member, io.BytesIO(_png(number)))
    return lambda: sources.image_folder("pets.tar", folder=str(folder))


def _zip(folder: pathlib.Path) -> Callable[[], Any]:
    with zipfile.ZipFile(folder / "pets.zip", "w") as archive:
        for name, number in IMAGES.items():
            archive.writestr(f"pets/{name}", _png(number))
        archive.writestr("__MACOSX/pets/train/cat/._a.png", b"")
    return lambda: sources.image_folder("pets.zip", folder=str(folder))


def _inside(folder: pathlib.Path) -> Callable[[], Any]:
    _zip(folder)
    paths = {"train": "pets.zip/pets/train", "test": "pets.zip/pets/test"}
    return lambda: sources.image_folder(paths, folder=str(folder))


def _image_npz(folder: pathlib.Path) -> Callable[[], Any]:
    np.savez(
        folder / "pets.npz",
        image_train=np.stack([_pixels(0), _pixels(1)]),
        label_train=np.asarray(["cat", "dog"]),
        image_test=np.stack([_pixels(2), _pixels(3)]),
        label_test=np.asarray(["cat", "dog"]),
    )
    return lambda: sources.npz("pets.npz", folder=str(folder))


def _image_rows(folder: pathlib.Path) -> Callable[[], Any]:
    def rows() -> Any:
        return {
            split: [
                {"image": {"bytes": _png(number), "path": None}, "label": label}
                for name, number in IMAGES.items()
                for label in [name.split("/")[1]]
                if name.startswith(split)
            ]
            for split in SPLITS
        }

    return rows


def _image_hugging_face(folder: pathlib.Path) -> Callable[[], Any]:
    library = pytest.importorskip("datasets")
    made = {}
    for split in SPLITS:
        numbers = [n for name, n in IMAGES.items() if name.startswith(split)]
        made[split] = library.Dataset.from_dict(
            {
                "image": [PIL.Image.fromarray(_pixels(n)) for n in numbers],
                "label": ["cat", "dog"],
            }
        )
    library.DatasetDict(made).save_to_disk(str(folder / "pets"))
    return lambda: sources.hugging_face("pets", folder=str(folder))


IMAGE_SOURCES = {
    "folder": _image_folder,
    "tar": _tar,
    "zip": _zip,
    "folder inside of an archive": _inside,
    "npz": _image_npz,
    "function": _image_rows,
    "hugging_face": _image_hugging_face,
}


@pytest.mark.parametrize("name", IMAGE_SOURCES)
def test_sources_of_images_give_the_same_pixels(
    name: str, tmp_path: pathlib.Path
) -> None:
    declared = data.Data(source=IMAGE_SOURCES[name](tmp_path), input="image")
    loaded = declared.load(target_kind="class")
    assert loaded.classes == ("cat", "dog")
    first = loaded.splits["train"].inputs[0]
    assert first.dtype == np.uint8
    np.testing.assert_array_equal(first, _pixels(0))
    np.testing.assert_array_equal(loaded.splits["test"].inputs[1], _pixels(3))
    reference = data.Data(source=_image_rows(tmp_path), input="image")
    assert loaded.fingerprint == reference.load(target_kind="class").fingerprint


def test_an_image_folder_counts_files_that_are_no_images(
    tmp_path: pathlib.Path,
) -> None:
    make = _image_folder(tmp_path)
    (tmp_path / "pets" / "README").write_text("read me")
    (tmp_path / "pets" / "train" / "cat" / "notes.txt").write_text("a cat")
    (tmp_path / "pets" / "train" / "cat" / ".DS_Store").write_text("")
    loaded = data.Data(source=make, input="image").load(target_kind="class")
    assert len(loaded.splits["train"]) == 2
    assert any("3 files are no image files" in note for note in loaded.notes)


@pytest.mark.parametrize("suffix", ["webp", "jpg", "gif", "bmp", "tiff"])
def test_image_formats_are_read(suffix: str, tmp_path: pathlib.Path) -> None:
    for split in SPLITS:
        for number, label in enumerate(("cat", "dog")):
            folder = tmp_path / split / label
            folder.mkdir(parents=True)
            pixels = _pixels(number + 10 * len(split))
            PIL.Image.fromarray(pixels).save(folder / f"x.{suffix}")
    made = sources.image_folder(str(tmp_path))
    loaded = data.Data(source=lambda: made, input="image").load(target_kind="class")
    assert loaded.splits["train"].inputs[0].shape == (6, 5, 3)


def test_images_of_all_modes_become_bytes(tmp_path: pathlib.Path) -> None:
    wide = np.linspace(0, 65535, 12).astype(np.uint16).reshape(3, 4)
    PIL.Image.fromarray(wide).save(tmp_path / "wide.png")
    made = data.open_image(str(tmp_path / "wide.png")).decode()
    assert made.shape == (3, 4, 1)
    assert made.min() == 0 and made.max() == 255
    for mode, channels in (("RGBA", 3), ("P", 3), ("L", 1), ("1", 1), ("CMYK", 3)):
        path = tmp_path / f"{mode}.tiff"
        PIL.Image.fromarray(_pixels(0)).convert(mode).save(path)
        assert data.open_image(str(path)).decode().shape == (6, 5, channels), mode


def test_digits_are_images_and_vectors() -> None:
    table = sources.sklearn("digits")["all"]
    assert len(table) == 1797
    row = table[0]
    assert row["image"].shape == (8, 8, 1) and row["image"].dtype == np.uint8
    assert row["image"].max() == 239
    assert row["vector"].shape == (64,)
    assert row["label"] == "0"


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer"])
def test_sets_of_scikit_learn_keep_their_class_names(name: str) -> None:
    table = sources.sklearn(name)["all"]
    assert set(table.column("label")) == set(table.classes or ())


def test_conll_rows_are_sentences(tmp_path: pathlib.Path) -> None:
    text = "-DOCSTART- O\n\nEmpire\tB-loc\nState\tI-loc\n\t\nhi\tO"
    (tmp_path / "a.conll").write_text(text)
    table = sources.conll("a.conll", folder=str(tmp_path))["all"]
    assert table[0] == {
        "tokens": ["Empire", "State"],
        "tags": ["B-loc", "I-loc"],
        "text": "Empire State",
    }
    assert table.locate(1) == "a.conll:6"
    assert table.notes == ("a.conll: 1 -DOCSTART- lines skipped",)


def test_text_lines_count_blank_lines(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\n two\n")
    table = sources.text_lines(str(tmp_path / "a.txt"))["all"]
    assert list(table.column("text")) == ["one", " two"]
    assert "1 blank lines skipped" in table.notes[0]


def test_a_header_that_the_columns_repeat_is_no_row(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\ngood,1\n")
    table = sources.csv("a.csv", ("text", "label"), folder=str(tmp_path))["all"]
    assert len(table) == 1
    assert "the header" in table.notes[0]


def test_csv_keeps_line_breaks_in_quotes(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.csv").write_text('text,label\n"two\nlines",1\nnext,0\n')
    table = sources.csv("a.csv", folder=str(tmp_path))["all"]
    assert table[0]["text"] == "two\nlines"
    assert table.locate(1) == "a.csv:4"


def test_tfds_needs_random_access(tmp_path: pathlib.Path) -> None:
    prepared = _prepare_tfds(tmp_path, "tfrecord")
    with pytest.raises(DataError, match="no random access.*array_record"):
        sources.tfds(directory=prepared)


def test_tfds_selects_splits_and_keeps_the_class_order(tmp_path: pathlib.Path) -> None:
    prepared = _prepare_tfds(tmp_path, "array_record")
    tables = sources.tfds(directory=prepared, splits={"dev": "train[:2]"})
    assert len(tables["validation"]) == 2
    assert tables["validation"].classes == ("neg", "pos")
    with pytest.raises(DataError, match="no such split.*Did you mean 'train'"):
        sources.tfds(directory=prepared, splits={"train": "trian"})


def test_hugging_face_selects_parts(tmp_path: pathlib.Path) -> None:
    library = pytest.importorskip("datasets")
    library.config.HF_DATASETS_CACHE = tmp_path / "cache"
    _jsonl(tmp_path)
    tables = sources.hugging_face(
        "json",
        data_files={"train": "train.jsonl"},
        splits={"train": "train[:3]", "test": "train[3:]"},
        folder=str(tmp_path),
    )
    assert {split: len(table) for split, table in tables.items()} == {
        "train": 3,
        "test": 2,
    }


def test_sources_take_no_free_arguments() -> None:
    import inspect

    for name in sources.__all__:
        for parameter in inspect.signature(getattr(sources, name)).parameters.values():
            assert parameter.kind is not parameter.VAR_KEYWORD, name
            assert parameter.annotation is not parameter.empty, name


def test_a_table_is_rows_with_places() -> None:
    table = data.Table({"a": [1, 2], "b": np.asarray([3, 4])}, name="t")
    assert table[1] == {"a": 2, "b": 4}
    assert len(table[0:2]) == 2
    assert table.locate(0) == "t[0]"
    with pytest.raises(DataError, match="no column 'c'"):
        table.column("c")
    with pytest.raises(DataError, match="differ in length"):
        data.Table({"a": [1], "b": []})


def test_bad_rows_keep_their_place_among_all_rows(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.tsv").write_text("good\t1\nbad\nfine\t0\n")
    source = functools.partial(
        sources.tsv, {"train": "a.tsv"}, ("text", "label"), str(tmp_path)
    )
    declared = data.Data(source=source, bad_row_tolerance=0.5)
    split = declared.load(target_kind="class").splits["train"]
    assert [row.ordinal for row in split.bad] == [1]
    assert [split.ordinal(i) for i in range(len(split))] == [0, 2]
    assert dataclasses.astuple(split.bad[0])[0] == "a.tsv:2"
