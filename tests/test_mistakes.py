"""What a user can get wrong ends in one message, exit code 2, and nothing written."""

from __future__ import annotations

import importlib
import importlib.util
import io
import pathlib
import tarfile

import keras
import numpy as np
import pytest
from PIL import Image

line = importlib.import_module("tflearn.run")

DECLARED = """
from __gin__ import dynamic_registration
import keras
from tflearn import backbones
from tflearn import data
from tflearn import experiment
from tflearn import heads
from tflearn import objectives
from tflearn import regimes
from tflearn.data import sources
from tflearn.training import optimizers
from tests import mistakes_models

experiment.Experiment.backbone = @backbones.function
experiment.Experiment.stages = (@experiment.Stage(),)
backbones.function.build = @mistakes_models.perceptron
experiment.Stage.name = 'tune'
experiment.Stage.data = @data.Data
experiment.Stage.objective = @objectives.classification
experiment.Stage.regime = @regimes.full()
experiment.Stage.optimizer = @optimizers.adamw
experiment.Stage.budget = '1 epochs'
experiment.Stage.batch_size = 4
data.Data.source = @sources.csv
data.Data.input = ('x', 'y')
sources.csv.paths = {'train': 'train.csv', 'test': 'test.csv'}
"""

# What is added to a declaration that works, and what the message must say.
GIN = {
    "unknown module": ("import keras_hubb", "keras_hubb"),
    "unknown name": ("experiment.Stage.optimizer = @optimizers.adamm", "adamw"),
    "unknown class": ("experiment.Stagee.budget = '1 epoch'", "Stage"),
    "misspelt parameter": ("experiment.Stage.buget = '1 epoch'", "budget"),
    "wrong type": ("experiment.Stage.batch_size = 'many'", "batch_size"),
    "text for a factory": ("experiment.Stage.data = 'train.csv'", "data"),
    "missing macro": ("experiment.Stage.budget = %LENGTH", "LENGTH"),
    "required macro": (
        "RATE = %gin.REQUIRED\noptimizers.adamw.learning_rate = %RATE",
        "RATE",
    ),
    "scope that is never entered": ("tun/experiment.Stage.budget = '2 epochs'", "tun"),
    "syntax": ("experiment.Stage.budget = ", "mistake.gin"),
    "include of itself": ("include 'mistake.gin'", "circle"),
    "include of nothing": ("include 'datta/sst2.gin'", "data/sst2.gin"),
    "bound but not used": ("sources.tsv.folder = 'x'", "tsv"),
}

DECLARATIONS = {
    "budget": ("experiment.Stage.budget = '3 epoches'", "epochs"),
    "batch size": ("experiment.Stage.batch_size = 0", "at least 1"),
    "schedule": ("optimizers.adamw.schedule = 'cosin'", "cosine"),
    "warm-up": ("optimizers.adamw.warmup = 2.0", "share of the run"),
    "learning rate": ("optimizers.adamw.learning_rate = -1.0", "above 0"),
    "smoothing": ("objectives.classification.label_smoothing = 1.5", "share"),
    "features": ("objectives.classification.features = 'sequense'", "vector"),
    "precision": ("experiment.Experiment.precision = 'bfloat61'", "mixed_bfloat16"),
    "pattern": (
        "experiment.Stage.regime = (@regimes.freeze(),)\n"
        "regimes.freeze.pattern = 'backbon/*'",
        "backbone/block_0",
    ),
    "uncovered layer": (
        "experiment.Stage.regime = (@regimes.train(),)\nregimes.train.pattern = 'head'",
        "no rule covers",
    ),
    "too many blocks": (
        "experiment.Stage.regime = @regimes.partial()\nregimes.partial.last = 9",
        "so many blocks",
    ),
    "one name twice": (
        "experiment.Experiment.stages = (@experiment.Stage(), @experiment.Stage())",
        "one name",
    ),
    "subclassed backbone": (
        "backbones.function.build = @mistakes_models.subclassed",
        "functional",
    ),
    "backbone that is no model": (
        "backbones.function.build = @mistakes_models.nothing",
        "functional",
    ),
    "preset that does not exist": (
        "# instead of backbones.function.build = \n"
        "experiment.Experiment.backbone = @backbones.preset\n"
        "backbones.preset.name = 'bert_tiny_en_uncassed'",
        "bert_tiny_en_uncased",
    ),
    "package that is not installed": (
        "# instead of backbones.function.build = \n"
        "experiment.Experiment.backbone = @backbones.preset\n"
        "backbones.preset.name = 'package:no_such_package/model'",
        "no_such_package",
    ),
    "head of another width": (
        "objectives.classification.head = @mistakes_models.narrow_head",
        "another shape",
    ),
    "balance": ("data.Data.balance = 'samplin'", "sampling"),
    "shares": ("data.Data.splits = {'train': 0.9, 'test': 0.9}", "splits|share"),
}

