"""What a stage optimises: targets, head, loss and metrics.

Example:

>>> from tflearn import objectives
>>> objectives.classification().target_kind
'class'
"""

from tflearn.objectives import teachers
from tflearn.objectives.distillation import distillation
from tflearn.objectives.objective import Network, Objective
from tflearn.objectives.pretext import Pretext, SelfSupervised
from tflearn.objectives.supervised import classification, multi_label, regression

__all__ = [
    "Network",
    "Objective",
    "Pretext",
    "SelfSupervised",
    "classification",
    "distillation",
    "multi_label",
    "regression",
    "teachers",
]
