"""Every example is predicted once, in its place, without compiling again."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np
import pytest

from tflearn.evaluation import predict_outputs

X = np.random.default_rng(0).normal(size=(7, 4)).astype("float32")


class CountTraces(keras.layers.Layer):
    """Counts how often Python runs its call: once for every compilation."""

    traces = 0

    def call(self, inputs: object) -> object:
        self.traces += 1
        return inputs


def batches(size: int, order: np.ndarray | None = None) -> Iterator[tuple]:
    """Batches of one shape: the last is padded with copies of the first row."""
    order = np.arange(len(X)) if order is None else order
    for start in range(0, len(order), size):
        indices = order[start : start + size]
        rows = np.concatenate([indices, np.zeros(size - len(indices), int)])
        yield X[rows], indices


def make_model(dtype: str | None = None) -> keras.Model:
    inputs = keras.Input((4,))
    return keras.Model(inputs, keras.layers.Dense(3, dtype=dtype)(inputs))


@pytest.mark.parametrize("size", [1, 3, 7, 10])
def test_outputs_are_in_the_order_of_the_examples(size: int) -> None:
    model = make_model()
    order = np.random.default_rng(1).permutation(len(X))
    found = predict_outputs(model, batches(size, order), num_examples=7)
    np.testing.assert_allclose(
        found, keras.ops.convert_to_numpy(model(X)), rtol=1e-5, atol=1e-6
    )


def test_outputs_are_float32_whatever_the_model_computes_in() -> None:
    model = make_model("bfloat16")
    found = predict_outputs(model, batches(3), num_examples=7)
    assert found.dtype == "float32"


def test_nothing_is_compiled_again() -> None:
    inputs = keras.Input((4,))
    counter = CountTraces()
    model = keras.Model(inputs, keras.layers.Dense(2)(counter(inputs)))
    model.compile("sgd", "mse")
    predict_outputs(model, batches(3), num_examples=7)
    traces = counter.traces
    predict_outputs(model, batches(3), num_examples=7)
    model.train_on_batch(X, np.zeros((7, 2)))
    trained = counter.traces
    predict_outputs(model, batches(3), num_examples=7)
    assert traces > 0 and counter.traces == trained


def test_predictions_follow_training() -> None:
    model = make_model()
    model.compile(keras.optimizers.SGD(0.5), "mse")
    before = predict_outputs(model, batches(3), num_examples=7)
    model.fit(X, np.ones((7, 3)), verbose=0)
    after = predict_outputs(model, batches(3), num_examples=7)
    assert (before != after).any()
    np.testing.assert_allclose(
        after, keras.ops.convert_to_numpy(model(X)), rtol=1e-5, atol=1e-6
    )


def test_dropout_and_batch_statistics_rest() -> None:
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.9),
        ]
    )
    found = [predict_outputs(model, batches(s), num_examples=7) for s in (2, 7)]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)


def test_nothing_is_printed(capsys) -> None:
    predict_outputs(make_model(), batches(3), num_examples=7)
    assert capsys.readouterr().out == ""


def test_dictionaries_of_inputs() -> None:
    inputs = {name: keras.Input((4,), name=name) for name in ("a", "b")}
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs["a"] + inputs["b"]))
    pairs = (({"a": x, "b": x}, indices) for x, indices in batches(3))
    assert predict_outputs(model, pairs, num_examples=7).shape == (7, 1)


@pytest.mark.parametrize(
    "order, message",
    [
        (np.arange(6), "6 rows, 6 of them different. Expected: 7 examples"),
        (np.array([0, 1, 2, 3, 4, 5, 5]), "7 rows, 6 of them different"),
    ],
)
def test_missing_and_repeated_examples_are_errors(
    order: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        predict_outputs(make_model(), batches(3, order), num_examples=7)


def test_no_example_is_an_error() -> None:
    with pytest.raises(ValueError, match="no example"):
        predict_outputs(make_model(), [], num_examples=0)
