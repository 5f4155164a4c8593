"""Arms of one experiment on equal terms: declared, tuned, run, gathered.

>>> from tflearn import comparison
>>> comparison.Comparison(seeds=(0, 1), budget="600 steps").seeds
(0, 1)
"""

from tflearn.comparison.declaration import Arm, Comparison, Tuning

__all__ = ["Arm", "Comparison", "Tuning"]
