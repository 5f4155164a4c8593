"""The real files: counts that are known, and what the checks find in them."""

from __future__ import annotations

import pathlib

import pytest

from tflearn import data
from tflearn.data import sources
from tflearn.support.errors import DataError


def _sst2(folder: pathlib.Path, *, allow_overlap: bool) -> data.Data:
    paths = {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}
    return data.Data(
        source=lambda: sources.tsv(
            paths, columns=("text", "label"), folder=str(folder / "sst2")
        ),
        allow_overlap=allow_overlap,
    )


def test_sst2_is_read_to_the_last_line(shared_data: pathlib.Path) -> None:
    loaded = _sst2(shared_data, allow_overlap=True).load(target_kind="class")
    sizes = {split: len(made) for split, made in loaded.splits.items()}
    assert sizes == {"train": 6920, "validation": 872, "test": 1821}
    assert loaded.classes == ("0", "1")
    assert loaded.splits["train"].locate(6919) == "train.tsv:6920"
    assert loaded.notes == (
        "train: 9 rows repeat another training row",
        "2 examples of 'test' are also in 'train': "
        "test.tsv:153 = train.tsv:941; test.tsv:1451 = train.tsv:2422",
    )


def test_sst2_has_two_test_sentences_among_its_training_rows(
    shared_data: pathlib.Path,
) -> None:
    with pytest.raises(DataError, match="2 examples of 'test' are also in 'train'"):
        _sst2(shared_data, allow_overlap=False).load(target_kind="class")


def test_a_tar_of_cifar10_images_is_read_without_unpacking(
    shared_data: pathlib.Path,
) -> None:
    declared = data.Data(
        source=lambda: sources.image_folder(
            "cifar10_subset.tar", folder=str(shared_data)
        ),
        input="image",
    )
    loaded = declared.load(target_kind="class")
    assert {k: len(v) for k, v in loaded.splits.items()} == {
        "train": 4000,
        "test": 1000,
    }
    assert len(loaded.classes) == 10 and loaded.notes == ()
    assert loaded.splits["train"].inputs[0].shape == (32, 32, 3)
    first = loaded.splits["test"].locate(0)
    assert first == "cifar10_subset.tar/cifar10/test/airplane/0000.jpg"


def test_wnut17_sentences(shared_data: pathlib.Path) -> None:
    paths = {split: f"{split}.conll" for split in ("train", "dev", "test")}
    tables = sources.conll(paths, folder=str(shared_data / "wnut17"))
    sizes = {split: len(table) for split, table in tables.items()}
    assert sizes == {"train": 3394, "validation": 1009, "test": 1287}
    assert not any(table.bad for table in tables.values())
    assert tables["train"][0]["tags"][14] == "B-location"


def test_packed_and_plain_text_files(shared_data: pathlib.Path) -> None:
    captions = sources.text_lines("multi30k/train.en.gz", folder=str(shared_data))
    assert len(captions["all"]) == 29_000
    plays = sources.text_lines("tinyshakespeare.txt", folder=str(shared_data))["all"]
    assert len(plays) == 32_777
    assert plays.notes == ("tinyshakespeare.txt: 7223 blank lines skipped",)
