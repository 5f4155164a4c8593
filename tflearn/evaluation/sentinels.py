"""Sentinels in texts: what spans that were cut out are called."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from tflearn.backbones import TextEncoder
from tflearn.objectives.language.span_corruption import sentinels_of

_SENTINEL = re.compile(r"<extra_id_(\d+)>")


def tokenize(
    encoder: TextEncoder, texts: Sequence[str], *, size: int
) -> list[np.ndarray]:
    """Tokenizes texts in which `<extra_id_0>`, ... stand for sentinels.

    Args:
        encoder: Of the backbone.
        texts: The texts; those without a sentinel are tokenized as ever.
        size: Tokens that the backbone can embed.

    Returns:
        int32 ids with special tokens, `(length,)` each.
    """
    marked = [row for row, text in enumerate(texts) if _SENTINEL.search(text)]
    # A vocabulary need not have the letters that a sentinel is written in.
    written = [_SENTINEL.sub("", text) for text in texts]
    tokens = list(encoder.tokenize(written).ids)
    if not marked:
        return tokens
    ids = sentinels_of(encoder, size)
    for row in marked:
        inner: list[int] = []
        # Parts of a text, and between them the numbers of the sentinels.
        for place, part in enumerate(_SENTINEL.split(texts[row])):
            if place % 2 == 0:
                inner += [int(x) for x in encoder.tokenizer([part])[0]] if part else []
            elif int(part) < len(ids):
                inner.append(ids[int(part)])
        tokens[row] = encoder.packing.pack(inner)[0]
    return tokens


def decode(encoder: TextEncoder, ids: np.ndarray, *, size: int) -> str:
    """Makes a text of ids, those beyond the vocabulary as `<extra_id_0>`, ....

    Args:
        encoder: Of the backbone.
        ids: Ids of one text, int `(length,)`.
        size: Tokens that the backbone can embed.

    Returns:
        The text; special tokens and ids that stand for nothing are left out.
    """
    if not (ids >= encoder.tokenizer.vocabulary_size()).any():
        return encoder.decode(ids)
    numbers = {token: k for k, token in enumerate(sentinels_of(encoder, size))}
    known = ids < encoder.tokenizer.vocabulary_size()
    text, start = "", 0
    for place in [*np.flatnonzero(~known).tolist(), len(ids)]:
        text += encoder.decode(ids[start:place]) if place > start else ""
        if place < len(ids) and int(ids[place]) in numbers:
            text += f"<extra_id_{numbers[int(ids[place])]}>"
        start = place + 1
    return text
