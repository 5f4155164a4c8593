"""Cheap classifiers on frozen features: how good is a representation?

No gradient descent and nothing random: the same features give the same accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tflearn.support.errors import ConfigError, DataError

#: Strengths of the penalty that `ridge` chooses from.
ALPHAS = (1e-2, 1e-1, 1.0, 10.0, 1e2, 1e3, 1e4)


def ridge(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    *,
    alphas: Sequence[float] = ALPHAS,
) -> float:
    """Measures a linear classifier that has a closed form.

    Features are standardised by their mean and deviation in training; the weights are
    the least squares on one target of -1 or 1 a class, with a penalty of `alpha |w|^2`.
    `alpha` is the best one by leave-one-out on the training rows alone, which ridge
    regression gives without fitting again.

    Args:
        train_features: `(n, dim)`.
        train_labels: Classes, `(n,)`.
        test_features: `(m, dim)`.
        test_labels: Classes, `(m,)`.
        alphas: Penalties to choose from; positive.

    Returns:
        Accuracy on the test rows.

    Raises:
        DataError: Features are not finite, or the training rows hold one class.
        ConfigError: A penalty is not positive.

    Example:

    >>> x, y = np.array([[0.0], [1.0], [5.0], [6.0]]), np.array([0, 0, 1, 1])
    >>> ridge(x, y, x, y)
    1.0
    """
    from sklearn import linear_model, pipeline, preprocessing

    if not alphas or min(alphas) <= 0:
        raise ConfigError("the penalties of a ridge are positive", received=alphas)
    train, test = _checked(train_features, train_labels, test_features)
    model = pipeline.make_pipeline(
        preprocessing.StandardScaler(),
        linear_model.RidgeClassifierCV(alphas=list(alphas)),
    )
    model.fit(train, train_labels)
    return float(np.mean(model.predict(test) == test_labels))


def knn(
    train_features: np.ndarray,
    train_labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    *,
    k: int = 20,
    cosine: bool = True,
) -> float:
    """Measures a vote of the nearest training rows.

    Args:
        train_features: `(n, dim)`.
        train_labels: Classes, `(n,)`.
        test_features: `(m, dim)`.
        test_labels: Classes, `(m,)`.
        k: How many neighbours vote; all, where there are fewer.
        cosine: Whether angles are compared, otherwise distances.

    Returns:
        Accuracy on the test rows; of classes with equally many votes the first counts.

    Raises:
        DataError: Features are not finite, or the training rows hold one class.
        ConfigError: `k` is not positive.

    Example:

    >>> x, y = np.array([[0.0, 1], [1, 9], [5, 0], [6, 1]]), np.array([0, 0, 1, 1])
    >>> knn(x, y, x, y, k=2)
    1.0
    """
    from sklearn import neighbors

    if k < 1:
        raise ConfigError("the number of neighbours is positive", received=k)
    train, test = _checked(train_features, train_labels, test_features)
    model = neighbors.KNeighborsClassifier(
        n_neighbors=min(k, len(train)),
        metric="cosine" if cosine else "euclidean",
        algorithm="brute",
    )
    model.fit(train, train_labels)
    return float(np.mean(model.predict(test) == test_labels))


def _checked(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the features in float64, in which sums of squares are exact enough."""
    train, test = np.asarray(train, "float64"), np.asarray(test, "float64")
    if not (np.isfinite(train).all() and np.isfinite(test).all()):
        raise DataError(
            "the features of the probe are not finite",
            received="NaN or infinity",
            fix="training has diverged: lower the learning rate or clip gradients",
        )
    if len(np.unique(labels)) < 2:
        raise DataError(
            "a probe needs training rows of several classes",
            received=f"{len(labels)} rows of one class",
        )
    return train, test
