"""Malicious and broken files, each given to the door that a user gives it to.

`python tests/safe_loading_cases.py FOLDER RESULTS.json` makes every file, loads it in
this one process whose memory is limited, and writes what came of each. A payload that
runs makes a file `CANARY` in FOLDER; a file that is written elsewhere than in the
folder of its row is found by looking.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import logging
import os
import pathlib
import pickle
import resource
import shutil
import signal
import stat
import struct
import sys
import tarfile
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("CANARY", "CANARY")

import h5py
import keras
import numpy as np
import safetensors.numpy
from PIL import Image

from tflearn import backbones, config
from tflearn.backbones import encoder_files
from tflearn.backbones.vocabularies import load_tokenizer
from tflearn.data import images, sources
from tflearn.regimes import adapters
from tflearn.support.declarations import permissions
from tflearn.support.errors import TflearnError
from tflearn.support.safety import tensors
from tflearn.training import finished, fisher

SECONDS = 120
MEMORY_BYTES = 3 * 2**30
FILE_BYTES = 512 * 2**20
TERA = 2**40

Build = Callable[[pathlib.Path], Any]


class TooLong(BaseException):
    """A row took longer than the bound; not an Exception, so that nobody hides it."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A file and the door it is given to.

    Args:
        kind: Kind of the file.
        name: What is wrong with it.
        build: Makes it in a folder.
        load: Gives it to its door.
        outcome: `refused`, or `read` for what does no harm.
    """

    kind: str
    name: str
    build: Build
    load: Callable[[pathlib.Path], Any]
    outcome: str = "refused"


ROWS: list[Row] = []


def row(
    kind: str, name: str, load: Callable[[pathlib.Path], Any], outcome: str = "refused"
) -> Callable[[Build], Build]:
    def add(build: Build) -> Build:
        ROWS.append(Row(kind, name, build, load, outcome))
        return build

    return add


class Payload:
    """Pickled, it makes the canary when it is read back."""

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {os.environ['CANARY']}",))


def lambda_code() -> str:
    import marshal

    made = compile(
        f"__import__('os').system('touch {os.environ['CANARY']}')", "x", "eval"
    )
    import base64

    return base64.b64encode(marshal.dumps(made)).decode()


# Keras files


def tiny() -> keras.Model:
    inputs = keras.Input((4,), name="x")
    outputs = keras.layers.Dense(3, name="dense")(inputs)
    return keras.Model(inputs, outputs, name="tiny")


def saved(folder: pathlib.Path) -> dict[str, bytes]:
    """The members of a sound `.keras` file."""
    path = folder / "sound.keras"
    tiny().save(path)
    with zipfile.ZipFile(path) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    path.unlink()
    return found


def keras_file(
    folder: pathlib.Path,
    change: Callable[[dict[str, Any]], Any] | None = None,
    members: Callable[[dict[str, bytes]], Any] | None = None,
    compression: int = zipfile.ZIP_STORED,
) -> pathlib.Path:
    parts = saved(folder)
    if change is not None:
        described = json.loads(parts["config.json"])
        described = change(described) or described
        parts["config.json"] = json.dumps(described).encode()
    if members is not None:
        members(parts)
    path = folder / "model.keras"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def dense_of(described: dict[str, Any]) -> dict[str, Any]:
    return described["config"]["layers"][1]


def replaced(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda described: dense_of(described).update(fields)


def bound(**fields: Any) -> Callable[[dict[str, Any]], None]:
    return lambda described: dense_of(described)["config"].update(fields)


def keras_row(name: str, outcome: str = "refused") -> Callable[[Build], Build]:
    return row("keras", name, backbones.load_model, outcome)


CHANGED: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a Lambda layer": lambda d: replaced(
        class_name="Lambda",
        config={
            "name": "dense",
            "function": {
                "class_name": "__lambda__",
                "config": {"code": lambda_code(), "defaults": None, "closure": None},
            },
        },
    )(d),
    "a lambda as activation": lambda d: bound(
        activation={
            "class_name": "__lambda__",
            "config": {"value": [lambda_code(), None, None]},
        }
    )(d),
    "a SavedModel layer": replaced(
        class_name="TFSMLayer", config={"name": "dense", "filepath": "/tmp/x"}
    ),
    "a pickled Torch module": replaced(
        class_name="TorchModuleWrapper",
        config={"name": "dense", "module": "gASVIAAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOU"},
    ),
    "os.system as a layer": replaced(
        class_name="system", module="posix", registered_name=None
    ),
    "subprocess.Popen as a layer": replaced(
        class_name="Popen", module="subprocess", registered_name=None
    ),
    "a module that lies in the current folder": replaced(
        class_name="Layer",
        module="canary_module",
        registered_name="canary_module>Layer",
    ),
    "a function that switches safe mode off": bound(
        activation={
            "module": "keras.config",
            "class_name": "function",
            "config": "enable_unsafe_deserialization",
            "registered_name": "enable_unsafe_deserialization",
        }
    ),
    "a function that downloads and unpacks": bound(
        activation={
            "module": "keras.utils",
            "class_name": "function",
            "config": "get_file",
            "registered_name": "get_file",
        }
    ),
    "a Lambda in a wrapper": replaced(
        module="keras.layers",
        class_name="TimeDistributed",
        registered_name=None,
        config={
            "name": "dense",
            "layer": {
                "module": "keras.layers",
                "class_name": "Lambda",
                "config": {"function": lambda_code()},
            },
        },
    ),
    "a builtin that runs text": bound(
        activation={
            "module": "builtins",
            "class_name": "function",
            "config": "eval",
            "registered_name": "function",
        }
    ),
    "weights of terabytes": bound(units=10**12),
    "a billion blocks": replaced(
        module="keras_hub.models",
        class_name="BertBackbone",
        config={"num_layers": 10**9, "vocabulary_size": 9, "hidden_dim": 8},
    ),
    "a table for a number": bound(units={"a": 1}),
    "no layers": lambda d: {"class_name": "Functional", "config": None},
    "a list for a table": lambda d: [d],
    "a lookup layer that reads a file": replaced(
        class_name="StringLookup",
        config={"name": "dense", "vocabulary": "/etc/passwd"},
    ),
}
for _name, _change in CHANGED.items():
    keras_row(_name)(lambda folder, change=_change: keras_file(folder, change))


@keras_row("JSON of great depth")
def _(folder: pathlib.Path) -> Any:
    return keras_file(
        folder, members=lambda m: m.update({"config.json": b"[" * 10**6 + b"]" * 10**6})
    )


@keras_row("no JSON")
def _(folder: pathlib.Path) -> Any:
    return keras_file(folder, members=lambda m: m.update({"config.json": b"\xff\x00"}))


@keras_row("a member outside of the folder")
def _(folder: pathlib.Path) -> Any:
    evil = {"assets/../../../escaped": b"x"}
    return keras_file(folder, members=lambda m: m.update(evil))


@keras_row("a member with an absolute path")
def _(folder: pathlib.Path) -> Any:
    evil = {f"{folder.parent}/escaped": b"x"}
    return keras_file(folder, members=lambda m: m.update(evil))


@keras_row("two configurations")
def _(folder: pathlib.Path) -> Any:
    path = keras_file(folder)
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("config.json", "{}")
    return path


@keras_row("a link among the members")
def _(folder: pathlib.Path) -> Any:
    path = keras_file(folder)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zip_link("assets/link"), "/etc/passwd")
    return path


@keras_row("weights that unpack to gigabytes")
def _(folder: pathlib.Path) -> Any:
    path = keras_file(folder, members=lambda m: m.pop("model.weights.h5"))
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("model.weights.h5", "w", force_zip64=True) as member:
            for _ in range(400):
                member.write(bytes(2**20))
    return path


@keras_row("a configuration that unpacks to gigabytes")
def _(folder: pathlib.Path) -> Any:
    return keras_file(
        folder,
        members=lambda m: m.update({"config.json": b" " * 2**27}),
        compression=zipfile.ZIP_DEFLATED,
    )


@keras_row("no weights")
def _(folder: pathlib.Path) -> Any:
    return keras_file(folder, members=lambda m: m.pop("model.weights.h5"))


@keras_row("pickled weights")
def _(folder: pathlib.Path) -> Any:
    evil = io.BytesIO()
    np.savez(evil, a=np.array([Payload()], dtype=object))

    def change(parts: dict[str, bytes]) -> None:
        del parts["model.weights.h5"]
        parts["model.weights.npz"] = evil.getvalue()

    return keras_file(folder, members=change)


@keras_row("a pickle under this name")
def _(folder: pathlib.Path) -> Any:
    path = folder / "model.keras"
    path.write_bytes(pickle.dumps(Payload()))
    return path


@keras_row("cut in two")
def _(folder: pathlib.Path) -> Any:
    path = keras_file(folder)
    path.write_bytes(path.read_bytes()[:-200])
    return path


@keras_row("an external link among the weights")
def _(folder: pathlib.Path) -> Any:
    secret = folder / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["v"] = np.ones(3)
    with h5py.File(folder / "w.h5", "w") as file:
        file["layers/dense/vars/0"] = h5py.ExternalLink(str(secret), "/v")
    content = (folder / "w.h5").read_bytes()
    return keras_file(folder, members=lambda m: m.update({"model.weights.h5": content}))


@keras_row("a shape of terabytes among packed weights")
def _(folder: pathlib.Path) -> Any:
    with h5py.File(folder / "w.h5", "w") as file:
        file.create_dataset("layers/dense/vars/0", (TERA,), "f4", chunks=(2**20,))
    content = (folder / "w.h5").read_bytes()
    return keras_file(
        folder,
        members=lambda m: m.update({"model.weights.h5": content}),
        compression=zipfile.ZIP_DEFLATED,
    )


# HDF5


def h5_row(name: str) -> Callable[[Build], Build]:
    def add(build: Build) -> Build:
        def whole(folder: pathlib.Path) -> pathlib.Path:
            path = folder / "model.weights.h5"
            with h5py.File(path, "w") as file:
                build(file)  # type: ignore[arg-type]
            return path

        return row("h5", name, read_h5)(whole)

    return add


def read_h5(path: pathlib.Path) -> Any:
    return backbones.read_weights(path, like=tiny())


@h5_row("an external link")
def _(file: Any) -> Any:
    file["layers/dense/vars/0"] = h5py.ExternalLink("/etc/passwd", "/a")


@h5_row("a soft link")
def _(file: Any) -> Any:
    file["a"] = np.ones(3)
    file["layers/dense/vars/0"] = h5py.SoftLink("/a")


@h5_row("storage in another file")
def _(file: Any) -> Any:
    file.create_dataset("a", (16,), "u1", external=[("/etc/passwd", 0, 16)])


@h5_row("a virtual dataset")
def _(file: Any) -> Any:
    layout = h5py.VirtualLayout(shape=(4,), dtype="f4")
    layout[:] = h5py.VirtualSource("/etc/hostname", "a", shape=(4,))
    file.create_virtual_dataset("a", layout)


@h5_row("a shape of terabytes, nothing stored")
def _(file: Any) -> Any:
    file.create_dataset("a", (TERA,), "f8")


@h5_row("gigabytes packed into kilobytes")
def _(file: Any) -> Any:
    made = file.create_dataset(
        "a", (2**31,), "u1", chunks=(2**24,), compression="gzip", compression_opts=9
    )
    for begin in range(0, 2**27, 2**24):
        made[begin : begin + 2**24] = np.zeros(2**24, "u1")


@h5_row("many datasets that add up")
def _(file: Any) -> Any:
    for number in range(200):
        file.create_dataset(f"a{number}", (2**23,), "f8")


@h5_row("texts of any length for numbers")
def _(file: Any) -> Any:
    file.create_dataset("a", data=["x" * 1000], dtype=h5py.string_dtype())


@h5_row("references for numbers")
def _(file: Any) -> Any:
    made = file.create_dataset("a", (1,), dtype=h5py.ref_dtype)
    made[0] = file.ref


@h5_row("a filter that would be loaded as a library")
def _(file: Any) -> Any:
    created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    created.set_chunk((4,))
    created.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, ())
    space = h5py.h5s.create_simple((4,))
    h5py.h5d.create(file.id, b"a", h5py.h5t.NATIVE_FLOAT, space, created)


@h5_row("a group that holds itself")
def _(file: Any) -> Any:
    file.create_group("a/b")
    file["a/b/c"] = file["a"]


@h5_row("groups of great depth")
def _(file: Any) -> Any:
    file.create_group("/".join("g" * 500))


@row("h5", "cut in two", read_h5)
def _(folder: pathlib.Path) -> Any:
    path = folder / "model.weights.h5"
    tiny().save_weights(path)
    path.write_bytes(path.read_bytes()[:1000])
    return path


@row("h5", "no HDF5 at all", read_h5)
def _(folder: pathlib.Path) -> Any:
    path = folder / "model.weights.h5"
    path.write_bytes(pickle.dumps(Payload()))
    return path


# safetensors


def tensor_file(path: pathlib.Path, header: Any, data: bytes = b"") -> pathlib.Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(shape: list[Any], begin: int, end: int, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


HEADERS: dict[str, tuple[Any, bytes]] = {
    "offsets behind the end": ({"a": entry([2], 0, 8)}, bytes(4)),
    "a shape of terabytes": ({"a": entry([TERA], 0, 4)}, bytes(4)),
    "a shape that overflows": ({"a": entry([2**62, 2**62, 4], 0, 4)}, bytes(4)),
    "tensors that overlap": ({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, bytes(4)),
    "a gap": ({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, bytes(12)),
    "negative offsets": ({"a": entry([1], -4, 0)}, bytes(4)),
    "an unknown type": ({"a": entry([1], 0, 4, "OBJECT")}, bytes(4)),
    "a header that is a list": ([1, 2], b""),
    "a header of great depth": (b"[" * 10**5, b""),
    "a header that is no text": (b"\xff\xfe{}", b""),
    "metadata that are no texts": ({"__metadata__": {"a": {"b": []}}}, b""),
    "more bytes than the header names": ({"a": entry([1], 0, 4)}, bytes(400)),
}
for _name, (_header, _data) in HEADERS.items():
    row("safetensors", _name, tensors.load_safetensors)(
        lambda folder, header=_header, data=_data: tensor_file(
            folder / "a.safetensors", header, data
        )
    )


@row("safetensors", "a header of exabytes", tensors.load_safetensors)
def _(folder: pathlib.Path) -> Any:
    path = folder / "a.safetensors"
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    return path


@row("safetensors", "no header", tensors.load_safetensors)
def _(folder: pathlib.Path) -> Any:
    path = folder / "a.safetensors"
    path.write_bytes(b"\x00" * 5)
    return path


def adapted(path: pathlib.Path) -> Any:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3, name="dense")(inputs))
    return adapters.load_adapter(model, path)


def adapter_file(folder: pathlib.Path, header: str) -> pathlib.Path:
    path = folder / "adapter.safetensors"
    metadata = {"format": "tflearn-adapters-1", "adapters": header}
    values = {"dense/a": np.zeros((2, 2), "f4")}
    digest = adapters.files._digest(values)
    metadata["digest"] = digest
    path.write_bytes(safetensors.numpy.save(values, metadata=metadata))
    return path


ADAPTERS = {
    "an adapter of enormous rank": json.dumps(
        {"dense": {"kind": "lora", "options": {"rank": 10**12}}}
    ),
    "an adapter of no known kind": '{"dense": {"kind": "os.system", "options": {}}}',
    "an adapter's header that is no JSON": "{",
    "an adapter's header that is a list": "[1]",
    "an adapter's options that are a text": json.dumps(
        {"dense": {"kind": "lora", "options": "x"}}
    ),
}
for _name, _text in ADAPTERS.items():
    row("safetensors", _name, adapted)(
        lambda folder, text=_text: adapter_file(folder, text)
    )


# Folders of presets


def preset(folder: pathlib.Path) -> Any:
    return backbones.preset(str(folder))


def preset_folder(
    folder: pathlib.Path, config_: dict[str, Any], weights: bytes | None = None
) -> pathlib.Path:
    path = folder / "preset"
    path.mkdir()
    described = {
        "module": "keras_hub.src.models.bert.bert_backbone",
        "class_name": "BertBackbone",
        "config": {
            "vocabulary_size": 9,
            "num_layers": 1,
            "num_heads": 1,
            "hidden_dim": 4,
            "intermediate_dim": 4,
        },
        "registered_name": "keras_hub>BertBackbone",
    }
    described["config"] |= config_.pop("config", {})
    described |= config_
    (path / "config.json").write_text(json.dumps(described))
    if weights is None:
        tiny().save_weights(path / "model.weights.h5")
    else:
        (path / "model.weights.h5").write_bytes(weights)
    return path


PRESETS: dict[str, dict[str, Any]] = {
    "a backbone that is a Lambda": {"module": "keras.layers", "class_name": "Lambda"},
    "a backbone of another module": {"module": "subprocess", "class_name": "Popen"},
    "a vocabulary of terabytes": {"config": {"vocabulary_size": TERA}},
    "a billion layers": {"config": {"num_layers": 10**9}},
}
for _name, _described in PRESETS.items():
    row("preset", _name, preset)(
        lambda folder, d=_described: preset_folder(folder, {**d})
    )


@row("preset", "weights with an external link", preset)
def _(folder: pathlib.Path) -> Any:
    with h5py.File(folder / "w.h5", "w") as file:
        file["a"] = h5py.ExternalLink("/etc/passwd", "/a")
    return preset_folder(folder, {}, (folder / "w.h5").read_bytes())


@row("preset", "an index that names files elsewhere", preset)
def _(folder: pathlib.Path) -> Any:
    path = preset_folder(folder, {})
    index = {"weight_map": {"a": "../../../etc/passwd"}}
    (path / "model.weights.json").write_text(json.dumps(index))
    return path


@row("preset", "pickled weights of Torch", preset)
def _(folder: pathlib.Path) -> Any:
    path = folder / "preset"
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (path / "pytorch_model.bin").write_bytes(pickle.dumps(Payload()))
    return path


# NumPy archives


def npz(path: pathlib.Path) -> Any:
    return sources.npz(str(path))


def npz_of(folder: pathlib.Path, members: dict[str, bytes]) -> pathlib.Path:
    path = folder / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def header(shape: str, descr: str = "<f8") -> str:
    return f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}"


NPY: dict[str, Callable[[], bytes]] = {
    "a shape of terabytes": lambda: npy(header(f"({TERA},)")),
    "a negative shape": lambda: npy(header("(-1, -8)"), bytes(64)),
    "a header that is an expression": lambda: npy(
        "__import__('os').system('touch CANARY') or {'descr': '<f8'}"
    ),
    "a header of great depth": lambda: npy("(" * 5000 + ")" * 5000),
    "a type of Python objects": lambda: npy(
        header("(1,)", "|O"), pickle.dumps(Payload())
    ),
    "no header": lambda: b"nothing",
    "gigabytes of zeros": lambda: npy(header(f"({2**27},)", "|u1"), bytes(2**27)),
}
for _name, _content in NPY.items():
    row("npz", _name, npz)(
        lambda folder, content=_content: npz_of(folder, {"label.npy": content()})
    )


@row("npz", "objects that were saved with pickle", npz)
def _(folder: pathlib.Path) -> Any:
    np.savez(folder / "a.npz", label=np.array([Payload()], dtype=object))
    return folder / "a.npz"


@row("npz", "a pickle under this name", npz)
def _(folder: pathlib.Path) -> Any:
    path = folder / "a.npz"
    path.write_bytes(pickle.dumps(Payload()))
    return path


@row("npz", "Fisher information as a pickle", fisher.read)
def _(folder: pathlib.Path) -> Any:
    path = folder / "fisher.npz"
    path.write_bytes(pickle.dumps(Payload()))
    return path


# Images


def image(path: pathlib.Path) -> Any:
    return images.open_image(str(path)).decode()


def chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IEND", b"")


def encoded(kind: str, size: int = 64) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (size, size, 3), "uint8")
    Image.fromarray(noise).save(buffer, kind)
    return buffer.getvalue()


IMAGES: dict[str, Callable[[], bytes]] = {
    "a PNG of ten billion pixels": lambda: png(
        100_000, 100_000, chunk(b"IDAT", zlib.compress(bytes(1000)))
    ),
    "a PNG of the largest size there is": lambda: png(2**31 - 1, 2**31 - 1),
    "a PNG just above the bound": lambda: png(2**13, 2**13 + 1),
    "a PNG whose comment unpacks to gigabytes": lambda: png(
        4, 4, chunk(b"zTXt", b"a\x00\x00" + zlib.compress(bytes(2**27)))
    ),
    "a PNG with a wrong checksum": lambda: encoded("png").replace(b"IDAT", b"IDAT\x00"),
    "a PNG cut in two": lambda: encoded("png")[:500],
    "a JPEG cut in two": lambda: encoded("jpeg")[:500],
    "a GIF of four billion pixels": lambda: b"GIF89a\xff\xff\xff\xff\x00\x00\x00;",
    "a BMP of negative size": lambda: (
        b"BM"
        + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, -(2**30), -(2**30), 1, 24, 0, 0, 0, 0, 0, 0)
    ),
    "a TIFF of a trillion pixels": lambda: (
        b"II*\x00\x08\x00\x00\x00"
        + struct.pack("<H", 2)
        + struct.pack("<HHII", 256, 4, 1, 10**6)
        + struct.pack("<HHII", 257, 4, 1, 10**6)
        + bytes(4)
    ),
    "a PPM of a trillion pixels": lambda: b"P6 1000000 1000000 255\n",
    "a WebP that is none": lambda: b"RIFF\xff\xff\xff\xffWEBPVP8 garbage",
    "a PostScript program": lambda: (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(CANARY) (w) file\n"
    ),
    "an SVG with a script": lambda: b"<svg><script>alert(1)</script></svg>",
    "a zip file": lambda: b"PK\x03\x04" + bytes(100),
    "nothing": lambda: b"",
}
for _name, _made in IMAGES.items():

    def _build(folder: pathlib.Path, made: Callable[[], bytes] = _made) -> pathlib.Path:
        path = folder / "a.png"
        path.write_bytes(made())
        return path

    row("image", _name, image)(_build)


# Archives of images


def archive_of(path: pathlib.Path) -> Any:
    tables = sources.image_folder(str(path))
    return [one.decode() for table in tables.values() for one in table.column("image")]


def zip_link(name: str) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.create_system = 3
    made.external_attr = (stat.S_IFLNK | 0o777) << 16
    return made


def tar_of(folder: pathlib.Path, **fields: Any) -> pathlib.Path:
    path = folder / "a.tar"
    with tarfile.open(path, "w") as archive:
        content = encoded("png", 4)
        sound = tarfile.TarInfo("a/sound.png")
        sound.size = len(content)
        archive.addfile(sound, io.BytesIO(content))
        evil = tarfile.TarInfo("b/evil.png")
        for name, value in fields.items():
            setattr(evil, name, value)
        archive.addfile(evil)
    return path


TARS = {
    "a tar with a link to a file": {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
    "a tar with a hard link": {"type": tarfile.LNKTYPE, "linkname": "../../escaped"},
    "a tar with a device": {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 5},
    "a tar with a pipe": {"type": tarfile.FIFOTYPE},
}
for _name, _fields in TARS.items():
    row("archive", _name, archive_of)(
        lambda folder, fields=_fields: tar_of(folder, **fields)
    )


@row("archive", "a tar member that ends behind the file", archive_of)
def _(folder: pathlib.Path) -> Any:
    path = folder / "a.tar"
    member = tarfile.TarInfo("a/1.png")
    member.size = TERA
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    return path


@row("archive", "a packed tar whose header unpacks to gigabytes", archive_of)
def _(folder: pathlib.Path) -> Any:
    path = folder / "a.tar.gz"
    member = tarfile.TarInfo("pax")
    member.type, member.size = tarfile.XHDTYPE, 2**34
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(member.tobuf(tarfile.GNU_FORMAT))
        for _ in range(256):
            file.write(bytes(2**20))
    return path


@row("archive", "a zip whose image unpacks to gigabytes", archive_of)
def _(folder: pathlib.Path) -> Any:
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("a/1.png", "w", force_zip64=True) as member:
            for _ in range(300):
                member.write(bytes(2**20))
    return folder / "a.zip"


@row("archive", "a zip with a link", archive_of)
def _(folder: pathlib.Path) -> Any:
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr(zip_link("a/1.png"), "/etc/passwd")
    return folder / "a.zip"


@row("archive", "a zip with two members of one name", archive_of)
def _(folder: pathlib.Path) -> Any:
    with warnings.catch_warnings(), zipfile.ZipFile(folder / "a.zip", "w") as archive:
        warnings.simplefilter("ignore")
        for size in (4, 8):
            archive.writestr("a/1.png", encoded("png", size))
    return folder / "a.zip"


@row("archive", "a zip whose members would lie elsewhere", archive_of, "read")
def _(folder: pathlib.Path) -> Any:
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("../../escaped/a/1.png", encoded("png", 4))
        archive.writestr("/escaped/b/2.png", encoded("png", 8))
    return folder / "a.zip"


@row("archive", "a zip cut in two", archive_of)
def _(folder: pathlib.Path) -> Any:
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("a/1.png", encoded("png"))
    path = folder / "a.zip"
    path.write_bytes(path.read_bytes()[:2000])
    return path


@row("archive", "a folder that holds itself", archive_of)
def _(folder: pathlib.Path) -> Any:
    (folder / "images" / "a").mkdir(parents=True)
    (folder / "images" / "a" / "again").symlink_to(folder / "images")
    return folder / "images"


# Tables and texts


def text_row(
    name: str, suffix: str, read: Callable[..., Any], outcome: str = "refused"
) -> Callable[[Callable[[], bytes]], Any]:
    def add(made: Callable[[], bytes]) -> Any:
        def build(folder: pathlib.Path) -> pathlib.Path:
            path = folder / f"a{suffix}"
            path.write_bytes(made())
            return path

        def load(path: pathlib.Path) -> Any:
            tables = read(str(path))
            found = [table for table in tables.values() if len(table)]
            if not found:
                bad = [str(x) for table in tables.values() for x in table.bad]
                raise TflearnError("no usable row", received=bad[:1])
            return found

        return row("text", name, load, outcome)(build)

    return add


text_row("a packed text that unpacks to gigabytes", ".txt.gz", sources.text_lines)(
    lambda: gzip.compress(bytes(2**27))
)
text_row("a packed text that is damaged", ".txt.gz", sources.text_lines)(
    lambda: gzip.compress(b"abc" * 1000)[:-9]
)
text_row("a CSV field of megabytes", ".csv", sources.csv)(
    lambda: b'a,b\n"' + b"x" * 2**22 + b'",1\n'
)
text_row("a CSV quote without end", ".csv", sources.csv)(lambda: b'a,b\n"x,1\n' * 100)
text_row("a CSV with formulas and markup", ".csv", sources.csv, "read")(
    lambda: b"a,b\n=cmd|'/c calc'!A1,<script>alert(1)</script>\n"
)
text_row("a CSV of a hundred thousand columns", ".csv", sources.csv, "read")(
    lambda: b",".join(b"c%d" % i for i in range(10**5)) + b"\n" + b"," * (10**5 - 1)
)
text_row("a JSONL line of great depth", ".jsonl", sources.jsonl)(
    lambda: b'{"a":' * 10**5 + b"1" + b"}" * 10**5
)
text_row("a JSONL number of a million digits", ".jsonl", sources.jsonl)(
    lambda: b'{"a": ' + b"9" * 10**6 + b"}"
)
text_row("UTF-16", ".txt", sources.text_lines)(lambda: "text".encode("utf-16"))
text_row("CoNLL that is binary", ".conll", sources.conll)(lambda: bytes(range(256)) * 9)
text_row("a Parquet file that is none", ".parquet", sources.parquet)(
    lambda: b"PAR1" + bytes(100) + b"PAR1"
)


@row(
    "text",
    "a Parquet file of billions of equal rows",
    lambda p: sources.parquet(str(p)),
)
def _(folder: pathlib.Path) -> Any:
    import pyarrow
    from pyarrow import parquet

    path = folder / "a.parquet"
    part = pyarrow.table({"a": np.zeros(2**21, "i1")})
    with parquet.ParquetWriter(path, part.schema, compression="zstd") as writer:
        for _ in range(64):
            writer.write_table(part, row_group_size=2**21)
    return path


@row("text", "a Parquet value that is repeated", lambda p: sources.parquet(str(p)))
def _(folder: pathlib.Path) -> Any:
    import pyarrow
    from pyarrow import parquet

    path = folder / "a.parquet"
    words = pyarrow.DictionaryArray.from_arrays(
        np.zeros(200_000, "i4"), pyarrow.array(["x" * 100_000])
    )
    parquet.write_table(pyarrow.table({"a": words}), path, compression="zstd")
    return path


@row(
    "text",
    "a TFDS set with a class of its own",
    lambda p: sources.tfds(directory=str(p)),
)
def _(folder: pathlib.Path) -> Any:
    described = {"pythonClassName": "canary_module.Feature", "featuresDict": {}}
    (folder / "features.json").write_text(json.dumps(described))
    return folder


# JSON of runs


def run_of(folder: pathlib.Path, labels: Any) -> pathlib.Path:
    (folder / "model").mkdir()
    keras_file(folder).rename(folder / "model" / "model.keras")
    text = labels if isinstance(labels, str) else json.dumps(labels)
    (folder / "model" / "labels.json").write_text(text)
    return folder


SOUND = {
    "task": "class",
    "classes": ["a", "b", "c"],
    "input": "x",
    "target": "y",
    "kind": "vector",
    "max_length": None,
    "truncate": False,
    "temperature": None,
}
LABELS: dict[str, Any] = {
    "labels that are no JSON": "{",
    "labels of great depth": "[" * 10**6,
    "labels that are a list": [],
    "labels without classes": {k: v for k, v in SOUND.items() if k != "classes"},
    "labels whose classes are numbers": SOUND | {"classes": [1, 2, 3]},
    "labels with a temperature of nothing": SOUND | {"temperature": 0},
    "labels of another model": SOUND | {"classes": ["a"]},
}


def opened(folder: pathlib.Path) -> Any:
    encoder = encoder_files.VectorEncoder(size=4)
    encoder_files.save_encoder(encoder, folder / "model" / "encoder")
    return finished.open_run(folder)


for _name, _labels in LABELS.items():
    row("json", _name, opened)(lambda folder, labels=_labels: run_of(folder, labels))


ENCODERS: dict[str, Any] = {
    "an encoder that is no table": [],
    "an encoder of no known kind": {"kind": "os.system"},
    "an encoder of enormous images": {
        "kind": "image",
        "image_size": [2**30, 2**30],
        "channels": 3,
        "scaling": {},
    },
    "an encoder whose tokenizer is a Lambda": {
        "kind": "text",
        "tokenizer": {
            "module": "keras.layers",
            "class_name": "Lambda",
            "config": {"function": "x"},
        },
        "packing": {},
        "max_length": 4,
        "input_names": {},
    },
    "an encoder whose tokenizer is a function": {
        "kind": "text",
        "tokenizer": {
            "module": "os",
            "class_name": "function",
            "config": "system",
            "registered_name": "system",
        },
        "packing": {},
        "max_length": 4,
        "input_names": {},
    },
}


def _encoder(folder: pathlib.Path, settings: Any) -> pathlib.Path:
    (folder / "encoder.json").write_text(json.dumps(settings))
    return folder


for _name, _settings in ENCODERS.items():
    row("json", _name, backbones.load_encoder)(
        lambda folder, settings=_settings: _encoder(folder, settings)
    )


# Vocabularies


def vocabulary(folder: pathlib.Path, settings: Any, **others: bytes) -> pathlib.Path:
    (folder / "vocabulary.json").write_text(json.dumps(settings))
    for name, content in others.items():
        (folder / name).write_bytes(content)
    return folder


def _kmers(**fields: Any) -> dict[str, Any]:
    return {
        "kind": "kmers",
        "special_tokens": [],
        "words": ["A"],
        "k": 1,
        "stride": 1,
    } | (fields)


VOCABULARIES: dict[str, Any] = {
    "a kind that there is not": {"kind": "pickle", "special_tokens": []},
    "windows that never move": _kmers(stride=0),
    "windows of negative length": _kmers(k=-3),
    "words that are numbers": _kmers(words=[1, 2]),
    "no kind": {"special_tokens": []},
    "a list": [1, 2],
    "unknown special tokens": _kmers(special_tokens=["<script>"]),
    "subwords without their file": {"kind": "bpe", "special_tokens": ["unknown"]},
}
for _name, _settings in VOCABULARIES.items():
    row("vocabulary", _name, backbones.load_encoder)(
        lambda folder, settings=_settings: text_encoder(folder, settings)
    )


def text_encoder(folder: pathlib.Path, settings: Any, **others: bytes) -> pathlib.Path:
    (folder / "tokenizer").mkdir()
    vocabulary(folder / "tokenizer", settings, **others)
    described = {
        "kind": "text",
        "tokenizer": None,
        "packing": {},
        "max_length": 4,
        "input_names": {"token_ids": "x"},
    }
    return _encoder(folder, described)


@row("vocabulary", "subwords whose file is a pickle", load_tokenizer)
def _(folder: pathlib.Path) -> Any:
    settings = {"kind": "wordpiece", "special_tokens": ["unknown"]}
    return vocabulary(
        folder, settings, **{"tokenizer.json": pickle.dumps(Payload(), protocol=0)}
    )


# gin


def gin_row(
    name: str, text: str, allowed: str | None = "tflearn,keras,keras_hub", **files: str
) -> None:
    def build(folder: pathlib.Path) -> pathlib.Path:
        for other, content in files.items():
            (folder / f"{other}.gin").write_text(content.format(folder=folder))
        path = folder / "a.gin"
        path.write_text(text.replace("FOLDER", str(folder)), encoding="utf-8")
        return path

    def load(path: pathlib.Path) -> Any:
        permissions.allow_only(permissions.parse_allowed(allowed))
        try:
            return config.load([str(path)]).experiment()
        finally:
            permissions.allow_only(None)

    row("gin", name, load)(build)


DYNAMIC = "from __gin__ import dynamic_registration\n"
gin_row(
    "an import of a module in the current folder", DYNAMIC + "import canary_module\n"
)
gin_row(
    "an import of a module with an alias", DYNAMIC + "import canary_module as keras\n"
)
gin_row("an import from a package", DYNAMIC + "from canary_module import keras\n")
gin_row(
    "an import in an included file",
    DYNAMIC + "include 'FOLDER/b.gin'\n",
    b=DYNAMIC + "import canary_module\n",
)
gin_row("a package whose name begins alike", DYNAMIC + "import tflearn_evil\n")
gin_row(
    "a function behind an allowed module",
    DYNAMIC + "from tflearn import experiment\nfrom tflearn.support import files\n"
    "experiment.Experiment.name = @files.os.system()\n"
    "files.os.system.command = 'touch CANARY'\n",
)
gin_row(
    "unsafe deserialization",
    DYNAMIC + "import keras\nfrom tflearn import experiment\n"
    "experiment.Experiment.name = @keras.config.enable_unsafe_deserialization()\n",
    None,
)
gin_row(
    "safe mode switched off",
    DYNAMIC + "import keras\nkeras.saving.load_model.safe_mode = False\n",
    None,
)
gin_row("files that include each other", DYNAMIC + "include 'a.gin'\n")
gin_row("a value of great depth", DYNAMIC + "A = " + "(" * 10**4 + ")" * 10**4 + "\n")
gin_row("half a value", DYNAMIC + "A = [1, 2\n")
gin_row("no text", "\x00\x01\x02")
gin_row("an import of a class of the interpreter", DYNAMIC + "import os.path as x\n")


# The program


def look(folder: pathlib.Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def too_long(*of: object) -> None:
    raise TooLong


def outcome_of(one: Row, folder: pathlib.Path) -> dict[str, Any]:
    inside = folder / "in" / "deep" / "er"
    inside.mkdir(parents=True)
    given = one.build(inside)
    before = {p: look(p) for p in (folder, folder.parent, inside.parent)}
    started, memory = (
        time.monotonic(),
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
    )
    signal.alarm(SECONDS)
    try:
        one.load(given)
        ended, said = "read", ""
    except TflearnError as error:
        ended, said = "refused", f"{type(error).__name__}: {error}"
    except (Exception, TooLong) as error:
        ended, said = f"escaped: {type(error).__name__}", str(error)[:500]
    finally:
        signal.alarm(0)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory
    return {
        "kind": one.kind,
        "name": one.name,
        "expected": one.outcome,
        "outcome": ended,
        "message": said[:1000],
        "seconds": time.monotonic() - started,
        "grown_bytes": grown * 1024,
        "written": sorted(x for p, old in before.items() for x in look(p) - old),
        "canary": any(map(os.path.exists, ("CANARY", os.environ["CANARY"]))),
    }


def limit_memory() -> None:
    """Allows what is mapped now, mostly code and thread stacks, and some more."""
    status = pathlib.Path("/proc/self/status").read_text()
    mapped = int(status.split("VmSize:")[1].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES,) * 2)


def main() -> None:
    folder, results = map(pathlib.Path, sys.argv[1:3])
    only = sys.argv[3] if len(sys.argv) > 3 else ""
    work = folder / "work"
    work.mkdir(parents=True)
    os.environ["CANARY"] = str(folder / "CANARY")
    # Modules that a file may try to import: here the current folder has them.
    code = (
        f"open({os.environ['CANARY']!r}, 'w').close()\nclass Layer: pass\nkeras = 1\n"
    )
    (folder / "cwd").mkdir()
    for name in ("canary_module", "tflearn_evil"):
        (folder / "cwd" / f"{name}.py").write_text(code)
    os.chdir(folder / "cwd")
    sys.path.insert(0, str(folder / "cwd"))
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    # What is imported late would count as memory of a row.
    backbones.import_keras_hub()
    backbones.load_model(keras_file(folder))
    tiny()(np.zeros((1, 4)))
    limit_memory()
    signal.signal(signal.SIGALRM, too_long)
    found = []
    for number, one in enumerate(ROWS):
        if only in f"{one.kind}: {one.name}":
            place = work / str(number)
            place.mkdir()
            found.append(outcome_of(one, place))
            shutil.rmtree(place, ignore_errors=True)
    results.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
