"""Data: sources, splits, checks, encoding, augmentation and batches.

Example:
>>> from tflearn import data
>>> iris = data.Data(
...     source=lambda: data.sources.sklearn("iris"),
...     input="vector",
...     splits={"train": 0.8, "test": 0.2},
... )
>>> loaded = iris.load(target_kind="class")
>>> loaded.classes
('setosa', 'versicolor', 'virginica')
"""

from tflearn.data import sources
from tflearn.data.data import Data
from tflearn.data.dataset import Dataset, Split
from tflearn.data.images import Image, open_image
from tflearn.data.rehearsal import Rehearsal
from tflearn.data.spec import Spec, TensorSpec
from tflearn.data.table import BadRow, Table
from tflearn.data.texts import training_texts

__all__ = [
    "BadRow",
    "Data",
    "Dataset",
    "Image",
    "Rehearsal",
    "Spec",
    "Split",
    "Table",
    "TensorSpec",
    "open_image",
    "sources",
    "training_texts",
]