GOOD = "x,y,label\n" + "".join(f"{i},{-i},{'ab'[i % 2]}\n" for i in range(1, 9))
TEST = "x,y,label\n100,1,a\n101,1,b\n"

# Files of data, and what the message must say.
DATA = {
    "no file": ({"train.csv": None}, "train.csv"),
    "empty file": ({"train.csv": ""}, "train.csv"),
    "header alone": ({"train.csv": "x,y,label\n"}, "train.csv"),
    "no such column": ({"train.csv": GOOD.replace("label", "lable", 1)}, "lable"),
    "too few fields": ({"train.csv": GOOD + "7,8\n"}, "train.csv:10"),
    "not a number": ({"train.csv": GOOD + "seven,8,a\n"}, "train.csv:10"),
    "nan": ({"train.csv": GOOD + "nan,8,a\n"}, "train.csv:10"),
    "no label": ({"train.csv": GOOD + "7,8,\n"}, "train.csv:10"),
    "not UTF-8": ({"train.csv": GOOD.encode() + b"7,8,\xff\xfe\n"}, "train.csv:10"),
    "unknown label in test": ({"test.csv": TEST + "102,1,c\n"}, "test.csv:4"),
    "the same row in train and test": ({"test.csv": TEST + "1,-1,b\n"}, "test.csv:4"),
    "one class": (
        {"train.csv": "x,y,label\n1,2,a\n3,4,a\n", "test.csv": "x,y,label\n9,9,a\n"},
        "class",
    ),
}

FLAGS = {
    "unknown flag": (["--gin_fil=a.gin"], "--gin_file"),
    "unknown mode": (["--mode=trian", "--gin_file=a.gin"], "train"),
    "unknown backend": (["--backend=jaxx", "--gin_file=a.gin"], "jax"),
    "no gin file": (["--mode=train"], "--gin_file"),
    "gin file that is not there": (["--gin_file=quickstart/digit.gin"], "digits.gin"),
    "flag of another mode": (
        ["--mode=check", "--gin_file=a.gin", "--split=test"],
        "--split",
    ),
    "no such run": (["--mode=evaluate", "--run_dir=nowhere"], "nowhere"),
    "unfinished run": (
        ["--mode=predict", "--run_dir=.", "--input=-"],
        "no finished run",
    ),
    "format": (
        ["--mode=predict", "--run_dir=.", "--input=-", "--format=jsnl"],
        "jsonl",
    ),
    "a bare word": (["quickstart/digits.gin"], "unexpected word"),
}


