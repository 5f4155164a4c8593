"""What the data floor and the model floors agree on: shapes, classes, encoders.

Neither floor imports the other. Data describe themselves by a `Spec`; a backbone
brings an encoder that follows one of the protocols below.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

TARGET_KINDS = ("class", "multi_label", "number", "text", "none")

#: An input is a text, a pair of texts, an image or a vector.
INPUT_KINDS = ("text", "pair", "image", "vector")

Batch = dict[str, np.ndarray] | np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """Shape and type of one array of an example.

    Args:
        shape: Shape without the batch dimension; None where it varies.
        dtype: Name of the type, such as `int32`.
    """

    shape: tuple[int | None, ...]
    dtype: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
    """What a model has to know of its data, and a reader of a run.

    Args:
        inputs: The arrays of an example by name.
        target: `class`, `multi_label`, `number`, `text` or `none`.
        classes: Names of the classes in the order of the outputs.
        num_outputs: Size of the last dimension of the model's output.
        num_examples: Number of examples by split.
        class_counts: Number of examples by split and class.
    """

    inputs: Mapping[str, TensorSpec]
    target: str
    classes: tuple[str, ...]
    num_outputs: int
    num_examples: Mapping[str, int]
    class_counts: Mapping[str, Mapping[str, int]]


class Tokens(Protocol):
    """Tokenized texts: a dataclass of lists, one entry a text."""

    ids: list[np.ndarray]
    segments: list[np.ndarray] | None


@runtime_checkable
class TextEncoder(Protocol):
    """Turns texts into padded arrays of token ids."""

    max_length: int

    def tokenize(self, texts: Sequence[str | tuple[str, str]]) -> Any:
        """Returns `Tokens` with special tokens, not truncated."""
        ...

    def collate(self, tokens: Any, length: int) -> dict[str, np.ndarray]:
        """Returns arrays `(batch, length)`, padded and truncated to `length`."""
        ...


@runtime_checkable
class ImageEncoder(Protocol):
    """Turns images of any size into the arrays a backbone takes."""

    image_size: tuple[int, int]
    channels: int

    def resize(self, image: np.ndarray) -> np.ndarray:
        """Returns uint8 `(height, width, channels)` of `image_size`."""
        ...

    def scale(self, batch: np.ndarray) -> np.ndarray:
        """Returns float32 of a uint8 batch `(batch, height, width, channels)`."""
        ...


@runtime_checkable
class VectorEncoder(Protocol):
    """Turns rows of numbers into a float32 matrix."""

    size: int

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Returns float32 `(batch, size)`."""
        ...
