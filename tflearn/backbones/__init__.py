"""Backbones: models that turn inputs into features, and where they come from.

>>> import keras
>>> from tflearn import backbones
>>> def perceptron():
...     return keras.Sequential([keras.Input((2,)), keras.layers.Dense(4)])
>>> backbones.function(perceptron).kind
'vector'
"""

from tflearn.backbones.applications import application
from tflearn.backbones.backbone import Backbone
from tflearn.backbones.encoder_files import load_encoder
from tflearn.backbones.images import ImageEncoder, Scaling, normalized
from tflearn.backbones.libraries import import_keras_hub, load_model
from tflearn.backbones.shortened import shortened
from tflearn.backbones.sources import (
    cv,
    from_run,
    function,
    hub,
    preset,
    with_weights,
)
from tflearn.backbones.text import TextEncoder, Tokens
from tflearn.backbones.transfer import TransferLog
from tflearn.backbones.vectors import VectorEncoder
from tflearn.backbones.weight_files import read_weights

__all__ = [
    "Backbone",
    "ImageEncoder",
    "Scaling",
    "TextEncoder",
    "Tokens",
    "TransferLog",
    "VectorEncoder",
    "application",
    "cv",
    "from_run",
    "function",
    "hub",
    "import_keras_hub",
    "load_encoder",
    "load_model",
    "normalized",
    "preset",
    "read_weights",
    "shortened",
    "with_weights",
]
