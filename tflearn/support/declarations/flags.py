"""What the command line gives to whoever reads declarations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Flags(Protocol):
    """The flags that say what is declared."""

    @property
    def gin_files(self) -> Sequence[str]:
        """Values of `--gin_file`."""
        ...

    @property
    def gin_bindings(self) -> Sequence[str]:
        """Values of `--gin_bindings`."""
        ...

    @property
    def gin_search_paths(self) -> Sequence[str]:
        """Values of `--gin_search_path`."""
        ...
