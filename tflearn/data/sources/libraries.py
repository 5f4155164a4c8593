"""Data that other libraries keep: TensorFlow Datasets and Hugging Face `datasets`."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tflearn.data import paths as path_tools
from tflearn.data.table import Table
from tflearn.support.errors import DataError, nearest
from tflearn.support.safety import json_files
from tflearn.support.tensorflow import allow_tensorflow

_Convert = Callable[[Any], Any]


def tfds(
    name: str | None = None,
    directory: str | None = None,
    splits: Mapping[str, str] | None = None,
    data_dir: str | None = None,
    download: bool = True,
) -> dict[str, Table]:
    """Reads a TensorFlow Datasets set through random access. Needs its package.

    The set has to be prepared as `array_record`; reading it does not load TensorFlow.
    Class numbers become their names, bytes of text features become texts.

    Args:
        name: Name of the set, such as `mnist` or `glue/sst2:2.0.0`.
        directory: Folder of a prepared set instead (the one with
            `dataset_info.json`).
        splits: Which TFDS split is which, such as `{'train': 'train[:90%]', 'test':
            'test'}`; None takes all of them.
        data_dir: Where named sets are kept; None is `~/tensorflow_datasets`.
        download: Whether a named set that is not there is downloaded and prepared.

    Returns:
        The tables by split.

    Raises:
        DataError: The set or a split does not exist, is not prepared as
            `array_record`, or the package is not installed.
    """
    if (name is None) == (directory is None):
        raise DataError(
            "tfds takes either a name or a directory",
            received=f"name={name!r}, directory={directory!r}",
        )
    if directory is not None:
        _check_features(pathlib.Path(directory).expanduser())
    # It imports TensorFlow on every backend.
    allow_tensorflow()
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise DataError(
            "tensorflow-datasets is not installed",
            fix="pip install tensorflow-datasets array-record",
        ) from error
    try:
        builder = _builder(tensorflow_datasets, name, directory, data_dir, download)
    except (OSError, ValueError, AssertionError) as error:
        message = str(error).splitlines()[0]
        raise DataError(
            f"TFDS cannot provide the set ({message})", received=name or directory
        ) from error
    wanted = splits or {split: split for split in builder.info.splits}
    return {
        path_tools.split_name(split): _tfds_table(builder, selection)
        for split, selection in wanted.items()
    }


def hugging_face(
    path: str,
    name: str | None = None,
    splits: Mapping[str, str] | None = None,
    data_files: Mapping[str, str] | str | None = None,
    folder: str = "",
) -> dict[str, Table]:
    """Reads a Hugging Face `datasets` set. Needs its package.

    Class numbers become their names; images stay encoded until they are needed.
    `datasets` itself turns the texts `NA`, `None` and the empty text of CSV files
    into nulls, which are unusable rows here: `data.sources.csv` keeps them.

    Args:
        path: A name on the hub, a folder written by `save_to_disk`, or a format such
            as `csv`, `json`, `parquet` with `data_files`.
        name: Name of the configuration.
        splits: Which split is which, such as `{'train': 'train[:90%]'}`; None takes
            all of them.
        data_files: Local files, a path or `{'train': 'train.json'}`.
        folder: Put in front of relative paths of `data_files` and of `path` where it
            names a folder there.

    Returns:
        The tables by split.

    Raises:
        DataError: The set cannot be loaded, or the package is not installed.
    """
    # It asks whether TensorFlow is installed, in a way that a hidden one breaks.
    allow_tensorflow()
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            "Hugging Face datasets is not installed", fix="pip install datasets"
        ) from error
    local = path_tools.join(folder, path)
    try:
        if (local / "state.json").exists() or (local / "dataset_dict.json").exists():
            selected = _select(datasets.load_from_disk(str(local)), splits)
        else:
            where = str(local) if folder and local.exists() else path
            files = _files(data_files, folder)
            selected = _load(datasets, where, name, files, splits)
    except DataError:
        raise
    except Exception as error:
        # The package has no common base class; its errors name the cause.
        lines = str(error).splitlines() or [type(error).__name__]
        raise DataError(
            f"Hugging Face datasets cannot load the set ({lines[0]})", received=path
        ) from error
    return {
        path_tools.split_name(split): _hugging_face_table(datasets, part, path, split)
        for split, part in selected.items()
    }


def _builder(
    library: Any,
    name: str | None,
    directory: str | None,
    data_dir: str | None,
    download: bool,
) -> Any:
    if directory is not None:
        return library.builder_from_directory(str(pathlib.Path(directory).expanduser()))
    builder = library.builder(name, data_dir=data_dir, file_format="array_record")
    if not builder.is_prepared():
        if not download:
            raise ValueError(f"it is not prepared in {builder.data_path}")
        builder.download_and_prepare()
    return builder


def _check_features(folder: pathlib.Path) -> None:
    """Refuses a prepared set that names classes of its own: TFDS would import them."""
    file = folder / "features.json"
    described = json_files.read(file) if file.is_file() else {}
    waiting: list[Any] = [described]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            named = str(one.get("pythonClassName", "tensorflow_datasets."))
            if not named.startswith("tensorflow_datasets."):
                raise DataError(
                    "the set brings a class of its own, which would be imported",
                    received=f"{file}: {named}",
                    expected="features of tensorflow_datasets",
                )
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)


def _tfds_table(builder: Any, selection: str) -> Table:
    known = list(builder.info.splits)
    if re.split(r"[\[+]", selection)[0] not in known:
        raise DataError(
            f"the set '{builder.info.full_name}' has no such split",
            received=selection,
            expected=", ".join(known),
            nearest=nearest(selection, known),
        )
    try:
        source = builder.as_data_source(selection)
    except (NotImplementedError, ImportError) as error:
        raise DataError(
            f"the set '{builder.info.full_name}' has no random access",
            received=str(builder.data_path),
            expected="a set prepared as array_record, and the package array-record",
            fix="prepare it with tfds.builder(NAME, file_format='array_record')"
            ".download_and_prepare()",
        ) from error
    features = dict(builder.info.features.items())
    converters = {key: _converter(feature) for key, feature in features.items()}
    rows = _TfdsRows(source, converters)
    label = features.get("label")
    name = f"{builder.info.full_name}:{selection}"
    table = Table.from_rows(rows, name=name)
    table.classes = tuple(getattr(label, "names", None) or ()) or None
    return table


def _converter(feature: Any) -> _Convert:
    if hasattr(feature, "int2str"):
        return feature.int2str
    if hasattr(feature, "feature") and hasattr(feature.feature, "int2str"):
        return lambda values: [feature.feature.int2str(int(x)) for x in values]
    return lambda value: value.decode() if isinstance(value, bytes) else value


class _TfdsRows(Sequence[dict[str, Any]]):
    """Rows of a TFDS data source with names and texts in place of codes."""

    def __init__(self, source: Any, converters: Mapping[str, _Convert]) -> None:
        self._source = source
        self._converters = converters

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: Any) -> Any:
        row = self._source[index]
        return {key: self._converters[key](value) for key, value in row.items()}


def _files(data_files: Mapping[str, str] | str | None, folder: str) -> Any:
    if data_files is None:
        return None
    found = {
        split: [str(file.path) for file in path_tools.find(patterns, folder)]
        for split, patterns in path_tools.by_split(data_files).items()
    }
    # Files without a split are called 'train' by the package, renamed in `_load`.
    return found.get(path_tools.ALL, found)


def _load(
    datasets: Any,
    path: str,
    name: str | None,
    data_files: Any,
    splits: Mapping[str, str] | None,
) -> Mapping[str, Any]:
    if splits is not None:
        parts = datasets.load_dataset(
            path, name, data_files=data_files, split=list(splits.values())
        )
        return dict(zip(splits, parts, strict=True))
    loaded = datasets.load_dataset(path, name, data_files=data_files)
    if isinstance(data_files, list):
        return {path_tools.ALL: loaded["train"]}
    return loaded


def _select(loaded: Any, splits: Mapping[str, str] | None) -> Mapping[str, Any]:
    """Selects splits of a set on disk, which knows no `train[:90%]`."""
    parts = loaded if isinstance(loaded, Mapping) else {path_tools.ALL: loaded}
    for selection in (splits or {}).values():
        if selection not in parts:
            raise DataError(
                "the set has no such split",
                received=selection,
                expected=", ".join(parts),
                nearest=nearest(selection, parts),
            )
    if splits is None:
        return parts
    return {split: parts[selection] for split, selection in splits.items()}


def _hugging_face_table(datasets: Any, part: Any, path: str, split: str) -> Table:
    classes = None
    columns: dict[str, Sequence[Any]] = {}
    for name, feature in part.features.items():
        if isinstance(feature, datasets.Image):
            encoded = part.cast_column(name, datasets.Image(decode=False))
            columns[name] = _Column(encoded.select_columns([name]), name)
            continue
        values = list(part[name])
        inner = getattr(feature, "feature", None)
        if isinstance(feature, datasets.ClassLabel):
            values = [_name(feature, value) for value in values]
            classes = feature.names if name == "label" else classes
        elif isinstance(inner, datasets.ClassLabel):
            values = [x and [_name(inner, item) for item in x] for x in values]
        columns[name] = values
    return Table(columns, name=f"{path}:{split}", classes=classes)


def _name(feature: Any, value: int | None) -> str | None:
    # -1 and None mean that there is no label.
    return None if value is None or value < 0 else feature.int2str(value)


class _Column(Sequence[Any]):
    """A column of a Hugging Face set that is read row by row."""

    def __init__(self, part: Any, name: str) -> None:
        self._part = part
        self._name = name

    def __len__(self) -> int:
        return len(self._part)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._part[index][self._name]
