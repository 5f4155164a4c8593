"""Where data come from. Every source is a function that returns a table by split.

| source | reads |
|---|---|
| `csv`, `tsv`, `jsonl`, `parquet` | tables in files |
| `text_lines`, `text_files`, `conll` | a line a row, a file a row; tagged text |
| `image_folder`, `text_folder` | a folder a class, also inside tar and zip files |
| `npz`, `arrays` | NumPy arrays in files and in memory |
| `sklearn` | the sets that scikit-learn ships |
| `tfds`, `hugging_face` | sets of these libraries |
| `planted_motif` | generated sequences, half of them with a motif |

A function of your own works as well: it takes no arguments that are not declared, and
returns a sequence of dicts, or such sequences by split.

Example:
>>> from tflearn.data import sources
>>> len(sources.sklearn("iris")["all"])
150
"""

from tflearn.data.sources.delimited import csv, tsv
from tflearn.data.sources.folders import image_folder, text_folder
from tflearn.data.sources.generated import planted_motif
from tflearn.data.sources.libraries import hugging_face, tfds
from tflearn.data.sources.memory import arrays, npz, sklearn
from tflearn.data.sources.parquet_files import parquet
from tflearn.data.sources.text_files import conll, jsonl, text_files, text_lines

__all__ = [
    "arrays",
    "conll",
    "csv",
    "hugging_face",
    "image_folder",
    "jsonl",
    "npz",
    "parquet",
    "planted_motif",
    "sklearn",
    "text_files",
    "text_folder",
    "text_lines",
    "tfds",
    "tsv",
]
