"""Parsers of our own, given anything: they answer, or end in a `TflearnError`.

Whatever else escapes, or a parse that does not end, is a finding. Each test starts from
sound inputs and changes them, since pure noise rarely gets past the first check.
"""

from __future__ import annotations

import contextlib
import io
import json
import pathlib
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import h5py
import hypothesis
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tflearn import config
from tflearn.backbones.vocabularies import load_tokenizer
from tflearn.backbones.vocabularies.units import split_kmers
from tflearn.data import archives, images, sources
from tflearn.distribution import topology
from tflearn.evaluation import samplers
from tflearn.support import patterns, secrets
from tflearn.support.declarations.imports import Scanner
from tflearn.support.errors import TflearnError
from tflearn.support.safety import (
    arrays,
    hdf5,
    json_files,
    keras_files,
    labels,
    tensors,
    zips,
)
from tflearn.training import budgets

settings = hypothesis.settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


@contextlib.contextmanager
def only_our_errors() -> Iterator[None]:
    with contextlib.suppress(TflearnError):
        yield


def changed(sound: bytes) -> st.SearchStrategy[bytes]:
    """A sound file with some bytes replaced, cut off, put in or repeated."""
    place = st.integers(0, len(sound))
    edit = st.tuples(place, place, st.binary(max_size=12))

    def apply(edits: list[tuple[int, int, bytes]]) -> bytes:
        made = sound
        for begin, end, new in edits:
            made = made[:begin] + new + made[max(begin, min(end, begin + 16)) :]
        return made

    flipped = st.lists(
        st.tuples(st.integers(0, len(sound) - 1), st.integers(1, 255)), max_size=8
    ).map(lambda flips: _flipped(sound, flips))
    cut = place.map(lambda end: sound[:end])
    return st.one_of(st.lists(edit, max_size=4).map(apply), flipped, cut)


def _flipped(sound: bytes, flips: list[tuple[int, int]]) -> bytes:
    made = bytearray(sound)
    for place, mask in flips:
        made[place] ^= mask
    return bytes(made)


#: Text with what our small languages are made of.
WORDS = st.text(
    st.one_of(
        st.sampled_from(list("()[]{}|*?!:,./@%=#'\"\\ \n\t0123456789eE+-xkp")),
        st.characters(),
    ),
    max_size=60,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner)
    ),
    max_leaves=12,
)


# Texts in gin files and flags


@settings
@given(WORDS, WORDS)
def test_patterns(pattern: str, path: str) -> None:
    assert patterns.matches(pattern, path) in (True, False)


@settings
@given(st.one_of(WORDS, st.from_regex(r"\s?[0-9.e+]{1,400} ?[a-z]{1,9}")))
def test_budgets(text: str) -> None:
    with only_our_errors():
        assert budgets.parse(text).amount > 0


@settings
@given(st.one_of(WORDS, st.from_regex(r"(v5e|v5p|v6e):[0-9]{1,30}(x[0-9]+){0,9}")))
def test_topologies(text: str) -> None:
    with only_our_errors():
        assert 0 < topology.parse(text).chips <= topology.MAX_CHIPS


@settings
@given(
    st.one_of(
        WORDS,
        st.builds(
            "{}:{}".format,
            st.sampled_from(list(samplers.SAMPLERS)),
            st.one_of(st.integers(), st.floats(), WORDS),
        ),
    ),
    st.floats(),
)
def test_samplers(text: str, temperature: float) -> None:
    with only_our_errors():
        samplers.make_sampler(text, temperature=temperature)


GIN = """\
from __gin__ import dynamic_registration
import keras
from tflearn import experiment as e
include 'b.gin'
A = {'a': (1, 2.5), "b": [None, True]}
e.Experiment.name = 'a' 'b'
x/y/e.Experiment.seed = %A
e.Experiment.stages = (@x/e.Stage(), @e.Stage)
e.Stage:
  name = "c"
"""


