"""Metrics equal scikit-learn's, come with intervals, and never turn into NaN."""

from __future__ import annotations

import json

import numpy as np
import pytest
import scipy.special
import scipy.stats
import sklearn.metrics as reference

from tflearn import evaluation
from tflearn.evaluation import agreement, bootstrap, ranking, regression

RNG = np.random.default_rng(0)


def classes(count: int) -> tuple[str, ...]:
    return tuple(f"class_{index}" for index in range(count))


def single_label(
    num_classes: int, examples: int = 300
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(num_classes)
    targets = rng.integers(0, num_classes, examples)
    logits = rng.normal(size=(examples, num_classes))
    logits[np.arange(examples), targets] += 1.0
    return targets, logits


def multi_label(labels: int = 4, examples: int = 300) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(labels)
    targets = (rng.random((examples, labels)) < 0.3).astype("float32")
    return targets, (rng.normal(size=targets.shape) + 2 * targets - 1).round(1)


def values(result: evaluation.Evaluation) -> dict[str, float | None]:
    return {name: found.value for name, found in result.metrics.items()}


@pytest.mark.parametrize("num_classes", [2, 3, 7])
def test_single_label_metrics_are_scikit_learns(num_classes: int) -> None:
    targets, logits = single_label(num_classes)
    found = values(
        evaluation.evaluate(
            "class", targets, logits, classes=classes(num_classes), bootstrap=0
        )
    )
    guesses, p = logits.argmax(axis=1), scipy.special.softmax(logits, axis=1)
    scores = p[:, 1] if num_classes == 2 else p
    expected = {
        "accuracy": reference.accuracy_score(targets, guesses),
        "mcc": reference.matthews_corrcoef(targets, guesses),
        "cross_entropy": reference.log_loss(targets, p),
        "auc": reference.roc_auc_score(targets, scores, multi_class="ovr"),
        "average_precision": reference.average_precision_score(targets, scores),
    }
    for average in ("micro", "macro"):
        three = reference.precision_recall_fscore_support(
            targets, guesses, average=average
        )
        for name, value in zip(("precision", "recall", "f1"), three, strict=False):
            expected[f"{name}_{average}"] = value
    if num_classes > 5:
        expected["top_5_accuracy"] = reference.top_k_accuracy_score(targets, p, k=5)
    calibration_error = found.pop("expected_calibration_error")
    assert calibration_error == evaluation.expected_calibration_error(p, targets)
    assert found == pytest.approx(expected)


def test_multi_label_metrics_are_scikit_learns() -> None:
    targets, logits = multi_label()
    result = evaluation.evaluate("multi_label", targets, logits, classes=classes(4))
    guesses, p = logits > 0, scipy.special.expit(logits)
    expected = {
        "subset_accuracy": reference.accuracy_score(targets, guesses),
        "cross_entropy": np.mean(
            [reference.log_loss(targets[:, k], p[:, k]) for k in range(4)]
        ),
        "auc": reference.roc_auc_score(targets, p),
        "average_precision": reference.average_precision_score(targets, p),
    }
    for average in ("micro", "macro"):
        three = reference.precision_recall_fscore_support(
            targets, guesses, average=average
        )
        for name, value in zip(("precision", "recall", "f1"), three, strict=False):
            expected[f"{name}_{average}"] = value
    found = values(result)
    calibration_error = found.pop("expected_calibration_error")
    assert calibration_error == evaluation.expected_calibration_error(p, targets)
    assert found == pytest.approx(expected)
    assert result.confusion is None


def test_regression_metrics_are_scikit_learns_and_scipys() -> None:
    targets = RNG.normal(size=200).round(1) + 1000
    outputs = targets + RNG.normal(size=200).round(1)
    result = evaluation.evaluate("number", targets, outputs[:, None], bootstrap=0)
    assert values(result) == pytest.approx(
        {
            "mae": reference.mean_absolute_error(targets, outputs),
            "rmse": reference.root_mean_squared_error(targets, outputs),
            "r2": reference.r2_score(targets, outputs),
            "pearson": scipy.stats.pearsonr(targets, outputs)[0],
            "spearman": scipy.stats.spearmanr(targets, outputs)[0],
        }
    )


def test_per_class_table_is_scikit_learns() -> None:
    targets, logits = single_label(3)
    result = evaluation.evaluate("class", targets, logits, classes=classes(3))
    p = scipy.special.softmax(logits, axis=1)
    table = reference.classification_report(
        targets, logits.argmax(axis=1), target_names=classes(3), output_dict=True
    )
    for index, (name, found) in enumerate(result.per_class.items()):
        assert found["precision"].value == pytest.approx(table[name]["precision"])
        assert found["recall"].value == pytest.approx(table[name]["recall"])
        assert found["f1"].value == pytest.approx(table[name]["f1-score"])
        assert found["f1"].count == table[name]["support"]
        assert found["f1"].low < found["f1"].value < found["f1"].high
        area = reference.roc_auc_score(targets == index, p[:, index])
        assert found["auc"].value == pytest.approx(area)


def test_confusion_rows_are_the_true_classes() -> None:
    targets, logits = single_label(3)
    result = evaluation.evaluate("class", targets, logits, classes=classes(3))
    expected = reference.confusion_matrix(targets, logits.argmax(axis=1))
    np.testing.assert_array_equal(result.confusion, expected)


def drawn(examples: int, resamples: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Weights of resamples, and the rows that each of them draws."""
    rows = [RNG.integers(0, examples, examples) for _ in range(resamples)]
    weights = np.stack([np.bincount(r, minlength=examples) for r in rows], axis=1)
    return weights.astype("float32"), rows


def test_weighted_ranking_is_that_of_the_resampled_data() -> None:
    targets, logits = single_label(2, examples=60)
    positives, scores = targets[:, None] == [0, 1], ranking.log_odds(logits).round(1)
    weights, resamples = drawn(60, 8)
    found = ranking.one_vs_rest(positives, scores, binary=True)(weights).overall
    for column, rows in enumerate(resamples):
        y, s = targets[rows], scores[rows, 1]
        assert found["auc"][column] == pytest.approx(reference.roc_auc_score(y, s))
        assert found["average_precision"][column] == pytest.approx(
            reference.average_precision_score(y, s), rel=1e-6
        )


def test_weighted_agreement_is_that_of_the_resampled_data() -> None:
    targets, logits = single_label(4, examples=40)
    guesses = logits.argmax(axis=1)
    weights, resamples = drawn(40, 8)
    found = agreement.single_label(targets, guesses, num_classes=4)(weights).overall
    for column, rows in enumerate(resamples):
        y, guess = targets[rows], guesses[rows]
        assert found["mcc"][column] == pytest.approx(
            reference.matthews_corrcoef(y, guess)
        )
        assert found["f1_macro"][column] == pytest.approx(
            reference.f1_score(y, guess, average="macro")
        )


def test_weighted_correlations_are_those_of_the_resampled_data() -> None:
    targets = RNG.normal(size=50).round(1)
    outputs = (targets + RNG.normal(size=50)).round(1)
    weights, resamples = drawn(50, 8)
    found = regression.correlations(targets, outputs)(weights).overall
    errors = regression.errors(targets, outputs)(weights).overall
    for column, rows in enumerate(resamples):
        y, x = targets[rows], outputs[rows]
        expected = scipy.stats.spearmanr(y, x)[0]
        assert found["spearman"][column] == pytest.approx(expected)
        assert errors["r2"][column] == pytest.approx(reference.r2_score(y, x))


def test_interval_of_a_mean_is_the_textbooks() -> None:
    right = RNG.random(400) < 0.8
    overall, _ = bootstrap.estimate(
        bootstrap.means({"accuracy": right}), count=400, resamples=4000, seed=0
    )
    found = overall["accuracy"]
    half_width = 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / 400)
    assert found.low == pytest.approx(right.mean() - half_width, abs=0.006)
    assert found.high == pytest.approx(right.mean() + half_width, abs=0.006)
    assert (found.count, found.resamples) == (400, 4000)


def test_intervals_depend_on_the_seed_only() -> None:
    targets, logits = single_label(3)

    def interval(seed: int) -> tuple[float | None, float | None]:
        found = evaluation.evaluate(
            "class", targets, logits, classes=classes(3), seed=seed
        ).metrics["auc"]
        return found.low, found.high

    assert interval(0) == interval(0)
    assert interval(0) != interval(1)


def test_chunks_of_resamples_are_put_together(monkeypatch) -> None:
    monkeypatch.setattr(bootstrap, "_CHUNK_CELLS", 300 * 7)
    targets, logits = single_label(3)
    result = evaluation.evaluate(
        "class", targets, logits, classes=classes(3), bootstrap=100
    )
    assert {found.resamples for found in result.metrics.values()} == {100}


def test_costly_metrics_get_fewer_resamples_and_say_so(monkeypatch) -> None:
    from tflearn.evaluation import measures

    monkeypatch.setattr(measures, "_RANKING_CELLS", 300 * 3 * 200)
    targets, logits = single_label(3)
    found = evaluation.evaluate("class", targets, logits, classes=classes(3)).metrics
    assert (found["accuracy"].resamples, found["auc"].resamples) == (1000, 200)


def test_slices_are_evaluations_of_their_rows() -> None:
    targets, logits = single_label(2)
    source = np.where(np.arange(300) % 3 == 0, "web", "book")
    result = evaluation.evaluate(
        "class", targets, logits, classes=classes(2), slices={"source": source}
    )
    assert list(result.slices["source"]) == ["book", "web"]
    for name, found in result.slices["source"].items():
        rows = source == name
        alone = evaluation.evaluate(
            "class", targets[rows], logits[rows], classes=classes(2), bootstrap=0
        )
        assert {metric: e.value for metric, e in found.items()} == values(alone)
        assert {e.count for e in found.values()} == {int(rows.sum())}
        assert all(e.low is not None for e in found.values())


def test_too_many_slices_are_gathered_and_counted() -> None:
    targets, logits = single_label(2)
    column = np.concatenate([np.arange(150), np.zeros(150, int)])
    result = evaluation.evaluate(
        "class", targets, logits, classes=classes(2), slices={"x": column}, bootstrap=0
    )
    found = result.slices["x"]
    assert len(found) == 50 and found["0"]["accuracy"].count == 151
    assert found["(101 other values)"]["accuracy"].count == 101
    assert sum(e["accuracy"].count for e in found.values()) == 300


def test_missing_slice_values_are_a_slice() -> None:
    targets, logits = single_label(2, examples=4)
    column = np.array(["a", None, "a", 3], dtype=object)
    result = evaluation.evaluate(
        "class", targets, logits, classes=classes(2), slices={"x": column}
    )
    assert list(result.slices["x"]) == ["3", "None", "a"]


def test_a_slice_of_one_class_has_no_auc_and_says_why() -> None:
    targets, logits = single_label(2)
    result = evaluation.evaluate(
        "class", targets, logits, classes=classes(2), slices={"target": targets}
    )
    for found in result.slices["target"].values():
        assert found["auc"].value is None
        assert "needs examples with and without" in found["auc"].note
        assert found["accuracy"].value is not None
    assert result.slices["target"]["0"]["average_precision"].note.startswith("undef")


def test_means_over_some_classes_say_so() -> None:
    targets, logits = single_label(4)
    rows = targets < 2
    logits[rows, 3] = -9
    result = evaluation.evaluate(
        "class", targets[rows], logits[rows], classes=classes(4), bootstrap=10
    )
    assert result.metrics["auc"].note.startswith("mean over 2 of 4 classes")
    assert result.metrics["f1_macro"].note.startswith("mean over 3 of 4 classes")
    assert result.per_class["class_3"]["f1"].value is None
    assert "neither" in result.per_class["class_3"]["f1"].note


USUAL = {
    "class": single_label(3),
    "multi_label": multi_label(3),
    "number": (np.arange(5.0), np.arange(5.0)),
}
DEGENERATE = {
    "one class": ("class", np.zeros(5, int), np.eye(5)[:, :3]),
    "one example": ("class", np.array([1]), np.array([[0.0, 1.0, 0.0]])),
    "constant logits": ("class", np.array([0, 1, 2]), np.zeros((3, 3))),
    "huge logits": ("class", np.array([0, 1, 2]), 1e30 * np.eye(3)),
    "no label": ("multi_label", np.zeros((4, 3)), -np.ones((4, 3))),
    "every label": ("multi_label", np.ones((4, 3)), np.ones((4, 3))),
    "one number": ("number", np.array([1.0]), np.array([2.0])),
    "constant targets": ("number", np.full(9, 0.1), np.arange(9.0)),
    "constant outputs": ("number", np.arange(9.0), np.full(9, 0.1)),
    "two values": ("number", np.array([1e6, 1e6 + 1]), np.array([0.0, 1.0])),
}


@pytest.mark.parametrize(
    "kind, targets, outputs", DEGENERATE.values(), ids=DEGENERATE.keys()
)
def test_degenerate_examples_give_null_with_a_reason(
    kind: str, targets: np.ndarray, outputs: np.ndarray
) -> None:
    names = () if kind == "number" else classes(3)
    result = evaluation.evaluate(kind, targets, outputs, classes=names)
    assert json.loads(json.dumps(result.to_json(), allow_nan=False))
    usual = evaluation.evaluate(kind, *USUAL[kind], classes=names, bootstrap=0)
    assert set(result.metrics) == set(usual.metrics)
    for found in result.metrics.values():
        assert (found.value is None) == found.note.startswith("undefined")


def test_json_is_plain_and_complete() -> None:
    targets, logits = single_label(3)
    result = evaluation.evaluate(
        "class",
        targets,
        logits.astype("float32"),
        classes=classes(3),
        slices={"half": np.arange(300) % 2},
        temperature=1.5,
        bootstrap=20,
    )
    plain = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert plain == result.to_json()
    assert plain["headline"] in plain["metrics"]
    assert set(plain["metrics"]["accuracy"]) == {
        *("value", "low", "high", "count", "resamples", "note")
    }
    assert plain["slices"]["half"]["0"]["f1_macro"]["count"] == 150
    assert (plain["count"], plain["level"], plain["temperature"]) == (300, 0.95, 1.5)
    assert np.sum(plain["confusion"]) == 300
    assert sum(found["count"] for found in plain["reliability"]) == 300


@pytest.mark.parametrize("kind", USUAL)
def test_headline_is_one_of_the_metrics(kind: str) -> None:
    names = () if kind == "number" else classes(3)
    result = evaluation.evaluate(kind, *USUAL[kind], classes=names, bootstrap=0)
    assert result.headline == evaluation.headline(kind)
    assert result.metrics[result.headline].value is not None
    assert result.metrics[result.headline].low is None


def test_temperature_adds_calibrated_figures_only() -> None:
    targets, logits = single_label(3)
    plain = evaluation.evaluate(
        "class", targets, 8 * logits, classes=classes(3), bootstrap=0
    )
    scaled = evaluation.evaluate(
        "class", targets, 8 * logits, classes=classes(3), bootstrap=0, temperature=8.0
    )
    mild = evaluation.evaluate(
        "class", targets, logits, classes=classes(3), bootstrap=0
    )
    assert values(scaled).items() >= values(plain).items()
    for name in ("cross_entropy", "expected_calibration_error"):
        calibrated = scaled.metrics[f"{name}_calibrated"].value
        assert calibrated == pytest.approx(mild.metrics[name].value)
        assert calibrated < scaled.metrics[name].value
    assert scaled.reliability == mild.reliability


def test_ranking_does_not_lose_digits_near_certainty() -> None:
    logits = np.array([[100.0, 0.0], [120.0, 0.0], [0.0, 130.0], [0.0, 140.0]])
    targets = np.array([1, 0, 0, 1])
    found = evaluation.evaluate("class", targets, logits, classes=classes(2))
    expected = reference.roc_auc_score(targets, logits[:, 1] - logits[:, 0])
    assert found.metrics["auc"].value == expected == 0.75


TWO = classes(2)
MISTAKES = {
    "kind": (("clas", [0], [[0, 1]]), {}, "did you mean 'class'"),
    "empty": (("class", np.zeros(0, int), np.zeros((0, 2))), {}, "no example"),
    "shape": (("class", [0, 1], [[0, 1]]), {}, "do not fit together"),
    "columns": (("class", [0], [[0, 1, 2]]), {}, r"expected: .*outputs \(1, 2\)"),
    "range": (("class", [2], [[0, 1]]), {}, "integers from 0 to 1"),
    "negative": (("class", [-1], [[0, 1]]), {}, "integers from 0 to 1"),
    "floats": (("class", [0.0], [[0, 1]]), {}, "received: float64"),
    "labels": (("multi_label", [[0, 2]], [[0, 1]]), {}, "expected: 0 and 1"),
    "nan target": (("number", [np.nan], [0.0]), {}, "expected: finite"),
    "nan output": (("class", [0], [[np.nan, 1]]), {}, "1 of 1 examples with NaN"),
    "top k": (("class", [0], [[0, 1]]), {"top_k": (2,)}, "1 <= k < 2"),
    "slice": (("class", [0], [[0, 1]]), {"slices": {"x": [1, 2]}}, "column 'x'"),
}


@pytest.mark.parametrize(
    "arguments, options, message", MISTAKES.values(), ids=MISTAKES.keys()
)
def test_mistakes_are_explained(arguments, options, message: str) -> None:
    names = () if arguments[0] == "number" else TWO
    with pytest.raises(ValueError, match=f"(?i){message}"):
        evaluation.evaluate(*map(as_array, arguments), classes=names, **options)


def as_array(value: object) -> object:
    return value if isinstance(value, str) else np.array(value)


def test_worst_errors_are_wrong_and_sorted_by_loss() -> None:
    targets, logits = single_label(4)
    p = scipy.special.softmax(logits, axis=1)
    worst = evaluation.worst_errors(targets, p, 10)
    wrong = p.argmax(axis=1) != targets
    loss = -np.log(p[np.arange(300), targets])
    assert wrong[worst].all() and len(worst) == 10
    assert list(loss[worst]) == sorted(loss[wrong], reverse=True)[:10]


def test_worst_errors_of_labels_and_numbers() -> None:
    labels = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    p = np.array([[0.9, 0.6], [0.01, 0.2], [0.1, 0.4]])
    assert evaluation.worst_errors(labels, p, 5).tolist() == [1, 0]
    numbers = np.array([1.0, 2.0, 3.0])
    outputs = np.array([[1.0], [4.0], [0.0]])
    assert evaluation.worst_errors(numbers, outputs, 5).tolist() == [2, 1]
