"""Arrays in memory, `.npz` files and scikit-learn's built-in sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tflearn.data import paths as path_tools
from tflearn.data.table import Table
from tflearn.support.errors import DataError, FileError, nearest
from tflearn.support.safety import arrays as arrays_on_disk

Columns = Mapping[str, Sequence[Any] | np.ndarray]


def arrays(splits: Columns | Mapping[str, Columns]) -> dict[str, Table]:
    """Reads arrays or lists in memory.

    Args:
        splits: `{'train': {'image': array, 'label': array}, 'test': {...}}`, or only
            the columns, `{'image': array, 'label': array}`, to be split.

    Returns:
        The tables by split.

    Raises:
        DataError: Columns of a split differ in length.

    Example:
    >>> tables = arrays({"text": ["good", "bad"], "label": [1, 0]})
    >>> tables["all"][1]
    {'text': 'bad', 'label': 0}
    """
    nested = all(isinstance(value, Mapping) for value in splits.values())
    if not splits or not (nested or _has_columns(splits)):
        raise DataError(
            "arrays takes columns, or splits of columns",
            received=type(splits).__name__ if splits else "nothing",
            expected="{'train': {'text': [...], 'label': [...]}}",
        )
    by_split: Mapping[str, Any] = splits if nested else {path_tools.ALL: splits}
    return {
        path_tools.split_name(split): Table(columns, name=split)
        for split, columns in by_split.items()
    }


def npz(paths: path_tools.Paths, folder: str = "") -> dict[str, Table]:
    """Reads NumPy `.npz` files; the arrays are the columns, a row an entry of each.

    Names that all end in a split, as in `x_train, y_train, x_test, y_test`, give the
    splits of a single file. Pickled objects are refused.

    Args:
        paths: A path, or `{'train': ..., 'test': ...}`.
        folder: Put in front of relative paths.

    Returns:
        The tables by split.

    Raises:
        DataError: A file is absent, damaged, or its arrays differ in length.
    """
    result: dict[str, Table] = {}
    for split, patterns in path_tools.by_split(paths).items():
        loaded = [_load(file) for file in path_tools.find(patterns, folder)]
        columns = _concatenate(loaded, ", ".join(patterns))
        parts = _by_suffix(columns) if split == path_tools.ALL else {split: columns}
        for part, inside in parts.items():
            name = patterns[0] if part == split else f"{patterns[0]}:{part}"
            result[part] = Table(inside, name=name)
    return result


def sklearn(name: str) -> dict[str, Table]:
    """Loads one of the sets that scikit-learn ships; no download.

    Columns: `vector` (all features, float32), each feature by its name, and `label`
    (class names, or the number for `diabetes`). `digits` has `image` (uint8,
    `(8, 8, 1)`, its 17 grey levels spread over 0 to 255) as well.

    Args:
        name: `digits`, `iris`, `wine`, `breast_cancer` or `diabetes`.

    Returns:
        One table, to be split.

    Raises:
        DataError: There is no such set, or scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise DataError(
            "scikit-learn is not installed", fix="pip install scikit-learn"
        ) from error
    loaders: dict[str, Callable[[], Any]] = {
        "digits": datasets.load_digits,
        "iris": datasets.load_iris,
        "wine": datasets.load_wine,
        "breast_cancer": datasets.load_breast_cancer,
        "diabetes": datasets.load_diabetes,
    }
    if name not in loaders:
        raise DataError(
            "scikit-learn ships no such set",
            received=name,
            expected=", ".join(loaders),
            nearest=nearest(name, loaders),
        )
    return {path_tools.ALL: _bunch(name, loaders[name]())}


def _bunch(name: str, loaded: Any) -> Table:
    vectors = loaded.data.astype(np.float32)
    columns: dict[str, Any] = {"vector": vectors}
    columns |= {str(key): vectors[:, i] for i, key in enumerate(loaded.feature_names)}
    if name == "digits":
        spread = np.round(loaded.images / 16 * 255).astype(np.uint8)
        columns["image"] = spread[:, :, :, None]
    classes = None
    if name == "diabetes":
        columns["label"] = loaded.target
    else:
        classes = [str(item) for item in loaded.target_names]
        columns["label"] = [classes[target] for target in loaded.target]
    return Table(columns, name=f"sklearn:{name}", classes=classes)


def _has_columns(splits: Mapping[str, Any]) -> bool:
    return all(
        hasattr(value, "__len__") and not isinstance(value, (str, Mapping))
        for value in splits.values()
    )


def _load(file: path_tools.File) -> dict[str, np.ndarray]:
    try:
        loaded = arrays_on_disk.load_npz(file.path)
    except (OSError, FileError) as error:
        raise DataError(
            f"not a readable .npz file ({error})",
            received=str(file.path),
            expected="arrays saved with numpy.savez, none of them of Python objects",
        ) from error
    scalars = [name for name, array in loaded.items() if array.ndim == 0]
    if scalars or not loaded:
        raise DataError(
            "an array has no rows" if scalars else "the file holds no array",
            received=f"{file.path}: {', '.join(scalars)}",
        )
    return loaded


def _concatenate(
    loaded: list[dict[str, np.ndarray]], name: str
) -> dict[str, np.ndarray]:
    if len(loaded) == 1:
        return loaded[0]
    for other in loaded[1:]:
        if other.keys() != loaded[0].keys():
            raise DataError(
                f"the files of {name} hold different arrays",
                received=", ".join(other),
                expected=", ".join(loaded[0]),
            )
    return {key: np.concatenate([part[key] for part in loaded]) for key in loaded[0]}


def _by_suffix(columns: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    pieces = {name: name.rpartition("_") for name in columns}
    if not all(
        head and path_tools.is_split_name(tail) for head, _, tail in pieces.values()
    ):
        return {path_tools.ALL: columns}
    result: dict[str, dict[str, np.ndarray]] = {}
    for name, (head, _, tail) in pieces.items():
        result.setdefault(path_tools.split_name(tail), {})[head] = columns[name]
    return result
