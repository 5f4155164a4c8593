"""Special tokens around texts, and how a text that is too long is cut."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from tflearn.support.ragged import Ragged


@dataclasses.dataclass(frozen=True, kw_only=True)
class Packing:
    """Which special tokens a backbone expects, and where.

    Args:
        start: Put before a text.
        separator: Put between the texts of a pair.
        end: Put behind the last text.
        pad: Fills a text up to the length of its batch.
        pad_left: Whether to fill up on the left.
        pairs: Whether the backbone takes pairs of texts.
        waterfall: How a pair is cut: the first text keeps all it can; otherwise both
            are cut in turn.
    """

    start: tuple[int, ...] = ()
    separator: tuple[int, ...] = ()
    end: tuple[int, ...] = ()
    pad: int = 0
    pad_left: bool = False
    pairs: bool = False
    waterfall: bool = False

    def pack(
        self, first: Sequence[int], second: Sequence[int] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Puts special tokens around a text or a pair.

        Args:
            first: Token ids.
            second: Token ids of the second text of a pair.

        Returns:
            Token ids and segments, int32 `(length,)` each.

        Example:

        >>> ids, segments = Packing(start=(1,), separator=(2,), end=(2,)).pack([7], [8])
        >>> ids.tolist(), segments.tolist()
        ([1, 7, 2, 8, 2], [0, 0, 0, 1, 1])
        """
        head = [*self.start, *first]
        tail: list[int] = list(self.end)
        if second is not None:
            head += self.separator
            tail = [*second, *self.end]
        ids = np.array(head + tail, "int32")
        segments = np.zeros(len(ids), "int32")
        if second is not None:
            segments[len(head) :] = 1
        return ids, segments

    def pack_all(
        self, pieces: Ragged, pairs: np.ndarray
    ) -> tuple[Ragged, Ragged | None]:
        """Does to many texts and pairs what `pack` does to one.

        Args:
            pieces: Token ids: a row a text, two rows a pair.
            pairs: Whether each text is a pair, bool `(n,)`.

        Returns:
            Token ids and segments, a row a text; no segments if nothing is a pair.

        Example:

        >>> ids, _ = Packing(start=(1,), end=(2,)).pack_all(
        ...     Ragged.of([[7, 8], []]), np.array([False, False])
        ... )
        >>> [row.tolist() for row in ids]
        [[1, 7, 8, 2], [1, 2]]
        """
        first = np.arange(len(pairs)) + np.cumsum(pairs) - pairs
        lengths, separator = pieces.lengths, len(self.separator)
        heads = lengths[first] + len(self.start) + pairs * separator
        tails = np.full(len(pairs), len(self.end))
        tails[pairs] += lengths[first[pairs] + 1]
        ends = np.cumsum(heads + tails)
        starts = ends - heads - tails
        flat = np.empty(ends[-1] if len(ends) else 0, np.int32)
        own = np.ones(len(flat), bool)
        special = (
            (self.start, starts),
            (self.separator, (starts + heads - separator)[pairs]),
            (self.end, ends - len(self.end)),
        )
        for tokens, places in special:
            for place, token in enumerate(tokens):
                flat[places + place] = token
                own[places + place] = False
        flat[own] = pieces.rows_flat
        ids = Ragged.cut(flat, heads + tails)
        if not pairs.any():
            return ids, None
        # One behind the head of a pair the second segment begins, and ends with it.
        segment = np.repeat(np.tile([0, 1], len(pairs)), _interleaved(heads, tails))
        segment[np.repeat(~pairs, heads + tails)] = 0
        return ids, Ragged.cut(segment.astype(np.int8), heads + tails)

    def cut(
        self, ids: np.ndarray, segments: np.ndarray, length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Shortens a packed text to a length; the special tokens stay.

        Args:
            ids: Packed token ids.
            segments: Their segments.
            length: How many tokens remain at most.

        Returns:
            Token ids and segments.
        """
        if len(ids) <= length:
            return ids, segments
        if segments.any():
            keep = self._keep_of_pair(segments, length)
        else:
            position = np.arange(len(ids))
            kept = max(0, length - len(self.end))
            keep = (position < kept) | (position >= len(ids) - len(self.end))
        return ids[keep], segments[keep]

    def _keep_of_pair(self, segments: np.ndarray, length: int) -> np.ndarray:
        special = len(self.start) + len(self.separator) + len(self.end)
        total = len(segments)
        in_first = int((segments == 0).sum()) - len(self.start) - len(self.separator)
        in_second = total - special - in_first
        space = max(0, length - special)
        # In turn: token by token from both while there is space, the first one first.
        share = space if self.waterfall else max(space - space // 2, space - in_second)
        first = min(in_first, share)
        second = min(in_second, space - first)
        position = np.arange(total)
        middle = len(self.start) + in_first
        behind = middle + len(self.separator)
        return (
            (position < len(self.start) + first)
            | ((position >= middle) & (position < behind + second))
            | (position >= total - len(self.end))
        )


def _interleaved(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.stack([first, second], axis=1).reshape(-1)
