"""Frozen layers, computed once instead of once an epoch; see `docs/frozen_prefix.md`.

`plan` says whether, `shortcut` computes and checks; the stage then trains a stand-in
made of the model's own layers.
"""
