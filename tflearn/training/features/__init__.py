"""Frozen layers, computed once instead of once an epoch; see `docs/frozen_prefix.md`.

`plan` says whether, `gather` computes, `shortcut` checks and makes what stands in for a
stage while it trains: the model's own layers behind the cut. `resident` runs the steps
of a head on the device, `search` tries many heads at once.
"""

from tflearn.training.features.grid import Grid

__all__ = ["Grid"]