@settings
@given(st.one_of(changed(GIN.encode()), WORDS.map(str.encode)))
def test_gin_files(content: bytes) -> None:
    text = content.decode(errors="replace")
    scanner = Scanner(search_paths=(), parse=config._parse)
    with only_our_errors():
        scanner.read_bindings(text)


@settings
@given(st.one_of(changed(b"A = (1, 2)\nA = [1"), WORDS.map(str.encode)))
def test_gin_bindings(content: bytes) -> None:
    with only_our_errors():
        config._reader().read_bindings(content.decode(errors="replace"))


@settings
@given(WORDS)
def test_redaction(text: str) -> None:
    once = secrets.redact(text)
    assert secrets.redact(once) == once
    assert secrets.same(once, text)


# Files


def written(path: pathlib.Path, content: bytes) -> pathlib.Path:
    path.write_bytes(content)
    return path


def _saved(save: Callable[[io.BytesIO], Any]) -> bytes:
    buffer = io.BytesIO()
    save(buffer)
    return buffer.getvalue()


def _h5(buffer: io.BytesIO) -> None:
    with h5py.File(buffer, "w") as file:
        file["layers/dense/vars/0"] = np.ones((2, 3), "f4")
        file["layers/dense/vars/1"] = h5py.SoftLink("/layers")


def _zip(buffer: io.BytesIO) -> None:
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/1.png", _IMAGE)
        archive.writestr("b/2.png", _IMAGE[::-1])


def _tar(buffer: io.BytesIO) -> None:
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in ("a/1.png", "b/2.png"):
            member = tarfile.TarInfo(name)
            member.size = len(_IMAGE)
            archive.addfile(member, io.BytesIO(_IMAGE))


def _keras(buffer: io.BytesIO) -> None:
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("metadata.json", "{}")
        described = {"class_name": "Functional", "config": {"layers": [{"a": 1}]}}
        archive.writestr("config.json", json.dumps(described))
        archive.writestr("model.weights.h5", _saved(_h5))


