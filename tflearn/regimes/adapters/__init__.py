"""Adapters: small layers inside the layers of a frozen backbone."""

from tflearn.regimes.adapters.adapter import Adapter
from tflearn.regimes.adapters.attach import (
    activate,
    active_adapter,
    adapters_of,
    attach,
    attached,
    detach,
)

__all__ = [
    "Adapter",
    "activate",
    "active_adapter",
    "adapters_of",
    "attach",
    "attached",
    "detach",
]
