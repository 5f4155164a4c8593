"""Objects of a bucket: whole files that are put, got and deleted under a URL.

A store of objects has no append, no rename of folders and no lock; what it has is that
an object appears whole or not at all, and that one can be created only if it is absent.
fsspec speaks to all of them; its file systems come with libraries of their own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import re
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from tflearn.support.errors import ConfigError, RunError, nearest

# Two letters at least: `c:/runs` is a folder. `pathlib` makes one slash of two.
_URL = re.compile(r"(?P<protocol>[A-Za-z][A-Za-z0-9+.-]+):/{1,2}(?P<rest>[^/].*|/.*)?")
_INSTALL = {
    "gs": 'pip install "tflearn-gin[gcs]"',
    "gcs": 'pip install "tflearn-gin[gcs]"',
    "s3": "pip install s3fs",
    "s3a": "pip install s3fs",
    "abfs": "pip install adlfs",
    "az": "pip install adlfs",
}
# What these are given appears as a whole; others write a file from its beginning.
_WHOLE = (*_INSTALL, "memory")
_KINDS = ("file", "directory")


class Unreachable(RunError):
    """A bucket that does not answer, or refuses: nobody's mistake, so try again.

    Attributes:
        exit_code: What the command line ends with; 2, a mistake, is never restarted.
    """

    exit_code = 75


def split(name: object) -> tuple[str, str] | None:
    """Splits a URL into its protocol and the rest; None for a path of this machine.

    Example:

    >>> split("gs://bucket/run/"), split("runs/a"), split("file:///tmp/a")
    (('gs', 'bucket/run'), None, None)
    """
    text = str(name)
    match = _URL.fullmatch(text)
    if match is None:
        # Nothing that is known; never a local folder of a strange name.
        before, slashes, rest = text.partition("://")
        return (before, rest) if slashes else None
    if match["protocol"] == "file":
        return None
    return match["protocol"], (match["rest"] or "").rstrip("/")


@dataclasses.dataclass(frozen=True)
class Bucket:
    """What lies under a URL; names are relative to it.

    Args:
        url: Where, without a slash at its end.
        protocol: What stands before `://`.
        system: The file system of fsspec.
        root: The URL as that names it.
    """

    url: str
    protocol: str
    system: Any
    root: str

    def at(self, name: str) -> Bucket:
        """Returns what lies under a name."""
        inside = f"/{name}" if name else ""
        return dataclasses.replace(self, url=self.url + inside, root=self.root + inside)

    def names(self, under: str = "") -> list[str]:
        """Lists all objects under a name."""
        where = f"{self.root}/{under}".rstrip("/")
        with self._asked("list", under):
            return self._inside(where, self.system.find(where))

    def top(self, under: str = "") -> tuple[list[str], list[str]]:
        """Lists the objects right under a name, and the names that others lie under."""
        where, found = f"{self.root}/{under}".rstrip("/"), []
        with self._asked("list", under), contextlib.suppress(FileNotFoundError):
            found = self.system.ls(where, detail=True)
        kinds = {
            kind: [x["name"] for x in found if x["type"] == kind] for kind in _KINDS
        }
        return (
            self._inside(where, kinds["file"]),
            self._inside(where, [x.rstrip("/") for x in kinds["directory"]]),
        )

    def _inside(self, where: str, found: Iterable[str]) -> list[str]:
        # A store may list the folder itself, as an object without a name.
        inside = [x for x in found if x.startswith(f"{where}/") and x[-1] != "/"]
        return sorted(x[len(self.root) + 1 :] for x in inside)

    def get(self, name: str, path: pathlib.Path) -> None:
        """Copies an object into a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._asked("read", name):
            self.system.get_file(f"{self.root}/{name}", str(path))

    def put(self, path: pathlib.Path, name: str) -> None:
        """Copies a file into an object, which appears as a whole."""
        target = f"{self.root}/{name}"
        with self._asked("write", name):
            if self.protocol in _WHOLE:
                self.system.put_file(str(path), target)
                return
            aside = f"{target}.{uuid.uuid4().hex}.unfinished"
            self._make_folder(target)
            self.system.put_file(str(path), aside)
            self.system.mv(aside, target)

    def copy(self, name: str, target: str) -> None:
        """Copies an object inside the bucket."""
        with self._asked("copy", name):
            self._make_folder(f"{self.root}/{target}")
            self.system.cp_file(f"{self.root}/{name}", f"{self.root}/{target}")

    def delete(self, name: str) -> None:
        """Deletes an object, if it is there."""
        with self._asked("delete", name), contextlib.suppress(FileNotFoundError):
            self.system.rm_file(f"{self.root}/{name}")

    def read(self, name: str) -> bytes | None:
        """Returns what an object holds; None if there is none."""
        with self._asked("read", name), contextlib.suppress(FileNotFoundError):
            return self.system.cat_file(f"{self.root}/{name}")
        return None

    def write(self, name: str, content: bytes) -> None:
        """Writes a small object."""
        with self._asked("write", name):
            self._make_folder(f"{self.root}/{name}")
            self.system.pipe_file(f"{self.root}/{name}", content)

    def create(self, name: str, content: bytes) -> bool:
        """Writes a small object if there is none; returns whether it was so."""
        with self._asked("write", name):
            self._make_folder(f"{self.root}/{name}")
            try:
                self.system.pipe_file(f"{self.root}/{name}", content, mode="create")
            except FileExistsError:
                return False
        return True

    def _make_folder(self, target: str) -> None:
        # Stores of objects have none; some would make a bucket of a wrong name instead.
        if self.protocol not in _WHOLE:
            self.system.makedirs(target.rpartition("/")[0], exist_ok=True)

    @contextlib.contextmanager
    def _asked(self, to: str, name: str) -> Iterator[None]:
        try:
            yield
        # Every library below has errors of its own for a network, a right, a bucket.
        except Exception as error:
            told = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise Unreachable(
                f"the bucket does not let this machine {to}",
                received=f"{self.url}/{name}: {told}",
                fix="look at the bucket's name, your credentials and the network; "
                "start the same command again: nothing that was saved is lost",
            ) from error


