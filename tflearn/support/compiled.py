"""What XLA compiled in earlier runs, kept for the next.

JAX reads and writes the files; here is said where they lie, for which machines they are
good, and how much room they may take. A file that another process is still writing, or
that was cut off by a kill, is a miss and no error.

`JAX_COMPILATION_CACHE_DIR` names another folder, `JAX_ENABLE_COMPILATION_CACHE=0` turns
the cache off. TensorFlow keeps nothing: its own graphs are not compiled, and XLA under
TensorFlow has no such files on CPUs.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import platform
import sys

from tflearn.support import cache

#: The oldest files go when all take more.
MOST_BYTES = 4 * 2**30
_SETTINGS = {
    "jax_compilation_cache_dir": None,
    # A step of a small model compiles quickly; a run has dozens of such functions.
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": 0,
}


def keep() -> pathlib.Path | None:
    """Makes JAX keep what it compiles; called before anything is compiled.

    Returns:
        The folder; None where the user named another, turned the cache off, or the
        folder cannot be made.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ or _is_off():
        return None
    folder = cache.root() / "compiled" / machine()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        prune(folder.parent, most_bytes=MOST_BYTES)
    except OSError:
        return None
    settings = _SETTINGS | {"jax_compilation_cache_dir": str(folder)}
    for name, value in settings.items():
        # Read when JAX is imported, here or in a process that this one starts.
        os.environ.setdefault(name.upper(), str(value))
    jax = sys.modules.get("jax")
    if jax is not None:
        for name, value in settings.items():
            jax.config.update(name, value)
    return folder


def machine() -> str:
    """Returns a name that machines share which run each other's instructions.

    A home directory may be mounted on several kinds: code for one of them would end a
    process on another, and JAX's own key does not hold the processor.
    """
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    kinds = ("flags", "model name", "Features")
    said = sorted({line for line in lines if line.startswith(kinds)})
    key = "\n".join([platform.machine(), platform.system(), *said])
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def prune(folder: pathlib.Path, *, most_bytes: int) -> int:
    """Deletes the files that were not used for longest, until the rest fit.

    Args:
        folder: Holds a folder a machine.
        most_bytes: What all files may take.

    Returns:
        How many files went. Another process that was about to read one compiles.
    """
    found = []
    for path in folder.glob("*/*"):
        try:
            state = path.stat()
        except FileNotFoundError:
            continue
        found.append((max(state.st_atime, state.st_mtime), state.st_size, path))
    excess = sum(size for _, size, _ in found) - most_bytes
    gone = 0
    for _, size, path in sorted(found):
        if excess <= 0:
            break
        path.unlink(missing_ok=True)
        excess, gone = excess - size, gone + 1
    return gone


def _is_off() -> bool:
    said = os.environ.get("JAX_ENABLE_COMPILATION_CACHE", "1")
    return said.lower() in ("0", "false", "no", "off", "f", "n")