_IMAGE = _saved(lambda b: Image.new("RGB", (5, 3), (1, 2, 3)).save(b, "png"))
_JPEG = _saved(lambda b: Image.new("RGB", (16, 9), (1, 2, 3)).save(b, "jpeg"))
_GIF = _saved(lambda b: Image.new("P", (5, 3)).save(b, "gif"))
_TIFF = _saved(lambda b: Image.new("L", (5, 3)).save(b, "tiff"))
_LABELS = {
    "task": "class",
    "classes": ["a", "b"],
    "input": "text",
    "kind": "text",
    "max_length": 12,
    "truncate": False,
    "temperature": 1.5,
}
_VOCABULARY = {
    "kind": "kmers",
    "special_tokens": ["pad", "unknown"],
    "words": ["A", "C", "AC", "CA"],
    "k": 2,
    "stride": 1,
    "uppercase": True,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("fuzz")


@settings
@given(changed(_saved(_h5)))
def test_hdf5(content: bytes) -> None:
    with only_our_errors():
        hdf5.check_hdf5(io.BytesIO(content), "a.h5")


@settings
@given(st.data())
def test_safetensors(folder: pathlib.Path, data: st.DataObject) -> None:
    sound = safetensors.numpy.save(
        {"a": np.ones((2, 3), "f4"), "b": np.zeros(4, "i8")}, metadata={"x": "y"}
    )
    header = st.builds(
        lambda value: (
            struct.pack("<Q", len(json.dumps(value)))
            + b"%b" % (json.dumps(value).encode())
        ),
        JSON,
    )
    content = data.draw(st.one_of(changed(sound), header))
    with only_our_errors():
        tensors.load_safetensors(written(folder / "a.safetensors", content))


@settings
@given(st.data())
def test_npz(folder: pathlib.Path, data: st.DataObject) -> None:
    sound = _saved(lambda b: np.savez(b, a=np.ones((2, 3)), b=np.arange(4)))
    content = data.draw(changed(sound))
    with only_our_errors():
        arrays.load_npz(written(folder / "a.npz", content))


@settings
@given(st.data())
def test_keras_archives(folder: pathlib.Path, data: st.DataObject) -> None:
    content = data.draw(changed(_saved(_keras)))
    with only_our_errors():
        keras_files.check_keras_file(written(folder / "a.keras", content))


@settings
@given(JSON)
def test_configurations(value: Any) -> None:
    with only_our_errors():
        keras_files.check_config(value, "config.json")
        keras_files.foreign_modules(value)
        keras_files.mentions(value, ("keras_hub",))


@settings
@given(st.one_of(changed(json.dumps(_LABELS).encode()), st.binary(max_size=40)))
def test_json(content: bytes) -> None:
    with only_our_errors():
        json_files.parse(content, "a.json")


@settings
@given(st.data())
def test_labels(folder: pathlib.Path, data: st.DataObject) -> None:
    mixed = st.dictionaries(st.sampled_from(list(_LABELS)), JSON).map(
        lambda other: json.dumps(_LABELS | other).encode()
    )
    content = data.draw(st.one_of(changed(json.dumps(_LABELS).encode()), mixed))
    with only_our_errors():
        labels.read_labels(written(folder / "labels.json", content))


@settings
@given(st.data())
def test_vocabularies(folder: pathlib.Path, data: st.DataObject) -> None:
    mixed = st.dictionaries(st.sampled_from(list(_VOCABULARY)), JSON).map(
        lambda other: json.dumps(_VOCABULARY | other).encode()
    )
    content = data.draw(st.one_of(changed(json.dumps(_VOCABULARY).encode()), mixed))
    written(folder / "vocabulary.json", content)
    with only_our_errors():
        load_tokenizer(folder)(["ACACX"])


@settings
@given(st.text("ACGT", max_size=40), st.integers(1, 9), st.integers(1, 9))
def test_kmers_lose_nothing(text: str, k: int, stride: int) -> None:
    found = split_kmers(text, k=k, stride=min(stride, k))
    assert set("".join(found)) == set(text)


@settings
@given(st.data())
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_archives(kind: str, folder: pathlib.Path, data: st.DataObject) -> None:
    content = data.draw(changed(_saved({"zip": _zip, "tar": _tar}[kind])))
    path = written(folder / f"a.{kind}", content)
    with only_our_errors():
        for entry in archives.entries(str(path)):
            if entry.read is not None:
                images.Image(entry.read, entry.location).decode()


@settings
@given(st.one_of(*map(changed, (_IMAGE, _JPEG, _GIF, _TIFF)), st.binary(max_size=80)))
@pytest.mark.filterwarnings("ignore")
def test_images(content: bytes) -> None:
    with only_our_errors():
        assert images.Image(lambda: content, "a.png").decode().ndim == 3


TABLES: dict[str, tuple[Callable[..., Any], bytes]] = {
    "csv": (sources.csv, b'a,b\n"x, ""y""",1\nz,2\n'),
    "tsv": (sources.tsv, b"a\tb\nx\t1\n"),
    "jsonl": (sources.jsonl, b'{"a": "x", "b": [1, null]}\n{"a": "\\ud83d"}\n'),
    "txt": (sources.text_lines, b"first\n\nsecond\xc3\xa9\n"),
    "conll": (sources.conll, b"-DOCSTART- O\n\na O\nb B-X\n\nc O\n"),
}


@settings
@given(st.data())
@pytest.mark.parametrize("kind", TABLES)
def test_tables(kind: str, folder: pathlib.Path, data: st.DataObject) -> None:
    read, sound = TABLES[kind]
    content = data.draw(st.one_of(changed(sound), st.binary(max_size=60)))
    path = written(folder / f"a.{kind}", content)
    with only_our_errors():
        for table in read(str(path)).values():
            assert all(table.locate(i) for i in range(len(table)))


def test_a_size_that_is_in_proportion_passes() -> None:
    zips.check_size(2**20, 2**10, "a.zip")
