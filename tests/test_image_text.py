"""Images and captions through a whole run: sources, training, resume, evaluation."""

from __future__ import annotations

import csv
import importlib
import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from tflearn import backbones, config, experiment
from tflearn.data import Data, pipeline, sources, training_texts
from tflearn.support import files
from tflearn.support.errors import DataError, RunError
from tflearn.training import execution, forgetting

line = importlib.import_module("tflearn.run")

DECLARED = """
from __gin__ import dynamic_registration
import keras_hub
from tflearn import backbones
from tflearn import data
from tflearn import experiment
from tflearn import objectives
from tflearn import regimes
from tflearn.backbones import vocabularies
from tflearn.training import optimizers
from tests import mistakes_models

experiment.Experiment.name = 'captions'
experiment.Experiment.backbone = @backbones.function
backbones.function.build = @mistakes_models.convolution
experiment.Experiment.stages = (@experiment.Stage(),)
experiment.Stage.name = 'pretrain'
experiment.Stage.data = @data.Data
experiment.Stage.objective = @objectives.image_text
experiment.Stage.regime = @regimes.full()
experiment.Stage.optimizer = @optimizers.adamw
experiment.Stage.budget = '12 steps'
experiment.Stage.interval = 6
experiment.Stage.batch_size = 16
experiment.Stage.bootstrap = 20
optimizers.adamw.learning_rate = 0.02

objectives.image_text.text_backbone = @text/backbones.hub
objectives.image_text.dim = 8
objectives.image_text.views = @objectives.Views()
text/backbones.hub.architecture = @keras_hub.models.BertBackbone
text/backbones.hub.tokenizer = @vocabularies.wordpiece
vocabularies.wordpiece.texts = @data.training_texts
vocabularies.wordpiece.vocabulary_size = 100
data.training_texts.data = @data.Data
data.training_texts.column = 'caption'
keras_hub.models.BertBackbone.num_layers = 1
keras_hub.models.BertBackbone.num_heads = 1
keras_hub.models.BertBackbone.hidden_dim = 8
keras_hub.models.BertBackbone.intermediate_dim = 8
keras_hub.models.BertBackbone.max_sequence_length = 16
# Dropout shows whether a resumed run goes on with the same random numbers.
keras_hub.models.BertBackbone.dropout = 0.1

data.Data.source = @data.sources.image_table
data.Data.input = 'file'
data.Data.target = 'caption'
data.Data.slices = ('colour',)
data.sources.image_table.column = 'file'
data.sources.image_table.paths = {
    'train': 'train.csv', 'validation': 'validation.csv', 'test': 'test.csv',
}
data.sources.image_table.folder = 'FOLDER'
"""


