"""The copy of a run directory that lies in a bucket.

Files are put in the order in which they were written, each whole, so that a process
that is killed in between leaves in the bucket what a kill leaves in a folder.

Checkpoints are the exception. Where Orbax itself can write (`gs://`) it does, and they
are not copied; elsewhere one is packed into one object, there as a whole or not at all.
"""

from __future__ import annotations

import atexit
import pathlib
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator

from tflearn.support.safety.zips import check_zip
from tflearn.support.storage import buckets, locks

# Protocols under which Orbax writes and reads by itself.
_OF_ORBAX = ("gs",)
_CHECKPOINT = re.compile(
    r"(?:.*/)?stages/[^/]+/(?:checkpoints|best|soup|start|end)/(?P<step>.+)"
)
_PACKED = ".zip"
_Stamp = tuple[int, int]


def is_in_checkpoint(name: str) -> bool:
    """Tells whether a name in a run directory is a checkpoint's, or inside one."""
    return _CHECKPOINT.fullmatch(name) is not None


class Copy:
    """The copy of a run directory: what is put where, and what of it was put."""

    def __init__(self, bucket: buckets.Bucket) -> None:
        self.bucket = bucket
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="tflearn_run_"))
        self.locks: list[locks.Lock] = []
        self._put: dict[str, _Stamp] = {}
        # What a killed process leaves, the system's temporary folder gets rid of.
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)

    @property
    def of_orbax(self) -> bool:
        """Whether Orbax itself keeps the checkpoints in the bucket."""
        return self.bucket.protocol in _OF_ORBAX

    def name(self, path: pathlib.Path) -> str:
        """Returns what a path of the copy is called in the bucket."""
        name = path.relative_to(self.folder).as_posix()
        return "" if name == "." else name

    def pull(self, under: str, *, deep: bool, checkpoints: bool) -> None:
        """Makes a folder of the copy what the bucket holds."""
        if deep:
            shutil.rmtree(self.folder / under, ignore_errors=True)
            self._put = {
                name: stamp
                for name, stamp in self._put.items()
                if under and not name.startswith(f"{under}/")
            }
        (self.folder / under).mkdir(parents=True, exist_ok=True)
        names = self.bucket.names(under) if deep else self._top(under)
        for name in names:
            inside = is_in_checkpoint(name)
            if inside and (self.of_orbax or not checkpoints):
                continue
            path = self.folder / name
            if path.name == locks.NAME:
                continue
            if inside and name.endswith(_PACKED):
                path = path.with_suffix("")
                self._unpack(name, path)
            else:
                self.bucket.get(name, path)
            self._put[name] = _stamp(path)

    def _top(self, under: str) -> list[str]:
        """Lists what lies right in a folder; makes its folders, empty."""
        names, folders = self.bucket.top(under)
        for name in folders:
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        return names

    def push(self) -> None:
        """Puts what changed into the bucket, in the order in which it was written."""
        for lock in self.locks:
            lock.check()
        found = {name: (path, _stamp(path)) for name, path in self._files("")}
        # Of two of one moment: checkpoints first, the files that say so last.
        order = sorted(found, key=lambda x: (found[x][1], -x.count("/"), x))
        for name in order:
            path, stamp = found[name]
            if self._put.get(name) == stamp:
                continue
            if path.is_dir():
                self._pack(path, name)
            else:
                self.bucket.put(path, name)
            self._put[name] = stamp
        for name in self._put.keys() - found.keys():
            self.bucket.delete(name)
            del self._put[name]

    def _files(self, under: str) -> Iterator[tuple[str, pathlib.Path]]:
        """Yields what belongs into the bucket; a checkpoint is one."""
        for path in sorted((self.folder / under).iterdir()):
            name = self.name(path)
            # What is written right now gets another name once it is whole.
            if path.name.startswith(".") or "unfinished" in path.name:
                continue
            if is_in_checkpoint(name):
                if path.name.isdecimal():
                    yield name + _PACKED, path
            elif path.is_dir():
                yield from self._files(name)
            else:
                yield name, path

    def _pack(self, folder: pathlib.Path, name: str) -> None:
        with tempfile.TemporaryDirectory() as aside:
            packed = pathlib.Path(aside, "packed")
            # Not compressed: Orbax has done so.
            with zipfile.ZipFile(packed, "w") as archive:
                for path in sorted(folder.rglob("*")):
                    archive.write(path, path.relative_to(folder))
            self.bucket.put(packed, name)

    def _unpack(self, name: str, folder: pathlib.Path) -> None:
        with tempfile.TemporaryDirectory() as aside:
            packed = pathlib.Path(aside, "packed")
            self.bucket.get(name, packed)
            folder.mkdir(parents=True)
            try:
                with zipfile.ZipFile(packed) as archive:
                    for member in check_zip(archive, name, extracted=True):
                        archive.extract(member, folder)
            except (zipfile.BadZipFile, EOFError, ValueError):
                # What is missing in it will be named, and the one before it taken.
                pass


def _stamp(path: pathlib.Path) -> _Stamp:
    found = path.stat()
    return found.st_mtime_ns, found.st_size