@pytest.fixture
def fail(tmp_path, monkeypatch, capfd):
    """Runs the command line in an empty folder and returns its one message."""
    monkeypatch.chdir(tmp_path)

    def run(*flags: str) -> str:
        before = sorted(tmp_path.rglob("*"))
        code = line.main([f"--backend={keras.backend.backend()}", *flags])
        captured = capfd.readouterr()
        assert code == 2, captured.err
        assert sorted(tmp_path.rglob("*")) == before
        _, *messages = f"\n{captured.err}".split("\nerror: ")
        assert len(messages) == 1, captured.err
        assert "Traceback" not in captured.err + captured.out
        return messages[0]

    return run


def write(folder: pathlib.Path, addition: str = "", **files) -> None:
    declared = {"mistake.gin": without_rebound(addition) + addition}
    contents = {"train.csv": GOOD, "test.csv": TEST} | declared | files
    for name, content in contents.items():
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        elif content is not None:
            (folder / name).write_text(content)


def without_rebound(addition: str) -> str:
    """Takes out of the declaration what the addition binds anew."""
    lines = addition.replace("# instead of ", "").splitlines()
    bound = {text.split(" = ")[0] for text in lines if " = " in text}
    kept = (x for x in DECLARED.splitlines() if x.split(" = ")[0] not in bound)
    return "\n".join(kept) + "\n"


def test_the_declaration_itself_is_right(tmp_path, monkeypatch) -> None:
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    backend = f"--backend={keras.backend.backend()}"
    assert line.main([backend, "--gin_file=mistake.gin", "--mode=check"]) == 0


@pytest.mark.parametrize("name", [*GIN, *DECLARATIONS])
def test_mistakes_in_a_declaration(name: str, tmp_path, fail) -> None:
    addition, expected = (GIN | DECLARATIONS)[name]
    write(tmp_path, addition)
    message = fail("--gin_file=mistake.gin", "--output_dir=run")
    assert any(part in message for part in expected.split("|")), message
    if name in GIN:
        assert "mistake.gin" in message


@pytest.mark.parametrize("name", DATA)
def test_mistakes_in_data(name: str, tmp_path, fail) -> None:
    files, expected = DATA[name]
    write(tmp_path, **files)
    assert expected in fail("--gin_file=mistake.gin", "--output_dir=run")


@pytest.mark.parametrize("name", FLAGS)
def test_mistakes_in_flags(name: str, fail) -> None:
    flags, expected = FLAGS[name]
    assert expected in fail(*flags)


def test_a_broken_image_is_named(tmp_path, fail) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (4, 8, 8, 3), "uint8")
    with tarfile.open(tmp_path / "images.tar", "w") as archive:
        for number, array in enumerate(pixels):
            file = io.BytesIO()
            Image.fromarray(array).save(file, format="PNG")
            content = file.getvalue()[: 40 if number == 3 else None]
            entry = tarfile.TarInfo(f"train/{'ab'[number % 2]}/{number}.png")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    addition = (
        "data.Data.source = @sources.image_folder\n"
        "data.Data.input = 'image'\n"
        "sources.image_folder.paths = 'images.tar'\n"
        "backbones.function.build = @mistakes_models.convolution\n"
    )
    # The table of files is not read any more.
    base = without_rebound(addition + "sources.csv.paths = ''")
    write(tmp_path, **{"mistake.gin": base + addition})
    assert "3.png" in fail("--gin_file=mistake.gin", "--output_dir=run")


def test_a_foreign_output_directory_is_left_alone(tmp_path, fail) -> None:
    write(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    assert "holds no run" in fail("--gin_file=mistake.gin", "--output_dir=run")


@pytest.mark.skipif(bool(importlib.util.find_spec("gcsfs")), reason="would ask Google")
def test_a_bucket_is_no_folder(tmp_path, fail) -> None:
    write(tmp_path)
    output = "--output_dir=gs://bucket/run"
    assert "tflearn-gin[gcs]" in fail("--gin_file=mistake.gin", output)
    assert not (tmp_path / "gs:").exists()


def test_there_are_at_least_forty() -> None:
    assert len(GIN) + len(DECLARATIONS) + len(DATA) + len(FLAGS) >= 40
