"""Objectives that text teaches by itself.

| objective | backbone | learns by |
|---|---|---|
| `causal_lm` | decoder | predicting the next token |
| `masked_lm` | encoder | predicting masked tokens |
| `span_corruption` | encoder-decoder | restoring spans that were cut out |
| `replaced_tokens` | encoder | telling tokens of a generator from real ones |
| `simcse` | encoder | telling texts apart under dropout |
"""

from tflearn.objectives.language.causal_lm import causal_lm
from tflearn.objectives.language.masked_lm import masked_lm
from tflearn.objectives.language.replaced_tokens import replaced_tokens
from tflearn.objectives.language.simcse import simcse
from tflearn.objectives.language.span_corruption import span_corruption

__all__ = [
    "causal_lm",
    "masked_lm",
    "replaced_tokens",
    "simcse",
    "span_corruption",
]
