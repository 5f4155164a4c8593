"""Images with the tokens of their captions."""

from __future__ import annotations

from typing import Any

import numpy as np

from tflearn.backbones import TextEncoder
from tflearn.data.examples import Examples, ImageExamples
from tflearn.support.errors import ConfigError, DataError

_LENGTH_MULTIPLE = 8


class CaptionedImages(Examples):
    """Images with the tokens of their captions.

    Args:
        images: The images.
        captions: One text an image.
        encoder: The text backbone's.
        max_length: Longest caption in tokens; None: what the encoder takes.
        truncate: Whether longer captions are cut.

    Raises:
        DataError: Captions are too long and not to be cut.
    """

    kind = "image"
    compared = True

    def __init__(
        self,
        images: ImageExamples,
        captions: np.ndarray,
        encoder: TextEncoder,
        *,
        max_length: int | None,
        truncate: bool,
    ) -> None:
        self.images = images
        self.inputs, self.lazy = images.inputs, images.lazy
        self._encoder = encoder
        self._tokens = encoder.tokenize([str(caption) for caption in captions])
        # Equal captions share a number, so that they are not pushed apart.
        self.numbers = np.unique(captions, return_inverse=True)[1].astype("int32")
        lengths = np.array([len(ids) for ids in self._tokens.ids])
        limit = _limit(encoder, max_length)
        self.notes = (*images.notes, *_check_lengths(lengths, limit, truncate))
        longest = -(-int(lengths.max()) // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE
        # One length a split: every other one would be another compilation.
        self._length = min(longest, limit)

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, indices: np.ndarray, *, length: int | None = None) -> Any:
        """Returns the images alone, `(batch, height, width, channels)`."""
        return self.images.batch(indices)

    def captions(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """Returns padded tokens by the names of the text backbone's inputs."""
        chosen = [self._tokens.ids[index] for index in np.asarray(indices).tolist()]
        tokens = type(self._tokens)(ids=chosen)
        return self._encoder.collate(tokens, self._length)


def _limit(encoder: TextEncoder, max_length: int | None) -> int:
    if max_length is not None and not 1 <= max_length <= encoder.max_length:
        raise ConfigError(
            "image_text.max_length is more than the text backbone takes",
            received=max_length,
            expected=f"at most {encoder.max_length} tokens",
        )
    return max_length or encoder.max_length


def _check_lengths(lengths: np.ndarray, limit: int, truncate: bool) -> tuple[str, ...]:
    long = int((lengths > limit).sum())
    if not long:
        return ()
    line = f"{long:,} of {len(lengths):,} captions are longer than {limit} tokens"
    if not truncate:
        raise DataError(
            line,
            received=f"up to {lengths.max()} tokens",
            fix="declare image_text.truncate = True to cut them, or raise "
            "image_text.max_length if the text backbone takes more",
        )
    return (f"{line} and are cut",)
