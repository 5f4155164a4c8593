"""Measuring a model: predictions, metrics with intervals, calibration.

Example:

>>> import numpy as np
>>> from tflearn import evaluation
>>> logits = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0], [0.0, 2.0]])
>>> result = evaluation.evaluate("class", np.array([0, 1, 1, 1]), logits,
...                              classes=("no", "yes"))
>>> result.metrics["accuracy"].value
0.75
"""

from tflearn.evaluation.bootstrap import Estimate
from tflearn.evaluation.calibration import (
    expected_calibration_error,
    fit_temperature,
)
from tflearn.evaluation.inference import predict_outputs
from tflearn.evaluation.metrics import Evaluation, evaluate, headline
from tflearn.evaluation.statistics import Scorer, evaluate_statistics
from tflearn.evaluation.worst import worst_errors

__all__ = [
    "Estimate",
    "Evaluation",
    "Scorer",
    "evaluate",
    "evaluate_statistics",
    "expected_calibration_error",
    "fit_temperature",
    "headline",
    "predict_outputs",
    "worst_errors",
]
