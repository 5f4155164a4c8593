"""The modes of the command line on tiny runs of texts, images and vectors."""

from __future__ import annotations

import csv
import functools
import importlib
import io
import json
import pathlib
import re
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from tflearn.commands import evaluate
from tflearn.data import Data, sources

line = importlib.import_module("tflearn.run")

DECLARED = """
from __gin__ import dynamic_registration
import keras_hub
from tflearn import backbones
from tflearn import data
from tflearn import experiment
from tflearn import objectives
from tflearn import regimes
from tflearn.training import optimizers
from examples import own_backbone
from tests import mistakes_models

experiment.Experiment.name = 'tiny'
experiment.Experiment.stages = (@experiment.Stage(),)
experiment.Stage.name = 'tune'
experiment.Stage.data = @data.Data
experiment.Stage.objective = @objectives.classification
experiment.Stage.regime = @regimes.full()
experiment.Stage.optimizer = @optimizers.adamw
experiment.Stage.budget = '40 steps'
experiment.Stage.batch_size = 16
experiment.Stage.bootstrap = 20
optimizers.adamw.learning_rate = 0.03
"""
VECTOR = """
experiment.Experiment.backbone = @backbones.function
backbones.function.build = @own_backbone.perceptron
own_backbone.perceptron.width = 8
data.Data.source = @data.sources.csv
data.Data.input = ('x', 'y')
data.sources.csv.paths = {'train': 'train.csv', 'test': 'test.csv'}
"""
TEXT = """
experiment.Experiment.backbone = @backbones.hub
backbones.hub.architecture = @keras_hub.models.BertBackbone
backbones.hub.tokenizer = @keras_hub.models.BertTokenizer
keras_hub.models.BertTokenizer.vocabulary = [
    '[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'good', 'bad', 'a', 'very', 'film',
]
keras_hub.models.BertBackbone.vocabulary_size = 10
keras_hub.models.BertBackbone.num_layers = 1
keras_hub.models.BertBackbone.num_heads = 1
keras_hub.models.BertBackbone.hidden_dim = 8
keras_hub.models.BertBackbone.intermediate_dim = 8
keras_hub.models.BertBackbone.max_sequence_length = 16
data.Data.source = @data.sources.tsv
data.Data.max_length = 12
data.sources.tsv.columns = ('text', 'label')
data.sources.tsv.paths = {'train': 'train.tsv', 'test': 'test.tsv'}
"""
IMAGE = """
experiment.Experiment.backbone = @backbones.function
backbones.function.build = @mistakes_models.convolution
data.Data.source = @data.sources.image_folder
data.Data.input = 'image'
data.sources.image_folder.paths = 'pictures'
"""
COMPARISON = """
from __gin__ import dynamic_registration
from tflearn import experiment
from tflearn import regimes
from tflearn import comparison
from tflearn.training import optimizers

experiment.Experiment.stages = (@first/experiment.Stage(), @experiment.Stage())
first/experiment.Stage.name = 'first'
first/experiment.Stage.budget = '5 steps'
comparison.Comparison.arms = (@scratch/comparison.Arm(), @frozen/comparison.Arm())
comparison.Comparison.seeds = (0, 1)
scratch/comparison.Arm.name = 'scratch'
scratch/comparison.Arm.regime = @regimes.scratch()
frozen/comparison.Arm.name = 'frozen'
frozen/comparison.Arm.regime = @regimes.frozen()
frozen/comparison.Arm.optimizer = @frozen/optimizers.adamw
frozen/optimizers.adamw.learning_rate = 0.1
"""


def vector_rows(rng: np.random.Generator, count: int) -> list[str]:
    points = rng.normal(size=(count, 2)).round(4)
    return [f"{x},{y},{'right' if x > 0 else 'left'}" for x, y in points.tolist()]


def write_vectors(folder: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 64), ("test", 40)):
        rows = ["x,y,label", *vector_rows(rng, count)]
        (folder / f"{split}.csv").write_text("\n".join(rows) + "\n")


def write_texts(folder: pathlib.Path) -> None:
    # Distinct sentences, so that no training row is a test row.
    for split, filler in (("train", "very"), ("test", "film")):
        rows = [
            f"a {f'{filler} ' * n}{word} {f'{filler} ' * m}\t{word}"
            for n in range(1, 4)
            for m in range(1, 4)
            for word in ("good", "bad")
        ]
        (folder / f"{split}.tsv").write_text("\n".join(rows))


