"""HDF5 files: no link leads out of them, no shape claims more than is stored."""

from __future__ import annotations

import math
import os
import pathlib
from typing import Any

from tflearn.support.errors import FileError
from tflearn.support.safety import zips

_MOST_OBJECTS = 500_000
_MOST_LEVELS = 100
# Keras writes weights as they are; packed again they shrink by little.
_EXPANSION = 20
# The filters that the library itself has: any other is loaded from a file as code.
_FILTERS = frozenset((1, 2, 3, 4, 5, 6, 32000))
# Numbers, and the bytes that Keras keeps bfloat16 as; no references, no objects.
_KINDS = "biufcVS"


def check_hdf5(file: Any, name: str | None = None) -> int:
    """Checks all groups and datasets of an HDF5 file; reads none of the values.

    Args:
        file: A path, or an open binary file.
        name: What messages call it.

    Returns:
        How many values the datasets hold together.

    Raises:
        FileError: The file is no HDF5 file, or holds soft or external links, virtual
            datasets, external storage, unknown filters, shapes that are larger than
            what is stored.
    """
    import h5py

    named = name or str(file)
    try:
        size = _size(file)
        with h5py.File(file, "r") as opened:
            return _Walk(h5py, named, size).visit(opened)
    except FileError:
        raise
    except Exception as error:
        # h5py raises whatever the C library's message suggests.
        raise FileError(
            "this file is no HDF5 file, or it is damaged",
            received=f"{named} ({type(error).__name__}: {str(error)[:200]})",
        ) from error


class _Walk:
    """A walk that follows no link and enters no group twice."""

    def __init__(self, h5py: Any, name: str, size: int) -> None:
        self._h5py = h5py
        self._name = name
        self._size = size
        self._seen: set[int] = set()
        self._datasets = 0
        self._bytes = 0
        self._values = 0

    def visit(self, root: Any) -> int:
        waiting = [(root, "", 0)]
        while waiting:
            group, path, level = waiting.pop()
            address = self._h5py.h5o.get_info(group.id).addr
            # A hard link may lead back up: without this the walk would not end.
            if address in self._seen:
                raise self._error("a group of the file is linked twice", path)
            self._seen.add(address)
            if level > _MOST_LEVELS or len(self._seen) > _MOST_OBJECTS:
                raise self._error("the file has too many groups", path)
            for key in group:
                inside = f"{path}/{key}"
                self._check_link(group, key, inside)
                item = group[key]
                if isinstance(item, self._h5py.Group):
                    waiting.append((item, inside, level + 1))
                elif isinstance(item, self._h5py.Dataset):
                    self._check_dataset(item, inside)
        zips.check_size(self._bytes, self._size, self._name, expansion=_EXPANSION)
        return self._values

    def _check_link(self, group: Any, key: str, path: str) -> None:
        link = group.get(key, getlink=True)
        if not isinstance(link, self._h5py.HardLink):
            kind = type(link).__name__
            raise self._error(f"the file holds a link of kind {kind}", path)

    def _check_dataset(self, dataset: Any, path: str) -> None:
        if dataset.is_virtual:
            raise self._error("a dataset takes its values from other files", path)
        if dataset.external:
            raise self._error("a dataset is stored in another file", path)
        if dataset.dtype.kind not in _KINDS or dataset.dtype.hasobject:
            raise self._error(f"a dataset holds no numbers: {dataset.dtype}", path)
        created = dataset.id.get_create_plist()
        filters = {created.get_filter(i)[0] for i in range(created.get_nfilters())}
        if filters - _FILTERS:
            raise self._error(f"a dataset needs filters: {filters - _FILTERS}", path)
        values = math.prod(dataset.shape or ())
        claimed = values * dataset.dtype.itemsize
        stored = dataset.id.get_storage_size()
        if stored > self._size:
            raise self._error("a dataset is larger than the file", path)
        place = f"{self._name}: {path[:200]}"
        zips.check_size(claimed, stored, place, expansion=_EXPANSION)
        self._bytes += claimed
        self._values += values
        self._datasets += 1
        if self._datasets > _MOST_OBJECTS:
            raise self._error("the file has too many datasets", path)

    def _error(self, problem: str, path: str) -> FileError:
        return FileError(
            problem,
            received=f"{self._name}: {path[:200]}",
            expected="weights as Keras writes them",
        )


def _size(file: Any) -> int:
    if isinstance(file, (str, os.PathLike)):
        return pathlib.Path(file).stat().st_size
    place = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(place)
    return size