def write_captions(folder: pathlib.Path, *, seed: int, **counts: int) -> None:
    """Writes tables of captions and the images that they name."""
    rows = iter(sources.drawn_shapes(sum(counts.values()), 16, seed))
    (folder / "images").mkdir(exist_ok=True)
    for split, count in counts.items():
        with (folder / f"{split}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["file", "caption", "colour"])
            for number in range(count):
                row = next(rows)
                name = f"images/{split}{number}.png"
                Image.fromarray(row["image"]).save(folder / name)
                writer.writerow([name, f"a {row['label']}", row["colour"]])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A folder with tables, images, `captions.gin`, and the finished run `run`."""
    folder = tmp_path_factory.mktemp("captions")
    write_captions(folder, seed=0, train=48, validation=16, test=36)
    (folder / "captions.gin").write_text(DECLARED.replace("FOLDER", str(folder)))
    flags = [f"--gin_file={folder}/captions.gin", f"--output_dir={folder}/run"]
    assert line.main(flags) == 0
    return folder


def reported(folder: pathlib.Path) -> dict:
    return json.loads((folder / "report.json").read_text())["stages"][0]


def exported(folder: pathlib.Path):
    return backbones.load_model(folder / "model/model.keras")


# --- Sources ---


def test_a_table_names_images_beside_it(trained: pathlib.Path) -> None:
    table = sources.image_table("test.csv", column="file", folder=str(trained))["all"]
    assert len(table) == 36
    assert table[3]["path"] == "images/test3.png"
    assert table[3]["file"].decode().shape == (16, 16, 3)
    elsewhere = sources.image_table(
        str(trained / "test.csv"), column="file", images_folder=str(trained)
    )["all"]
    np.testing.assert_array_equal(
        elsewhere[3]["file"].decode(), table[3]["file"].decode()
    )


def test_images_that_are_absent_are_unusable_rows(trained: pathlib.Path) -> None:
    rows = [{"image": "images/test0.png"}, {"image": "images/none.png"}, {"other": 1}]
    text = "\n".join(json.dumps(row | {"caption": "a"}) for row in rows)
    files.write_text(trained / "some.jsonl", text)
    data = Data(
        source=lambda: sources.image_table({"test": "some.jsonl"}, folder=str(trained)),
        input="image",
        target=None,
        bad_row_tolerance=1.0,
    )
    split = data.load(target_kind="none", require_train=False).splits["test"]
    assert len(split) == 1
    assert ["some.jsonl:2" in str(bad) for bad in split.bad] == [True, False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"paths": "test.xls"}, "known format"),
        ({"paths": "test.csv", "column": "files"}, "Did you mean 'file'"),
        ({"paths": "test.csv", "images_folder": "image"}, "Did you mean 'images'"),
    ],
)
def test_a_table_of_images_refuses_what_it_cannot_read(
    trained: pathlib.Path, arguments: dict, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        sources.image_table(**arguments, folder=str(trained))


def test_captions_are_made_of_columns_by_a_template() -> None:
    tables = sources.captioned(
        lambda: {"train": sources.drawn_shapes(2), "test": sources.drawn_shapes(1)},
        "a {shape} in {colour}",
    )
    assert [row["caption"] for row in tables["train"]] == [
        "a circle in red",
        "a circle in green",
    ]
    assert tables["test"][0]["image"].shape == (32, 32, 3)


@pytest.mark.parametrize("template", ["a drawing", "a {}", "a {label", "a {labl}"])
def test_a_template_names_columns(template: str) -> None:
    with pytest.raises(DataError):
        sources.captioned(lambda: sources.drawn_shapes(1), template)


def test_a_template_that_cannot_be_filled_is_one_message() -> None:
    with pytest.raises(DataError, match="cannot be filled"):
        sources.captioned(lambda: [{"label": "cat"}], "a {label:d}")


def test_a_caption_of_what_is_missing_is_a_bad_row() -> None:
    labels = ["cat", None, " ", float("nan")]
    rows = [{"vector": [float(n)], "label": x} for n, x in enumerate(labels)]
    data = Data(
        source=lambda: sources.captioned(
            lambda: [*rows, {"vector": [9.0]}], "a {label}"
        ),
        input="vector",
        target="caption",
        splits={"train": 1.0},
        bad_row_tolerance=0.8,
    )
    loaded = data.load(target_kind="text")
    assert loaded.splits["train"].targets.tolist() == ["a cat"]
    assert "4 of 5 rows left out" in loaded.notes[0]


def test_drawn_shapes_are_all_different() -> None:
    rows = sources.drawn_shapes(60, size=16)
    assert len({row["image"].tobytes() for row in rows}) == 60
    assert len({row["label"] for row in rows}) == 30
    with pytest.raises(DataError, match="at least 16"):
        sources.drawn_shapes(size=8)


def test_a_vocabulary_is_made_of_the_captions_for_training() -> None:
    def shapes() -> Data:
        return Data(
            source=lambda: sources.captioned(
                lambda: sources.drawn_shapes(40, size=16), "a {label}"
            ),
            input="image",
            target="caption",
            splits={"train": 0.5, "test": 0.5},
        )

    texts = training_texts(shapes, target_kind="text", column="caption")
    train = shapes().load(target_kind="text").splits["train"]
    assert texts == train.targets.tolist()
    with pytest.raises(DataError, match="depends on the kind of targets"):
        training_texts(shapes, column="caption")
    with pytest.raises(DataError, match="ndarray in the column 'image'"):
        training_texts(shapes, target_kind="text", column="image")


# --- The run ---


def test_a_run_learns_and_measures_retrieval(trained: pathlib.Path) -> None:
    stage = reported(trained / "run")
    losses = [row["loss"] for row in stage["history"]]
    assert losses[-1] < losses[0]
    assert "val_text_retrieval_accuracy" in stage["history"][0]
    metrics = stage["evaluations"]["test"]["metrics"]
    assert metrics["text_retrieval_accuracy"]["count"] == 36
    assert metrics["image_retrieval_accuracy"]["low"] is not None
    assert set(stage["evaluations"]["test"]["slices"]["colour"]) == set(
        sources.shapes.COLOURS
    )


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bits(
    trained: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    saved = execution.Checkpoints.save

    def save_then_die(self, *arguments, **keywords):
        saved(self, *arguments, **keywords)
        raise Killed

    def run() -> None:
        declared = config.load(str(trained / "captions.gin")).experiment()
        experiment.run(declared, output_dir=str(trained / "killed"))

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(execution.Checkpoints, "save", save_then_die)
        run()
    run()
    first, second = (reported(trained / name) for name in ("run", "killed"))
    assert first["history"] == second["history"]
    assert first["evaluations"] == second["evaluations"]
    for old, new in zip(
        exported(trained / "run").get_weights(),
        exported(trained / "killed").get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(old, new)


def test_the_model_works_without_the_run(trained: pathlib.Path) -> None:
    folder = trained / "run/model"
    images = backbones.load_encoder(folder / "encoder")
    texts = backbones.load_encoder(folder / "text_encoder")
    tokens = texts.collate(texts.tokenize(["a red circle", "a blue ring"]), 8)
    pixels = images.scale(np.zeros((2, 8, 8, 3), "uint8"))
    pairs = exported(trained / "run").predict_on_batch({"images": pixels, **tokens})
    assert pairs.shape == (2, 2, 8)
    np.testing.assert_allclose(np.linalg.norm(pairs[:, 1], axis=-1), 1, rtol=1e-5)


def test_the_backbone_of_images_goes_on_in_another_run(trained: pathlib.Path) -> None:
    backbone = backbones.from_run(trained / "run")
    assert backbone.kind == "image"
    inner = exported(trained / "run").get_layer("backbone")
    for old, new in zip(inner.get_weights(), backbone.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_batches_are_measured_in_random_order() -> None:
    class Compared(pipeline.Examples):
        kind, inputs, compared = "image", {}, True

        def __len__(self) -> int:
            return 40

        def batch(self, indices, *, length=None):
            return indices

    found = [list(pipeline.ordered_indices(Compared(), batch_size=16)) for _ in "ab"]
    first, again = (np.concatenate(parts) for parts in found)
    assert sorted(first.tolist()) == list(range(40))
    assert first.tolist() == again.tolist() != list(range(40))


# --- What one does with it ---


def test_evaluate_gives_the_metrics_of_the_report(trained, capsys) -> None:
    run = trained / "run"
    assert line.main(["--mode=evaluate", f"--run_dir={run}"]) == 0
    assert "text_retrieval_accuracy" in capsys.readouterr().out
    written = json.loads((run / "evaluations/test.json").read_text())
    expected = reported(run)["evaluations"]["test"]
    assert written["slices"].keys() == expected["slices"].keys()
    assert written["metrics"].keys() == expected["metrics"].keys()
    for name, found in expected["metrics"].items():
        # TensorFlow's threads do not always add in the same order.
        again = written["metrics"][name]
        assert again["count"] == found["count"] == 36
        for key in ("value", "low", "high"):
            assert again[key] == pytest.approx(found[key], rel=1e-5), (name, key)


def test_evaluate_on_other_data(trained, tmp_path) -> None:
    write_captions(tmp_path, seed=1, train=8, other=20)
    flags = ["--mode=evaluate", f"--run_dir={trained}/run"]
    assert line.main([*flags, f"--input={tmp_path}/other.csv"]) == 0
    written = json.loads((trained / "run/evaluations/other.csv.json").read_text())
    assert written["metrics"]["loss"]["count"] == 20


def test_a_vocabulary_made_of_other_captions_is_refused(
    trained, tmp_path, capsys
) -> None:
    write_captions(tmp_path, seed=1, train=3, test=3)
    paths = "{'train': 'train.csv', 'test': 'test.csv'}"
    flags = [
        "--mode=evaluate",
        f"--run_dir={trained}/run",
        f"--gin_bindings=data.sources.image_table.folder = '{tmp_path}'",
        f"--gin_bindings=data.sources.image_table.paths = {paths}",
    ]
    assert line.main(flags) == 2
    assert "another vocabulary" in capsys.readouterr().err
    of_run = [
        "--gin_bindings=text/backbones.hub.tokenizer = @vocabularies.of_run",
        f"--gin_bindings=vocabularies.of_run.path = '{trained}/run'",
        "--gin_bindings=vocabularies.of_run.encoder = 'text_encoder'",
    ]
    assert line.main([*flags, *of_run, f"--output={tmp_path}/new.json"]) == 0
    written = json.loads((tmp_path / "new.json").read_text())
    assert written["metrics"]["loss"]["count"] == 3


def test_predict_is_refused(trained, capsys) -> None:
    flags = [f"--run_dir={trained}/run", f"--input={trained}/images"]
    assert line.main(["--mode=predict", *flags]) == 2
    assert "no labels to predict" in capsys.readouterr().err


def test_start_from_needs_a_finished_run(tmp_path) -> None:
    with pytest.raises(RunError, match="holds no finished run"):
        forgetting.start_from(str(tmp_path), None)
