"""How a run lies on devices, and in which precision it computes."""

from tflearn.distribution.plan import KINDS, Devices, Distribution, resolve
from tflearn.distribution.precision import set_precision

__all__ = ["KINDS", "Devices", "Distribution", "resolve", "set_precision"]
