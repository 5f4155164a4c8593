"""Encoding, batches, order and streams."""

from __future__ import annotations

import dataclasses
import pathlib
import pickle
import sys
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import PIL.Image
import pytest

from tflearn import data
from tflearn.data import order, pipeline
from tflearn.support.errors import ConfigError, DataError


@dataclasses.dataclass(frozen=True)
class Tokens:
    """What a text encoder gives."""

    ids: list[np.ndarray]
    segments: list[np.ndarray] | None = None


class Words:
    """A text encoder: a token a word, 1 and 2 around them."""

    max_length = 32

    def tokenize(self, texts: Sequence[Any]) -> Tokens:
        """Splits texts at spaces."""
        words = [" ".join(text) if isinstance(text, tuple) else text for text in texts]
        return Tokens(
            [np.asarray([1, *range(3, 3 + len(w.split())), 2], np.int32) for w in words]
        )

    def collate(self, tokens: Tokens, length: int) -> dict[str, np.ndarray]:
        """Pads with zeros."""
        ids = np.zeros((len(tokens.ids), length), np.int32)
        for row, found in enumerate(tokens.ids):
            kept = found[:length]
            ids[row, : len(kept)] = kept
        return {"token_ids": ids, "padding_mask": (ids > 0).astype(np.int32)}


class Pixels:
    """An image encoder for 6x6 images."""

    image_size = (6, 6)
    channels = 3

    def resize(self, image: np.ndarray) -> np.ndarray:
        """Resizes with Pillow."""
        return np.asarray(PIL.Image.fromarray(image).resize((6, 6)))

    def scale(self, batch: np.ndarray) -> np.ndarray:
        """Scales to 0..1."""
        return batch.astype(np.float32) / 255


