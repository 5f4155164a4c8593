"""Heads and poolings: Keras layers from a backbone's features to predictions.

They are ordinary Keras layers and need nothing else of tflearn: use them in a
`keras.Sequential`, in a functional model, in your own `keras.Model`.

Example:

>>> import keras
>>> from tflearn.heads import ClassificationHead, MeanPooling
>>> model = keras.Sequential([
...     keras.layers.Embedding(100, 16, mask_zero=True),
...     MeanPooling(),
...     ClassificationHead(3, hidden=(8,), dropout=0.1),
... ])
>>> model(keras.ops.array([[5, 7, 0, 0]])).shape == (1, 3)
True
"""

from tflearn.heads.classification import ClassificationHead, MultiLabelHead
from tflearn.heads.cosine import CosineLogits
from tflearn.heads.feature_maps import GeneralizedMeanPooling, GlobalAveragePooling
from tflearn.heads.language_model import (
    LanguageModel,
    MaskedTokenTransform,
    OutputBias,
)
from tflearn.heads.pooling import (
    AttentionPooling,
    FirstTokenPooling,
    LastTokenPooling,
    MaxPooling,
    MeanPooling,
)
from tflearn.heads.regression import RegressionHead

__all__ = [
    "AttentionPooling",
    "ClassificationHead",
    "CosineLogits",
    "FirstTokenPooling",
    "GeneralizedMeanPooling",
    "GlobalAveragePooling",
    "LanguageModel",
    "LastTokenPooling",
    "MaskedTokenTransform",
    "MaxPooling",
    "MeanPooling",
    "MultiLabelHead",
    "OutputBias",
    "RegressionHead",
]
