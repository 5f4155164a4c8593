"""Objectives that text teaches by itself.

| objective | backbone | learns by |
|---|---|---|
| `causal_lm` | decoder | predicting the next token |
| `masked_lm` | encoder | predicting masked tokens |
| `span_corruption` | encoder-decoder | restoring spans that were cut out |
| `replaced_tokens` | encoder | telling replaced tokens from real ones |
| `simcse` | encoder | telling texts apart under dropout |
"""

from tflearn.objectives.language.causal_lm import causal_lm

__all__ = ["causal_lm"]
