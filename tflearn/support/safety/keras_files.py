"""`.keras` archives and the configurations of layers, before Keras reads them.

Keras's safe mode stays on as well. These checks come first, bound what Keras does not,
and say which layer is refused and why.
"""

from __future__ import annotations

import io
import os
import pathlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

from tflearn.support.errors import FileError
from tflearn.support.safety import hdf5, json_files, zips

CONFIG = "config.json"
_WEIGHTS = "model.weights.h5"
_MEMBERS = ("metadata.json", CONFIG, _WEIGHTS, "assets/")
_MAX_CONFIG_BYTES = 64 * 2**20
_MOST_OBJECTS = 100_000
#: Layers and classes whose configuration is code, or names code to load.
_CODE = frozenset(("__lambda__", "Lambda", "TFSMLayer", "TorchModuleWrapper"))
# Keys whose number says how many layers are built one by one.
_COUNTS = ("num_layers", "num_blocks", "depth", "num_repeats", "repeats")
_MOST_LAYERS = 10_000


def check_keras_file(path: str | os.PathLike[str]) -> tuple[Any, int]:
    """Checks a `.keras` archive: members, configuration, weights.

    Args:
        path: The file.

    Returns:
        The model's configuration, and how many values its weights have together.

    Raises:
        FileError: It is no such archive, is damaged, or holds what could run code,
            leave its folder or claim more than is stored.
        OSError: It cannot be read.
    """
    file = pathlib.Path(path)
    # What fails from here on is the fault of what is in the file.
    file.open("rb").close()
    try:
        with zipfile.ZipFile(file) as archive:
            members = zips.check_zip(archive, str(path), extracted=True)
            names = [member.filename for member in members]
            strange = [name for name in names if not name.startswith(_MEMBERS)]
            if strange or CONFIG not in names or _WEIGHTS not in names:
                raise FileError(
                    "this archive is not one that Keras wrote",
                    received=f"{path}: {', '.join(strange or names)[:200]}",
                    expected=", ".join(_MEMBERS),
                )
            config = _read_config(archive, f"{path}: {CONFIG}")
            check_config(config, str(path))
            member = archive.getinfo(_WEIGHTS)
            with _opened(file, archive, member) as weights:
                return config, hdf5.check_hdf5(weights, f"{path}: {_WEIGHTS}")
    except FileError:
        raise
    except Exception as error:
        # Broken archives end in many kinds: BadZipFile, zlib.error, OSError, ...
        raise FileError(
            "Keras cannot load this model file: it is damaged",
            received=f"{path} ({type(error).__name__}: {str(error)[:200]})",
            expected="a .keras file written by model.save",
        ) from error


def check_config(config: Any, name: str) -> None:
    """Checks the configuration of a model, a layer or a tokenizer.

    Args:
        config: Parsed JSON.
        name: What messages call it.

    Raises:
        FileError: It holds code, or so many layers that building would not end.
    """
    for count, (key, value) in enumerate(_items(config)):
        if count > _MOST_OBJECTS * 50:
            raise FileError("the configuration has too many entries", received=name)
        if key == "class_name" and value in _CODE:
            raise FileError(
                f"a layer of kind '{value}' holds code, and a model runs none",
                received=name,
                fix="replace it by a layer class of your own that you import",
            )
        if _is_count(key) and not _is_small(value):
            raise FileError(
                "the configuration asks for more layers than can be built",
                received=f"{name}: {key} = {str(value)[:100]}",
                expected=f"at most {_MOST_LAYERS}",
            )


def mentions(config: Any, packages: Sequence[str]) -> bool:
    """Tells whether a configuration names a class of one of some packages.

    Args:
        config: Parsed JSON.
        packages: Names of packages.
    """
    start = tuple(packages)
    return any(
        str(entry.get(key)).startswith(start)
        for entry in _objects(config)
        for key in ("module", "registered_name")
    )


def foreign_modules(config: Any) -> dict[str, str]:
    """Returns what a configuration needs that does not come with Keras or tflearn.

    Args:
        config: Parsed JSON that `check_config` has accepted.

    Returns:
        Modules by the registered name of the class or function.
    """
    found = {}
    for entry in _objects(config):
        module = entry.get("module")
        if isinstance(module, str) and module.split(".")[0] not in _KNOWN:
            named = entry.get("registered_name") or entry.get("class_name")
            found[str(named)] = module
    return found


_KNOWN = ("keras", "keras_hub", "keras_nlp", "keras_cv", "builtins", "tflearn")


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    """Yields the entries of all tables, without recursion."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Mapping):
            yield from one.items()
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Mapping):
            if "class_name" in one:
                yield one
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)


def _is_count(key: str) -> bool:
    return key.endswith(_COUNTS) or key.endswith(("_layers", "_blocks", "_depths"))


def _is_small(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_small, value))
    return not isinstance(value, (int, float)) or abs(value) <= _MOST_LAYERS


def _read_config(archive: zipfile.ZipFile, name: str) -> Any:
    with archive.open(CONFIG) as opened:
        text = opened.read(_MAX_CONFIG_BYTES + 1)
    return json_files.parse(text, name, max_bytes=_MAX_CONFIG_BYTES)


def _opened(
    file: pathlib.Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo
) -> IO[bytes]:
    """Opens the weights for random access, without unpacking where they are stored."""
    if member.compress_type != zipfile.ZIP_STORED:
        return io.BytesIO(archive.read(member))
    with file.open("rb") as raw:
        raw.seek(member.header_offset + 26)
        lengths = raw.read(4)
    skipped = int.from_bytes(lengths[:2], "little") + int.from_bytes(
        lengths[2:], "little"
    )
    begin = member.header_offset + 30 + skipped
    if begin + member.file_size > file.stat().st_size:
        raise FileError("a member ends behind the archive", received=str(file))
    return io.BufferedReader(_Window(file, begin, member.file_size))


class _Window(io.RawIOBase):
    """A part of a file as a file: zipfile would read from the start at every seek."""

    def __init__(self, path: pathlib.Path, begin: int, size: int) -> None:
        self._file = path.open("rb")
        self._begin = begin
        self._size = size
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}
        self._place = max(0, start[whence] + offset)
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        self._file.seek(self._begin + self._place)
        wanted = min(len(buffer), max(0, self._size - self._place))
        found = self._file.read(wanted)
        buffer[: len(found)] = found
        self._place += len(found)
        return len(found)

    def close(self) -> None:
        self._file.close()
        super().close()
