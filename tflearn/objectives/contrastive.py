"""Contrastive losses over pairs: NT-Xent and InfoNCE.

Both take pairs `(batch, 2, dim)` and compare each with all others of the batch. The
targets `(batch,)` number the examples: two rows of one example, as in the last batch
of a split that is filled up by repetition, are not pushed apart.

The batch is the global one. JAX computes a batch that is divided over devices as a
whole, so the losses see the pairs of all devices without any code here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from tflearn.support.errors import ConfigError, nearest

# Added to the score of what is no negative; finite, so that a pair without any
# negative has the loss 0 and a gradient.
_EXCLUDED = -1e9


def nt_xent(pairs: Any, examples: Any, *, temperature: float) -> Any:
    """Computes the normalised temperature-scaled cross-entropy of SimCLR.

    For each of the `2 batch` views, `-log(e^(s_p / t) / (e^(s_p / t) + sum e^(s_n /
    t)))`: `s_p` is the cosine to the other view of its pair, `s_n` the cosine to a
    view of another example.

    Args:
        pairs: Embeddings of two views of each example, `(batch, 2, dim)`; their
            lengths do not matter.
        examples: Number of the example in each row, `(batch,)`.
        temperature: `t`.

    Returns:
        Mean over the two views, `(batch,)`, float32.

    Example:

    >>> import numpy as np
    >>> pairs = np.array([[[1.0, 0], [1, 0]], [[0, 1], [0, 1]]])
    >>> values = nt_xent(pairs, np.arange(2), temperature=0.5)
    >>> bool(np.allclose(values, np.log(1 + 2 * np.exp(-2)), atol=1e-6))
    True

    References:
        Chen et al. 2020, https://arxiv.org/abs/2002.05709
    """
    positive, negative = _view_scores(pairs, examples)
    return _per_pair(_cross_entropy(positive / temperature, negative / temperature))


def views_found(pairs: Any, examples: Any) -> Any:
    """Tells for which views the other view of the example is the nearest of all.

    Args:
        pairs: As in `nt_xent`.
        examples: As in `nt_xent`.

    Returns:
        Share of the two views, `(batch,)`, float32.
    """
    return _per_pair(_found(*_view_scores(pairs, examples)))


def info_nce(pairs: Any, examples: Any, *, temperature: float = 1.0) -> Any:
    """Computes the symmetric contrastive loss between the two sides of pairs.

    The first side of a row chooses among all second sides, the second among all first
    ones, each by cross-entropy over the scores `<first_i, second_j> / temperature`.

    Args:
        pairs: Embeddings `(batch, 2, dim)`, used as they are: normalise them before.
        examples: Number of the example in each row, `(batch,)`.
        temperature: Divides the scores.

    Returns:
        Mean over both directions, `(batch,)`, float32.

    Example:

    >>> import numpy as np
    >>> same = np.ones((4, 2, 3))
    >>> bool(np.allclose(info_nce(same, np.arange(4)), np.log(4), atol=1e-6))
    True

    References:
        Radford et al. 2021, https://arxiv.org/abs/2103.00020
    """
    positive, rows, columns = _side_scores(pairs, examples)
    return (
        _cross_entropy(positive / temperature, rows / temperature)
        + _cross_entropy(positive / temperature, columns / temperature)
    ) / 2


def sides_found(pairs: Any, examples: Any) -> tuple[Any, Any]:
    """Tells which sides of pairs find their partner among all of the batch.

    Args:
        pairs: As in `info_nce`.
        examples: As in `info_nce`.

    Returns:
        1 where the first side's best second side is its own, and the same from the
        second to the first; `(batch,)` each, float32.
    """
    positive, rows, columns = _side_scores(pairs, examples)
    return _found(positive, rows), _found(positive, columns)


@keras.saving.register_keras_serializable(package="tflearn")
class PairLoss(keras.losses.Loss):
    """`nt_xent` or `info_nce` as a Keras loss.

    Args:
        name: Which of the two.
        temperature: Divides the scores; positive.

    Raises:
        ConfigError: There is no such loss, or the temperature is not positive.
    """

    # On TensorFlow a device would see the pairs of its own rows alone.
    needs_whole_batch = True

    def __init__(self, name: str, *, temperature: float = 1.0) -> None:
        if name not in _LOSSES:
            raise ConfigError(
                "no such loss over pairs",
                received=name,
                expected=", ".join(_LOSSES),
                nearest=nearest(str(name), _LOSSES),
            )
        super().__init__(name=name)
        self.temperature = positive_temperature(temperature)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Computes the loss of each pair."""
        return _LOSSES[self.name](y_pred, y_true, temperature=self.temperature)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {"name": self.name, "temperature": self.temperature}


_LOSSES: dict[str, Callable[..., Any]] = {"nt_xent": nt_xent, "info_nce": info_nce}


def positive_temperature(temperature: float) -> float:
    """Returns a temperature that can divide scores.

    Raises:
        ConfigError: It is not positive.
    """
    if temperature <= 0:
        raise ConfigError(
            "a temperature is positive", received=temperature, expected="such as 0.5"
        )
    return temperature


def _view_scores(pairs: Any, examples: Any) -> tuple[Any, Any]:
    """Returns each view's score with its pair `(2 batch,)` and with all others."""
    units = ops.normalize(ops.cast(pairs, "float32"), axis=-1)
    positive = ops.repeat(ops.sum(units[:, 0] * units[:, 1], axis=-1), 2)
    views = ops.reshape(units, (-1, units.shape[-1]))
    scores = ops.matmul(views, ops.transpose(views))
    return positive, _of_others(scores, ops.repeat(ops.reshape(examples, (-1,)), 2))


def _side_scores(pairs: Any, examples: Any) -> tuple[Any, Any, Any]:
    """Returns scores of pairs, of first with other second sides, and the reverse."""
    values = ops.cast(pairs, "float32")
    first, second = values[:, 0], values[:, 1]
    examples = ops.reshape(examples, (-1,))
    scores = ops.matmul(first, ops.transpose(second))
    return (
        ops.sum(first * second, axis=-1),
        _of_others(scores, examples),
        _of_others(ops.transpose(scores), examples),
    )


def _of_others(scores: Any, examples: Any) -> Any:
    same = ops.equal(examples[:, None], examples[None, :])
    return ops.where(same, _EXCLUDED, scores)


def _cross_entropy(positive: Any, negative: Any) -> Any:
    scores = ops.concatenate([positive[:, None], negative], axis=1)
    return ops.logsumexp(scores, axis=1) - positive


def _found(positive: Any, negative: Any) -> Any:
    # A tie is not a find: an encoder that maps everything to one point finds nothing.
    return ops.cast(positive > ops.max(negative, axis=1), "float32")


def _per_pair(of_views: Any) -> Any:
    return ops.mean(ops.reshape(of_views, (-1, 2)), axis=1)