class Numbers:
    """A vector encoder."""

    size = 4

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Scales rows."""
        return rows / 10


def _texts(count: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {"text": f"w{i} " * int(rng.integers(1, 25)), "label": int(i % 4 == 0)}
        for i in range(count)
    ]


def _prepare(
    declared: data.Data, encoder: Any, *, batch_size: int = 8, one_hot: bool = False
) -> tuple[pipeline.Examples, pipeline.TrainBatches, data.Dataset]:
    dataset = declared.load(target_kind="class")
    split = dataset.splits["train"]
    examples = pipeline.encode(split, encoder, data=declared)
    batches = pipeline.train_batches(
        examples,
        split.targets,
        batch_size=batch_size,
        seed=3,
        data=declared,
        num_outputs=len(dataset.classes),
        one_hot=one_hot,
    )
    return examples, batches, dataset


def _text_data(count: int = 100, **declared: Any) -> data.Data:
    rows = {"train": _texts(count)}
    return data.Data(source=lambda: rows, **declared)


def _iris(**declared: Any) -> data.Data:
    return data.Data(
        source=lambda: data.sources.sklearn("iris"),
        input="vector",
        splits={"train": 0.8, "test": 0.2},
        **declared,
    )


def _image_files(folder: pathlib.Path, **declared: Any) -> data.Data:
    rng = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (folder / "train" / label).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 256, (9, 7, 3), dtype=np.uint8)
            path = folder / "train" / label / f"{number}.png"
            PIL.Image.fromarray(pixels).save(path)
    source = data.sources.image_folder(str(folder))
    return data.Data(source=lambda: source, input="image", **declared)


def _same(first: Any, second: Any) -> bool:
    return all(
        np.array_equal(a, b)
        for a, b in zip(
            keras.tree.flatten(first), keras.tree.flatten(second), strict=True
        )
    )


def test_the_batch_of_a_step_is_a_function_of_seed_and_step() -> None:
    for declared, encoder in ((_text_data(), Words()), (_iris(), Numbers())):
        _, first, _ = _prepare(declared, encoder)
        _, second, _ = _prepare(declared, encoder)
        late = first[500]
        assert _same(first[0], second[0])
        # Reached from the start or at once, the batch is the same.
        assert _same(late, second[500])
        assert not _same(first[1], first[2])
        assert _same(first[0], second[0])


@pytest.mark.parametrize("batch_size", [7, 32])
def test_every_epoch_holds_every_example_once(batch_size: int) -> None:
    shuffle = order.Shuffle(50, seed=1)
    positions = np.arange(200).reshape(4, 50)
    epochs = [shuffle(epoch) for epoch in positions]
    assert all(sorted(epoch.tolist()) == list(range(50)) for epoch in epochs)
    assert not np.array_equal(epochs[0], epochs[1])
    drawn = order.Order(50, batch_size=batch_size, seed=1)
    stream = np.concatenate([drawn.indices(step) for step in range(50)])
    assert sorted(stream[:50].tolist()) == list(range(50))
    assert sorted(stream[50:100].tolist()) == list(range(50))


def test_large_sets_are_shuffled_by_index(monkeypatch: pytest.MonkeyPatch) -> None:
    import grain

    monkeypatch.setattr(order, "_KEPT_EXAMPLES", 10)
    found = order.Shuffle(70, seed=5)(np.arange(140))
    reference = grain.MapDataset.range(70).seed(0).shuffle(5)
    assert found.tolist() == [reference[i] for i in range(140)]


def test_steps_may_be_asked_for_in_any_order_and_by_any_copy() -> None:
    lengths = np.random.default_rng(0).integers(3, 30, 90)
    drawn = order.Order(90, batch_size=4, seed=2, lengths=lengths)
    forward = [drawn.indices(step) for step in range(120)]
    copy = pickle.loads(pickle.dumps(drawn))
    backward = [copy.indices(step) for step in reversed(range(120))]
    assert _same(forward, backward[::-1])


def test_batches_of_texts_hold_similar_lengths() -> None:
    examples, batches, _ = _prepare(_text_data(400), Words(), batch_size=8)
    assert examples.lengths is not None
    spreads, widths = [], set()
    for step in range(50):
        ids = batches[step][0]["token_ids"]
        used = (ids > 0).sum(axis=1)
        spreads.append(used.max() - used.min())
        widths.add(ids.shape[1])
    assert np.mean(spreads) < 2
    assert len(widths) > 1
    assert widths <= set(examples.padded_lengths)
    assert len(examples.padded_lengths) <= 16
    # Short and long batches come mixed, not in order.
    first = [batches[step][0]["token_ids"].shape[1] for step in range(20)]
    assert first != sorted(first)


def test_few_texts_do_not_gather_their_repeats_in_a_batch() -> None:
    _, batches, dataset = _prepare(_text_data(12), Words(), batch_size=12)
    assert len(dataset.splits["train"]) == 12
    for step in range(5):
        ids = batches[step][0]["token_ids"]
        lengths = sorted((ids > 0).sum(axis=1).tolist())
        assert lengths == sorted((batches[0][0]["token_ids"] > 0).sum(axis=1).tolist())


def test_texts_that_are_too_long_are_an_error_or_are_cut() -> None:
    rows = {"train": [{"text": "a " * 40, "label": 0}, {"text": "b", "label": 1}]}
    declared = data.Data(source=lambda: rows)
    with pytest.raises(
        DataError, match=r"1 of 2 texts.*32 tokens.*train\[0\] with 42.*truncate = True"
    ):
        _prepare(declared, Words())
    examples, batches, _ = _prepare(
        dataclasses.replace(declared, max_length=10, truncate=True), Words()
    )
    assert examples.padded_lengths[-1] == 10
    assert batches[0][0]["token_ids"].shape == (8, 10)
    assert "longer than 10 tokens and are cut" in examples.notes[0]
    with pytest.raises(DataError, match="max_length is more than the backbone takes"):
        _prepare(dataclasses.replace(declared, max_length=64), Words())


def test_targets_become_rows_where_the_loss_needs_them() -> None:
    _, plain, _ = _prepare(_iris(), Numbers())
    _, rows, _ = _prepare(_iris(), Numbers(), one_hot=True)
    assert plain[0][1].dtype == np.int32 and plain[0][1].shape == (8,)
    assert rows[0][1].dtype == np.float32 and rows[0][1].shape == (8, 3)
    np.testing.assert_array_equal(rows[5][1].argmax(axis=1), plain[5][1])


def test_class_weights_give_each_class_the_same_weight() -> None:
    _, batches, dataset = _prepare(_text_data(balance="class_weights"), Words())
    totals = np.zeros(2)
    for step in range(100):
        _, targets, weights = batches[step]
        assert weights.dtype == np.float32
        np.add.at(totals, targets, weights)
    assert np.bincount(dataset.splits["train"].targets).tolist() == [75, 25]
    assert abs(totals[0] / totals[1] - 1) < 0.02


def test_balanced_sampling_draws_each_class_equally_often() -> None:
    _, batches, _ = _prepare(_text_data(balance="sampling"), Words())
    drawn = np.concatenate([batches[step][1] for step in range(60)])
    counts = np.bincount(drawn)
    assert abs(int(counts[0]) - int(counts[1])) <= 8
    _, again, _ = _prepare(_text_data(balance="sampling"), Words())
    assert _same(batches[37], again[37])


def test_balanced_sampling_uses_every_example_of_a_class() -> None:
    classes = np.asarray([0] * 30 + [1] * 3 + [2] * 5)
    drawn = order.Balanced(classes, seed=1)(np.arange(90))
    counts = np.bincount(drawn, minlength=38)
    assert counts[:30].tolist() == [1] * 30
    assert counts[30:33].tolist() == [10] * 3
    assert counts[33:].tolist() == [6] * 5


def test_images_are_resized_once_or_when_needed(tmp_path: pathlib.Path) -> None:
    declared = _image_files(tmp_path)
    kept, kept_batches, _ = _prepare(declared, Pixels())
    lazy, lazy_batches, _ = _prepare(
        dataclasses.replace(declared, cache_bytes=100), Pixels()
    )
    assert not kept.lazy and lazy.lazy
    assert kept.inputs["image"].shape == (6, 6, 3)
    assert kept_batches[0][0].dtype == np.float32
    assert _same(kept_batches[3], lazy_batches[3])
    assert "decoded anew" in lazy.notes[0]


@pytest.mark.parametrize(
    ("encoder", "kind"), [(Pixels(), "image"), (Numbers(), "vector"), (len, "vector")]
)
def test_a_backbone_that_takes_something_else_is_refused(
    encoder: Any, kind: str
) -> None:
    with pytest.raises(DataError, match=f"kind 'text'.*kind '{kind}'"):
        _prepare(_text_data(), encoder)


def test_rows_of_another_size_are_refused() -> None:
    declared = dataclasses.replace(
        _iris(), input=("petal width (cm)", "petal length (cm)")
    )
    with pytest.raises(DataError, match="2 numbers.*4 numbers"):
        _prepare(declared, Numbers())


def test_images_alone_can_be_augmented() -> None:
    with pytest.raises(ConfigError, match="augment changes images"):
        _prepare(_iris(augment=(keras.layers.RandomFlip,)), Numbers())


@pytest.mark.parametrize("batch_size", [16, 500])
def test_ordered_batches_hold_every_example_once(batch_size: int) -> None:
    examples, _, _ = _prepare(_text_data(101), Words())
    seen, sizes, widths = [], set(), []
    for inputs, indices in pipeline.ordered_batches(examples, batch_size=batch_size):
        ids = inputs["token_ids"]
        sizes.add(len(ids))
        widths.append(ids.shape[1])
        seen.extend(indices.tolist())
        real = (ids > 0).sum(axis=1)[: len(indices)]
        assert real.tolist() == examples.lengths[indices].tolist()
    assert sorted(seen) == list(range(101))
    assert sizes == {min(batch_size, 101)}
    assert widths == sorted(widths)


def test_a_specification_tells_shapes_and_counts() -> None:
    declared = _iris()
    dataset = declared.load(target_kind="class")
    examples = {
        name: pipeline.encode(split, Numbers(), data=declared)
        for name, split in dataset.splits.items()
    }
    spec = pipeline.describe(dataset, examples)
    assert spec.inputs["vector"].shape == (4,)
    assert spec.num_outputs == 3
    assert spec.num_examples == {"train": 120, "test": 30}
    assert spec.class_counts["test"] == {
        "setosa": 10,
        "versicolor": 10,
        "virginica": 10,
    }


def test_a_stream_seeks_and_ends() -> None:
    _, batches, _ = _prepare(_text_data(), Words())
    streamed = list(pipeline.stream(batches, start_step=300, num_steps=9))
    assert len(streamed) == 9
    assert all(_same(streamed[i], batches[300 + i]) for i in range(9))


@pytest.mark.parametrize("balance", ["none", "sampling"])
def test_going_on_at_step_1_000_000_costs_what_it_costs_at_step_10(balance) -> None:
    calls: dict[int, int] = {}

    def first_of(step: int) -> None:
        # As in a new process: nothing is kept of other steps.
        _, batches, _ = _prepare(_text_data(balance=balance), Words())
        stream = pipeline.stream(batches, start_step=step, num_steps=9)
        calls[step] = 0

        def count(frame: Any, event: str, argument: Any) -> None:
            calls[step] += event.endswith("call")

        sys.setprofile(count)
        try:
            next(iter(stream))
        finally:
            sys.setprofile(None)

    # The first one imports what all need.
    for step in (0, 10, 1_000_000):
        first_of(step)
    assert calls[1_000_000] <= 1.1 * calls[10] + 20


def test_a_stream_can_be_left_and_gone_on_with() -> None:
    _, batches, _ = _prepare(_iris(), Numbers())
    stream = pipeline.stream(batches, start_step=0, num_steps=20)
    iterator = iter(stream)
    for _ in range(7):
        next(iterator)
    state = iterator.get_state()
    expected = next(iterator)
    other = iter(stream)
    other.set_state(state)
    assert _same(next(other), expected)
    other.close()
    iterator.close()


def _model(inputs: int) -> keras.Model:
    model = keras.Sequential([keras.Input((inputs,)), keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, weighted_metrics=["accuracy"])
    return model


@pytest.mark.filterwarnings("ignore:.*shuffle=True")
@pytest.mark.parametrize("balance", ["none", "class_weights"])
def test_keras_trains_on_a_stream_and_makes_each_batch_once(
    balance: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, batches, _ = _prepare(_iris(balance=balance), Numbers())
    made: list[int] = []
    original = type(batches).part

    def counted(self: Any, step: int, share: Any) -> Any:
        made.append(step)
        return original(self, step, share)

    monkeypatch.setattr(type(batches), "part", counted)
    model = _model(4)
    stream = pipeline.stream(batches, start_step=5, num_steps=12)
    history = model.fit(stream, steps_per_epoch=4, epochs=3, verbose=0)
    assert len(history.history["loss"]) == 3
    assert sorted(made) == list(range(5, 17))


@pytest.mark.filterwarnings("ignore:.*shuffle=True")
def test_keras_on_a_stream_learns_what_it_learns_step_by_step() -> None:
    _, batches, _ = _prepare(_iris(), Numbers())
    streamed = _model(4)
    stepped = keras.models.clone_model(streamed)
    stepped.set_weights(streamed.get_weights())
    stepped.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    stream = pipeline.stream(batches, start_step=0, num_steps=6)
    streamed.fit(stream, steps_per_epoch=3, epochs=2, verbose=0)
    for step in range(6):
        stepped.train_on_batch(*batches[step])
    for one, other in zip(streamed.get_weights(), stepped.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.first_on("jax")
def test_worker_processes_make_the_same_batches(tmp_path: pathlib.Path) -> None:
    declared = _image_files(tmp_path, cache_bytes=0, workers=2)
    _, batches, _ = _prepare(declared, Pixels())
    streamed = list(pipeline.stream(batches, start_step=4, num_steps=7))
    assert len(streamed) == 7
    assert all(_same(streamed[i], batches[4 + i]) for i in range(7))
