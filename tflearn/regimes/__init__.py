"""Which weights may move: ordered rules, the census of what they did, the proof.

>>> from tflearn import regimes
>>> [rule.action for rule in regimes.frozen()]
['freeze', 'train']
"""

from tflearn.regimes.adaptation import rehearsal
from tflearn.regimes.adapter_rules import dora, ia3, lora, low_rank, qlora, rescaled
from tflearn.regimes.census import Census, CensusRow
from tflearn.regimes.proof import check_unchanged, frozen_digests
from tflearn.regimes.rules import (
    Rule,
    freeze,
    fresh,
    frozen,
    full,
    merge,
    partial,
    scratch,
    train,
    train_above,
    train_last,
)
from tflearn.regimes.selective import bitfit, norm_only
from tflearn.regimes.structural import bottleneck, houlsby, pfeiffer, prefix, prompt
from tflearn.regimes.trainability import apply, reinitialize

__all__ = [
    "Census",
    "CensusRow",
    "Rule",
    "apply",
    "bitfit",
    "bottleneck",
    "check_unchanged",
    "dora",
    "freeze",
    "fresh",
    "frozen",
    "frozen_digests",
    "full",
    "houlsby",
    "ia3",
    "lora",
    "low_rank",
    "merge",
    "norm_only",
    "partial",
    "pfeiffer",
    "prefix",
    "prompt",
    "qlora",
    "rehearsal",
    "reinitialize",
    "rescaled",
    "scratch",
    "train",
    "train_above",
    "train_last",
]