def write_image(path: pathlib.Path, color: str, rng: np.random.Generator) -> None:
    pixels = rng.integers(0, 100, (8, 8, 3), dtype=np.uint8)
    pixels[..., ("red", "green", "blue").index(color)] += 150
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_images(folder: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 24), ("test", 8)):
        for color in ("red", "blue"):
            for number in range(count):
                name = f"pictures/{split}/{color}/{number:02}.png"
                write_image(folder / name, color, rng)


KINDS: dict[str, tuple[str, Callable[[pathlib.Path], None]]] = {
    "vector": (VECTOR, write_vectors),
    "text": (TEXT, write_texts),
    "image": (IMAGE, write_images),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], pathlib.Path]:
    """Returns the folder of a kind: its data and `run`, made when first asked for."""
    folders: dict[str, pathlib.Path] = {}

    def make(kind: str) -> pathlib.Path:
        if kind not in folders:
            declared, write = KINDS[kind]
            folder = tmp_path_factory.mktemp(kind)
            write(folder)
            (folder / "tiny.gin").write_text(absolute(DECLARED + declared, folder))
            flags = [f"--gin_file={folder}/tiny.gin", f"--output_dir={folder}/run"]
            assert line.main(flags) == 0
            folders[kind] = folder
        return folders[kind]

    return make


def absolute(declared: str, folder: pathlib.Path) -> str:
    for name in ("'train.", "'test.", "'pictures"):
        declared = declared.replace(name, f"'{folder}/{name[1:]}")
    return declared


def reported(folder: pathlib.Path) -> dict[str, Any]:
    report = json.loads((folder / "run/report.json").read_text())
    return report["stages"][-1]["evaluations"]["test"]["metrics"]


def predict(folder: pathlib.Path, source: object, *more: str) -> None:
    flags = ["--mode=predict", f"--run_dir={folder}/run", f"--input={source}"]
    assert line.main([*flags, *more]) == 0


def predicted(
    folder: pathlib.Path, source: object, capsys: pytest.CaptureFixture[str]
) -> list[dict[str, Any]]:
    capsys.readouterr()
    predict(folder, source)
    return [json.loads(text) for text in capsys.readouterr().out.splitlines()]


def stdin(monkeypatch: pytest.MonkeyPatch, text: str | bytes) -> str:
    raw = text.encode() if isinstance(text, str) else text
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(raw)))
    return "-"


