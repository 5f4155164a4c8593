"""`.npz` and `.npy` files: arrays without pickle, no larger than they are stored."""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import warnings
import zipfile
from typing import IO, Any

import numpy as np

from tflearn.support.errors import FileError
from tflearn.support.safety import zips

_MOST_DIMENSIONS = 32


def load_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads all arrays of an `.npz` file.

    Args:
        path: What `numpy.savez` wrote.

    Returns:
        The arrays by name.

    Raises:
        FileError: The file is no such archive, is damaged, holds Python objects, or
            claims more than it holds.
        OSError: It cannot be opened.
    """
    file = pathlib.Path(path)
    # What fails from here on is the fault of what is in the file.
    file.open("rb").close()
    # `numpy.load` would take a single array or a pickle for what they are.
    if not zipfile.is_zipfile(file):
        raise FileError(
            "this is no .npz file", received=str(path), expected="numpy.savez's format"
        )
    with _as_file_error(file):
        with zipfile.ZipFile(file) as archive:
            for member in zips.check_zip(archive, str(path)):
                with archive.open(member) as opened:
                    _check_header(
                        opened, member.file_size, f"{path}: {member.filename}"
                    )
        with np.load(file, allow_pickle=False) as arrays:
            return {name: np.asarray(arrays[name]) for name in arrays.files}


def map_npy(path: str | os.PathLike[str]) -> np.ndarray:
    """Maps the array of an `.npy` file into memory; nothing is read before it is used.

    Args:
        path: What `numpy.save` wrote.

    Returns:
        A plain read-only array: slices of `numpy.memmap` are slow.

    Raises:
        FileError: The file is no such array, is damaged, holds Python objects, or
            claims more than it holds.
        OSError: It cannot be opened.
    """
    file = pathlib.Path(path)
    with file.open("rb") as opened, _as_file_error(file):
        _check_header(opened, file.stat().st_size, str(path))
    with _as_file_error(file):
        return np.asarray(np.load(file, allow_pickle=False, mmap_mode="r"))


def _check_header(file: IO[bytes], size: int, name: str) -> None:
    version = np.lib.format.read_magic(file)
    read: Any = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shape, _, dtype = read(file)
    if dtype.hasobject:
        raise FileError("an array of Python objects would run code", received=name)
    wrong = any(not isinstance(n, int) or n < 0 for n in shape)
    if wrong or len(shape) > _MOST_DIMENSIONS:
        raise FileError("an array has an impossible shape", received=f"{name}: {shape}")
    claimed = math.prod(shape) * dtype.itemsize
    if claimed > size:
        raise FileError(
            "an array claims more than the file holds",
            received=f"{name}: shape {shape}, {claimed} bytes in {size}",
        )


@contextlib.contextmanager
def _as_file_error(file: pathlib.Path) -> Any:
    try:
        yield
    except FileError:
        raise
    except Exception as error:
        # Broken archives end in many kinds: BadZipFile, zlib.error, OSError, ...
        raise FileError(
            "this file of arrays is damaged",
            received=f"{file} ({type(error).__name__}: {str(error)[:200]})",
        ) from error
