"""What a run ran on: versions, hardware, memory."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import resource
import sys

_LIBRARIES = (
    "tflearn-gin",
    "keras",
    "keras-hub",
    "keras-cv",
    "jax",
    "tensorflow",
    "grain",
    "orbax-checkpoint",
    "gin-config",
    "numpy",
    "scikit-learn",
)


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the libraries that are installed."""
    found = {"python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def untested() -> list[str]:
    """Returns a line for every library outside the range that the tests ran with.

    Example:

    >>> untested()
    []
    """
    from packaging.requirements import Requirement

    try:
        declared = importlib.metadata.requires("tflearn-gin") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    found = []
    for requirement in map(Requirement, declared):
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            version = "none"
        if version == "none" or version not in requirement.specifier:
            tested = str(requirement.specifier)
            found.append(f"{requirement.name} {version} is untested, tested: {tested}")
    return found


def hardware() -> dict[str, object]:
    """Returns the processor, the cores this process may use, and the memory."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def peak_memory_bytes() -> int:
    """Returns the most host memory this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Kilobytes on Linux, bytes on macOS.
    return peak if sys.platform == "darwin" else peak * 1024


def _processor() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0