@pytest.mark.parametrize("kind", KINDS)
def test_train_prints_the_metrics_and_where_the_report_is(
    kind: str, trained, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = trained(kind)
    capsys.readouterr()
    flags = [f"--gin_file={folder}/tiny.gin", f"--output_dir={folder}/run"]
    assert line.main(flags) == 0
    shown = capsys.readouterr().out
    assert f"{folder}/run is finished" in shown
    assert "accuracy" in shown
    assert f"report: {folder}/run/report.html" in shown
    assert reported(folder)["accuracy"]["value"] > 0.8


@pytest.mark.parametrize("kind", KINDS)
def test_evaluate_gives_the_metrics_of_the_report(
    kind: str, trained, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = trained(kind)
    assert line.main(["--mode=evaluate", f"--run_dir={folder}/run"]) == 0
    written = folder / "run/evaluations/test.json"
    assert f"written: {written}" in capsys.readouterr().out
    assert json.loads(written.read_text())["metrics"] == reported(folder)


def test_evaluate_on_another_split(trained, tmp_path: pathlib.Path) -> None:
    target = tmp_path / "train.json"
    flags = [f"--run_dir={trained('vector')}/run", f"--output={target}"]
    assert line.main(["--mode=evaluate", "--split=train", *flags]) == 0
    assert json.loads(target.read_text())["metrics"]["accuracy"]["count"] == 64


NEW_FILES = {
    "vector": ("new.csv", "y,x,label\n0,2,right\n0,-2,left\n0,3,left\n"),
    "text": ("new.tsv", "a good\tgood\na bad\tbad\nvery bad\tgood\n"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_evaluate_on_a_new_file(kind: str, trained, tmp_path: pathlib.Path) -> None:
    if kind == "image":
        source, rng = tmp_path / "new", np.random.default_rng(7)
        for name, color in (("red/1", "red"), ("blue/1", "blue"), ("blue/2", "red")):
            write_image(source / f"{name}.png", color, rng)
    else:
        name, text = NEW_FILES[kind]
        source = tmp_path / name
        source.write_text(text)
    folder = trained(kind)
    flags = ["--mode=evaluate", f"--run_dir={folder}/run", f"--input={source}"]
    assert line.main(flags) == 0
    written = json.loads((folder / f"run/evaluations/{source.name}.json").read_text())
    # Two of the three labels are right.
    assert written["metrics"]["accuracy"]["value"] == pytest.approx(2 / 3)
    assert written["metrics"]["accuracy"]["count"] == 3


def test_nothing_of_a_new_file_is_cut_off_for_other_splits(tmp_path) -> None:
    (tmp_path / "new.txt").write_text("to be or not to be")
    shares = {"train": 0.5, "validation": 0.5}
    source = functools.partial(sources.text_files, paths="old.txt", shares=shares)
    declared = Data(source=source, target=None)
    found = evaluate._on_file(declared, f"{tmp_path}/new.txt")
    dataset = found.load(target_kind="none", require_train=False)
    assert list(dataset.splits["test"].inputs) == ["to be or not to be"]


def test_a_label_the_run_does_not_know(
    trained, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new.csv").write_text("x,y,label\n1,1,middle\n")
    flags = [f"--run_dir={trained('vector')}/run", f"--input={tmp_path}/new.csv"]
    assert line.main(["--mode=evaluate", *flags]) == 2
    assert "middle" in capsys.readouterr().err


MISTAKES = {
    "no such split": (["--mode=evaluate", "--split=tset"], "Did you mean 'test'"),
    "no such input": (["--mode=evaluate", "--input=no.csv"], "no.csv"),
    "no file to predict": (["--mode=predict", "--input=no.csv"], "no.csv"),
    "unknown suffix": (["--mode=predict", "--input=rows.xls"], "rows.xls"),
    "other inputs": (["--mode=predict", "--input=-"], "Expected: .*x, y"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_message(
    mistake: str,
    trained,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags, message = MISTAKES[mistake]
    stdin(monkeypatch, "no numbers\n")
    folder = trained("vector")
    capsys.readouterr()
    assert line.main([*flags, f"--run_dir={folder}/run"]) == 2
    shown = capsys.readouterr()
    assert re.search(message, shown.err), shown.err
    assert shown.out == ""


@pytest.mark.parametrize("mode", ["evaluate", "predict"])
def test_a_folder_without_a_finished_run(
    mode: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--input=-"] if mode == "predict" else []
    assert line.main([f"--mode={mode}", f"--run_dir={tmp_path}", *more]) == 2
    assert "holds no" in capsys.readouterr().err


def test_predict_vectors_in_order_with_a_bad_row_in_its_place(
    trained, tmp_path, capsys
):
    (tmp_path / "new.csv").write_text("x,y\n2,0\n-2,0\n1,oops\n3,0\n,1\n-3,1\n")
    rows = predicted(trained("vector"), tmp_path / "new.csv", capsys)
    assert [row["row"] for row in rows] == list(range(6))
    labels = [row.get("label", "-") for row in rows]
    assert labels == ["right", "left", "-", "right", "-", "left"]
    assert "'oops' is not a number" in rows[2]["error"]
    assert sum(rows[0]["probabilities"].values()) == pytest.approx(1)
    assert list(rows[0]["probabilities"]) == ["left", "right"]


def test_predict_json_objects_from_standard_input(trained, capsys, monkeypatch):
    text = '{"x": 2, "y": 0}\n{"x": 2\n{"y": 1}\n{"x": -2, "y": 0, "more": 1}\n'
    rows = predicted(trained("vector"), stdin(monkeypatch, text), capsys)
    assert [row.get("label") for row in rows] == ["right", None, None, "left"]
    assert all("error" in row for row in rows[1:3])


def test_messages_name_standard_input(trained, capsys, monkeypatch) -> None:
    flags = ["--mode=predict", f"--run_dir={trained('vector')}/run", "--input=-"]
    stdin(monkeypatch, '{"x": 1}\n')
    assert line.main(flags) == 2
    assert "error: standard_input.jsonl has no" in capsys.readouterr().err


def test_predict_lines_of_text_from_standard_input(trained, capsys, monkeypatch):
    text = "a good film\n\na bad film\n" + "very " * 20 + "\ngood\n"
    rows = predicted(trained("text"), stdin(monkeypatch, text), capsys)
    assert [row.get("label") for row in rows if "error" not in row] == [
        "good",
        "bad",
        "good",
    ]
    (long,) = [row for row in rows if "error" in row]
    assert rows.index(long) == len(rows) - 2
    assert long["error"] == "22 tokens, more than 12"


@pytest.mark.first_on("jax")
def test_a_run_with_another_vocabulary_is_no_start(trained, tmp_path, capsys) -> None:
    folder = trained("text")
    swapped = "['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'bad', 'good', 'a', 'b']"
    flags = [
        f"--gin_file={folder}/tiny.gin",
        f"--gin_bindings=experiment.Experiment.start_from = '{folder}/run'",
        f"--gin_bindings=keras_hub.models.BertTokenizer.vocabulary = {swapped}",
        f"--output_dir={tmp_path}/run",
    ]
    assert line.main(flags) == 2
    assert "trained with another vocabulary" in capsys.readouterr().err
    assert line.main([*flags[:2], flags[3]]) == 0


def test_blank_lines_are_counted_where_no_answer_stands(trained, capsys, monkeypatch):
    stdin(monkeypatch, "a good film\n\na bad film\n")
    capsys.readouterr()
    predict(trained("text"), "-")
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 2
    assert "note: standard_input.txt: 1 blank lines skipped" in shown.err


def test_bytes_that_are_no_text_on_standard_input(trained, capsys, monkeypatch):
    text = b"\xef\xbb\xbfa good film\nca\xe9 film\n"
    good, bad = predicted(trained("text"), stdin(monkeypatch, text), capsys)
    assert good["label"] == "good"
    assert bad["error"] == "byte 0xe9 at character 3 is not UTF-8"


def test_predict_writes_csv(trained, tmp_path: pathlib.Path) -> None:
    source, target = tmp_path / "new.csv", tmp_path / "out" / "new.csv"
    source.write_text('text\na bad film\n" "\na good film\n')
    predict(trained("text"), source, "--format=csv", f"--output={target}")
    rows = list(csv.DictReader(target.read_text().splitlines()))
    assert list(rows[0]) == [
        "row",
        "label",
        "probability:bad",
        "probability:good",
        "error",
    ]
    assert [row["label"] for row in rows] == ["bad", "", "good"]
    assert [row["error"] for row in rows] == ["", "empty text", ""]


def test_predict_agrees_with_the_report(trained, tmp_path: pathlib.Path) -> None:
    folder, target = trained("text"), tmp_path / "out.jsonl"
    lines = (folder / "test.tsv").read_text().splitlines()
    (tmp_path / "test.tsv").write_text("\n".join(["text\tlabel", *lines]))
    predict(folder, tmp_path / "test.tsv", f"--output={target}")
    rows = [json.loads(text) for text in target.read_text().splitlines()]
    right = [
        row["label"] == x.split("\t")[1] for row, x in zip(rows, lines, strict=True)
    ]
    assert np.mean(right) == reported(folder)["accuracy"]["value"]


def test_predict_a_folder_of_images_without_classes(trained, tmp_path, capsys) -> None:
    rng = np.random.default_rng(3)
    for name, color in (("1", "red"), ("3", "blue"), ("4", "red")):
        write_image(tmp_path / "new" / f"{name}.png", color, rng)
    (tmp_path / "new" / "2.png").write_bytes(b"no picture")
    rows = predicted(trained("image"), tmp_path / "new", capsys)
    assert [row["path"] for row in rows] == ["1.png", "2.png", "3.png", "4.png"]
    assert [row.get("label", "-") for row in rows] == ["red", "-", "blue", "red"]
    assert "error" in rows[1]


def test_predict_one_image(trained, tmp_path: pathlib.Path, capsys) -> None:
    write_image(tmp_path / "one.png", "blue", np.random.default_rng(3))
    (row,) = predicted(trained("image"), tmp_path / "one.png", capsys)
    assert (row["path"], row["label"]) == (f"{tmp_path}/one.png", "blue")
    flags = [f"--run_dir={trained('image')}/run", f"--input={tmp_path}/two.png"]
    assert line.main(["--mode=predict", *flags]) == 2
    assert "there is no such image" in capsys.readouterr().err


OWN_HEAD = """
import keras

@keras.saving.register_keras_serializable(package="of_my_own")
class OwnHead(keras.layers.Dense):
    pass
"""


def test_a_layer_of_ones_own_is_found_again(
    trained, tmp_path: pathlib.Path, capsys, monkeypatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "module_of_my_own.py").write_text(OWN_HEAD)
    (tmp_path / "own.gin").write_text(
        "from __gin__ import dynamic_registration\n"
        "import module_of_my_own\n"
        "from tflearn import objectives\n"
        "objectives.classification.head = @module_of_my_own.OwnHead\n"
    )
    files = [
        f"--gin_file={trained('vector')}/tiny.gin",
        f"--gin_file={tmp_path}/own.gin",
    ]
    assert line.main([*files, f"--output_dir={tmp_path}/run"]) == 0
    for mode in ("predict", "evaluate"):
        # As in a new process.
        sys.modules.pop("module_of_my_own", None)
        keras.saving.get_custom_objects().pop("of_my_own>OwnHead", None)
        stdin(monkeypatch, '{"x": 3, "y": 0}')
        capsys.readouterr()
        more = ["--input=-"] if mode == "predict" else []
        assert line.main([f"--mode={mode}", f"--run_dir={tmp_path}/run", *more]) == 0
        shown = capsys.readouterr().out
        assert ("accuracy" if mode == "evaluate" else '"label": "right"') in shown
    keras.saving.get_custom_objects().pop("of_my_own>OwnHead", None)


def test_check_prints_what_would_run_and_writes_nothing(
    trained, tmp_path, capsys, monkeypatch
) -> None:
    folder = trained("text")
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert line.main(["--mode=check", f"--gin_file={folder}/tiny.gin"]) == 0
    shown = capsys.readouterr().out
    for part in (
        "experiment  tiny, seed 0",
        "BertBackbone",
        "backbone/transformer_layer_0",
        "head/logits",
        "AdamW(",
        "40 steps = 40 steps of 16 examples",
        "nothing was trained",
    ):
        assert part in shown, part
    assert re.search(r"examples +18 +18", shown)
    assert not list(tmp_path.iterdir())


def test_a_prompt_that_leaves_no_room_for_the_text_is_found_before_training(
    trained, capsys
) -> None:
    flags = [
        "--mode=check",
        f"--gin_file={trained('text')}/tiny.gin",
        "--gin_bindings=experiment.Stage.regime = @regimes.prompt()",
    ]
    assert line.main([*flags, "--gin_bindings=regimes.prompt.length = 4"]) == 0
    assert line.main([*flags, "--gin_bindings=regimes.prompt.length = 5"]) == 2
    assert "12 tokens and a prompt of 5" in capsys.readouterr().err


@pytest.mark.first_on("jax")
def test_compare_runs_every_arm_and_retrains_nothing(
    trained, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = trained("vector")
    declared, out = tmp_path / "compared.gin", tmp_path / "out"
    declared.write_text(COMPARISON)
    files = [f"--gin_file={folder}/tiny.gin", f"--gin_file={declared}"]
    flags = ["--mode=compare", *files, f"--output_dir={out}"]
    assert line.main(flags) == 0
    shown = capsys.readouterr().out
    assert "scratch" in shown
    assert "frozen" in shown
    assert (out / "compare.html").exists()
    first = json.loads((out / "compare.json").read_text())
    runs = sorted(out.glob("*/**/report.json"))
    stamps = {path: path.stat().st_mtime_ns for path in runs}
    # Two seeds of: the shared stage, and in each arm the run and its two stages.
    assert len(runs) == 2 * (2 + 2 * 3)
    assert line.main(flags) == 0
    assert "is finished" in capsys.readouterr().out
    assert stamps == {path: path.stat().st_mtime_ns for path in runs}
    assert json.loads((out / "compare.json").read_text()) == first