def connect(url: str) -> Bucket:
    """Opens what lies under a URL; nothing is read or written yet.

    Args:
        url: Such as `gs://bucket/run`.

    Returns:
        The bucket.

    Raises:
        ConfigError: The protocol is unknown, or its library is not installed.

    Example:

    >>> bucket = connect("memory://docs/run")
    >>> bucket.create("a/b", b"1"), bucket.create("a/b", b"2"), bucket.read("a/b")
    (True, False, b'1')
    >>> bucket.names()
    ['a/b']
    """
    # Imported here: most runs write to folders.
    import fsspec

    protocol, rest = split(url) or ("", "")
    known = [*_INSTALL, *fsspec.available_protocols()]
    if protocol not in known:
        raise ConfigError(
            "nothing is known that stores files under this address",
            received=url,
            expected="a folder, or gs://BUCKET/FOLDER, s3://BUCKET/FOLDER",
            nearest=nearest(protocol, known),
        )
    if not rest.strip("/"):
        raise ConfigError(
            "an address of a run names a bucket and a folder in it",
            received=url,
            expected=f"such as {protocol}://BUCKET/FOLDER",
        )
    url = f"{protocol}://{rest}"
    try:
        # A listing that is kept would not show what another process wrote.
        system = fsspec.filesystem(protocol, use_listings_cache=False)
    except ImportError as error:
        raise ConfigError(
            f"the library that reads and writes {protocol}:// is not installed",
            received=f"{url}: {error}",
            fix=_INSTALL.get(protocol),
        ) from error
    root = str(system._strip_protocol(url)).rstrip("/")
    return Bucket(url=url, protocol=protocol, system=system, root=root)
