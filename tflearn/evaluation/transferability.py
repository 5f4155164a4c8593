"""How well do frozen features fit a task? Scores that train nothing.

They rank backbones for a data set before any of them is fine-tuned: the features of the
training rows and their labels go in, one number comes out, and higher is better.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tflearn.evaluation.probes import ALPHAS
from tflearn.support.errors import DataError

#: What `scores` measures, and LEEP, which wants the head of a source task.
SCORES = ("ridge", "knn", "logme", "h_score", "leep")

_NEIGHBOURS = 20
_ROUNDS = 100
_TOLERANCE = 1e-3


def scores(
    features: np.ndarray, targets: np.ndarray, *, folds: int = 5
) -> dict[str, float]:
    """Measures features by every score that needs nothing but them and the targets.

    Args:
        features: `(n, dim)`.
        targets: Classes, `(n,)` integers, or numbers, `(n,)` floats.
        folds: Parts of the cross-validation.

    Returns:
        For classes `ridge` and `knn`, cross-validated accuracies, `logme` and
        `h_score`; for numbers `ridge`, a cross-validated `R^2`, and `logme`. With each
        cross-validated score its standard error over the folds, such as `ridge_error`.

    Raises:
        DataError: Features are not finite, or a class has fewer rows than folds.

    Example:

    >>> labels = np.arange(60) % 2
    >>> found = scores(np.eye(2)[labels], labels)
    >>> found["ridge"], found["knn"]
    (1.0, 1.0)
    """
    from sklearn import linear_model, neighbors, pipeline, preprocessing

    features, targets = _checked(features), np.asarray(targets)
    scaler = preprocessing.StandardScaler()
    if targets.dtype.kind == "f":
        model = pipeline.make_pipeline(scaler, linear_model.RidgeCV(alphas=ALPHAS))
        found = _cross_validated({"ridge": model}, features, targets, folds)
        return found | {"logme": logme(features, targets.reshape(-1, 1))}
    smallest = int(_one_hot(targets).sum(axis=0).min())
    if smallest < folds:
        raise DataError(
            "a class has fewer rows than the cross-validation has folds",
            received=f"{smallest} rows",
            fix=f"rank.Ranking.folds = {max(2, smallest)}, or more rank.Ranking.rows",
        )
    ridge = linear_model.RidgeClassifierCV(alphas=ALPHAS)
    fitted = len(features) - -(-len(features) // folds)
    nearby = neighbors.KNeighborsClassifier(
        min(_NEIGHBOURS, fitted), metric="cosine", algorithm="brute"
    )
    models = {"ridge": pipeline.make_pipeline(scaler, ridge), "knn": nearby}
    return {
        **_cross_validated(models, features, targets, folds),
        "logme": logme(features, targets),
        "h_score": h_score(features, targets),
    }


def _cross_validated(
    models: Mapping[str, Any], features: np.ndarray, targets: np.ndarray, folds: int
) -> dict[str, float]:
    from sklearn import model_selection

    kind = model_selection.KFold
    if targets.dtype.kind != "f":
        kind = model_selection.StratifiedKFold
    parts = kind(folds, shuffle=True, random_state=0)
    found = {}
    for name, model in models.items():
        each = model_selection.cross_val_score(model, features, targets, cv=parts)
        found[name] = float(each.mean())
        found[f"{name}_error"] = float(each.std(ddof=1) / np.sqrt(folds))
    return found


def logme(features: np.ndarray, targets: np.ndarray) -> float:
    """Returns the log evidence of a Bayesian linear model, a row and target column.

    The model is `y = F w + noise` with `w ~ N(0, 1 / alpha)` and noise of precision
    `beta`; both are set to where the evidence `p(y | F, alpha, beta)` is largest, by
    MacKay's fixed point. Classes are one column each of zeros and ones. The evidence
    punishes features that fit only by their number.

    Args:
        features: `(n, dim)`.
        targets: Classes, `(n,)` integers; or numbers, `(n, columns)` floats.

    Returns:
        Mean over columns of the log evidence divided by `n`, in nats.

    Raises:
        DataError: Features are not finite, or there is one class only.

    Example:

    >>> rng = np.random.default_rng(0)
    >>> labels = np.arange(200) % 2
    >>> useful = labels[:, None] + 0.1 * rng.normal(size=(200, 3))
    >>> logme(useful, labels) > logme(rng.normal(size=(200, 3)), labels)
    True

    References:
        You et al. 2021, https://arxiv.org/abs/2102.11005
    """
    features = _checked(features)
    targets = np.asarray(targets)
    columns = targets if targets.ndim == 2 else _one_hot(targets)
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
    return float(
        np.mean(
            [
                _evidence(left.T @ column, column, singular**2, features.shape[1])
                for column in columns.T.astype("float64")
            ]
        )
    )


def _evidence(
    projected: np.ndarray, column: np.ndarray, variances: np.ndarray, dim: int
) -> float:
    """Returns the largest log evidence of one column, divided by the rows."""
    count, squares = len(column), projected**2
    outside = max(float(column @ column - squares.sum()), 0.0)
    alpha = beta = 1.0
    for _ in range(_ROUNDS):
        ratio = alpha / beta
        known = float((variances / (variances + ratio)).sum())
        length = float((variances * squares / (variances + ratio) ** 2).sum())
        error = float((squares / (1 + variances / ratio) ** 2).sum()) + outside
        alpha = known / (length + 1e-12)
        beta = (count - known) / (error + 1e-12)
        if abs(alpha / beta - ratio) <= _TOLERANCE * ratio:
            break
    # Directions that no row points to keep their prior.
    unseen = (dim - len(variances)) * np.log(alpha)
    volume = np.log(alpha + beta * variances).sum() + unseen
    found = dim * np.log(alpha) + count * np.log(beta / (2 * np.pi)) - volume
    return float((found - beta * error - alpha * length) / (2 * count))


def h_score(features: np.ndarray, labels: np.ndarray) -> float:
    """Returns how much of the features' variance lies between the classes.

    `tr(cov(F)^-1 cov(E[F | y]))`, with the covariance shrunk as Ledoit and Wolf do:
    without, more dimensions than rows would make every backbone perfect.

    Args:
        features: `(n, dim)`.
        labels: Classes, `(n,)`.

    Returns:
        Between 0 and the number of classes less one.

    Raises:
        DataError: Features are not finite, or there is one class only.

    Example:

    >>> labels = np.arange(100) % 2
    >>> noise = np.random.default_rng(0).normal(size=(100, 2))
    >>> h_score(noise + 5 * labels[:, None], labels) > h_score(noise, labels)
    True

    References:
        Bao et al. 2019, https://arxiv.org/abs/2212.10082; shrinkage: Ibrahim et al.
        2021, https://arxiv.org/abs/2110.06893
    """
    from sklearn.covariance import ledoit_wolf

    features = _checked(features)
    one_hot = _one_hot(labels)
    centred = features - features.mean(axis=0)
    covariance, shrinkage = ledoit_wolf(centred, assume_centered=True)
    means = (one_hot.T @ centred) / one_hot.sum(axis=0)[:, None]
    share = one_hot.mean(axis=0)
    between = (means * share[:, None]).T @ means
    return float((1 - shrinkage) * np.trace(np.linalg.pinv(covariance) @ between))


def leep(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Returns the log likelihood of labels told by a source head's classes alone.

    With `theta_i` the source head's probabilities for row `i`, the labels' joint
    distribution with the source's classes gives `P(y | z)`, and the score is the mean
    of `log sum_z P(y_i | z) theta_i(z)`.

    Args:
        probabilities: Of the source head, `(n, source classes)`; rows sum to one.
        labels: Classes of the target task, `(n,)`.

    Returns:
        At most 0, in nats.

    Raises:
        DataError: Probabilities are not finite, or there is one class only.

    Example:

    >>> labels = np.array([0, 0, 1, 1])
    >>> float(round(leep(np.eye(2)[labels], labels), 6))
    0.0

    References:
        Nguyen et al. 2020, https://arxiv.org/abs/2002.12462
    """
    probabilities = _checked(probabilities)
    joint = _one_hot(labels).T @ probabilities
    given_source = joint / np.maximum(joint.sum(axis=0), 1e-300)
    likelihood = (probabilities @ given_source.T)[
        np.arange(len(labels)), _codes(labels)
    ]
    return float(np.mean(np.log(np.maximum(likelihood, 1e-300))))


def _codes(labels: np.ndarray) -> np.ndarray:
    return np.unique(labels, return_inverse=True)[1].reshape(-1)


def _one_hot(labels: np.ndarray) -> np.ndarray:
    codes = _codes(labels)
    if codes.max(initial=0) < 1:
        raise DataError(
            "a score of transferability needs rows of several classes",
            received=f"{len(codes)} rows of one class",
        )
    return np.eye(codes.max() + 1)[codes]


def _checked(values: np.ndarray) -> np.ndarray:
    """Returns the values in float64, in which sums of squares are exact enough."""
    values = np.asarray(values, "float64")
    if values.ndim != 2 or not np.isfinite(values).all():
        raise DataError(
            "features have to be finite numbers, one row an example",
            received=f"shape {values.shape}, finite: {bool(np.isfinite(values).all())}",
        )
    return values
