"""Where data come from. Every source is a function that returns a table by split.

| source | reads |
|---|---|
| `csv`, `tsv`, `jsonl`, `parquet` | tables in files |
| `text_lines`, `text_files`, `conll` | a line a row, a file a row; tagged text |
| `image_folder`, `text_folder` | a folder a class, also inside tar and zip files |
| `image_table` | tables that name image files, such as captions |
| `captioned` | any source, with texts made of its columns by a template |
| `npz`, `arrays` | NumPy arrays in files and in memory |
| `sklearn` | the sets that scikit-learn ships |
| `tfds`, `hugging_face` | sets of these libraries |
| `planted_motif` | generated sequences, half of them with a motif |
| `drawn_shapes` | generated images of coloured shapes |

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
from tflearn.data.sources.pictures import captioned, image_table
from tflearn.data.sources.shapes import drawn_shapes
from tflearn.data.sources.text_files import conll, jsonl, text_files, text_lines

__all__ = [
    "arrays",
    "captioned",
    "conll",
    "csv",
    "drawn_shapes",
    "hugging_face",
    "image_folder",
    "image_table",
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
