"""What a stage optimises: targets, head, loss and metrics.

Example:

>>> from tflearn import objectives
>>> objectives.classification().target_kind
'class'
"""

from tflearn.objectives import teachers
from tflearn.objectives.distillation import distillation
from tflearn.objectives.image_text import image_text
from tflearn.objectives.language import (
    causal_lm,
    masked_lm,
    replaced_tokens,
    seq2seq,
    simcse,
    span_corruption,
)
from tflearn.objectives.masked_image import masked_image
from tflearn.objectives.objective import Network, Objective
from tflearn.objectives.pretext import Pretext, SelfSupervised
from tflearn.objectives.simclr import simclr
from tflearn.objectives.supervised import classification, multi_label, regression
from tflearn.objectives.views import Views

__all__ = [
    "Network",
    "Objective",
    "Pretext",
    "SelfSupervised",
    "Views",
    "causal_lm",
    "classification",
    "distillation",
    "image_text",
    "masked_image",
    "masked_lm",
    "multi_label",
    "regression",
    "replaced_tokens",
    "seq2seq",
    "simclr",
    "simcse",
    "span_corruption",
    "teachers",
]
