"""Objectives that text teaches by itself, and text to text.

| objective | backbone | learns by |
|---|---|---|
| `causal_lm` | decoder | predicting the next token |
| `masked_lm` | encoder | predicting masked tokens |
| `span_corruption` | encoder-decoder | restoring spans that were cut out |
| `replaced_tokens` | encoder | telling tokens of a generator from real ones |
| `seq2seq` | encoder-decoder | writing the text of the target column |
| `simcse` | encoder | telling texts apart under dropout |
"""

from tflearn.objectives.language.causal_lm import causal_lm
from tflearn.objectives.language.masked_lm import masked_lm
from tflearn.objectives.language.replaced_tokens import replaced_tokens
from tflearn.objectives.language.seq2seq import seq2seq
from tflearn.objectives.language.simcse import simcse
from tflearn.objectives.language.span_corruption import span_corruption

__all__ = [
    "causal_lm",
    "masked_lm",
    "replaced_tokens",
    "seq2seq",
    "simcse",
    "span_corruption",
]
