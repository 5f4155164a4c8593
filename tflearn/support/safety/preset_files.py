"""Folders of presets: every file that KerasHub may read."""

from __future__ import annotations

import math
import os
import pathlib
from typing import Any

from tflearn.support.errors import FileError
from tflearn.support.safety import hdf5, json_files, keras_files, tensors


def check_preset(folder: str | os.PathLike[str]) -> int:
    """Checks the configurations and weights of a folder, in any of its formats.

    Args:
        folder: A folder in Keras preset, Hugging Face or timm format.

    Returns:
        How many values its weights hold together.

    Raises:
        FileError: A file is damaged, holds code, names files elsewhere, or claims more
            than is stored.
    """
    values = 0
    for file in sorted(pathlib.Path(folder).rglob("*")):
        if not file.is_file():
            continue
        if file.suffix == ".json":
            _check_json(json_files.read(file), file)
        elif file.suffix == ".h5":
            values += hdf5.check_hdf5(file)
        elif file.suffix == ".safetensors":
            values += sum(map(math.prod, tensors.check_safetensors(file).values()))
    return values


def _check_json(value: Any, file: pathlib.Path) -> None:
    # A vocabulary has any number of entries, and none of them is a layer.
    if file.name.startswith(("tokenizer.json", "vocab")):
        return
    keras_files.check_config(value, str(file))
    shards = value.get("weight_map") if isinstance(value, dict) else None
    if shards is None:
        return
    if not isinstance(shards, dict):
        raise FileError("the index of the weights is no table", received=str(file))
    for named in shards.values():
        for name in named if isinstance(named, list) else [named]:
            if not isinstance(name, str) or pathlib.PurePath(name).name != name:
                raise FileError(
                    "the index of the weights names a file elsewhere",
                    received=f"{file}: {str(name)[:200]!r}",
                    expected="files of the same folder",
                )
