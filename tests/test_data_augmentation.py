"""Augmentation by Keras layers is a pure function of seed and step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from tflearn import data
from tflearn.data import augmentation
from tflearn.support.errors import ConfigError

layers = keras.layers


class Half(keras.Layer):
    """A layer of a user: halves the images, no random numbers."""

    def call(self, images: Any) -> Any:
        return images / 2


CHAINS: dict[str, tuple[Callable[[], keras.Layer], ...]] = {
    "flip": (lambda: layers.RandomFlip("horizontal"),),
    "pad and crop": (lambda: layers.ZeroPadding2D(2), lambda: layers.RandomCrop(8, 8)),
    "translate": (lambda: layers.RandomTranslation(0.2, 0.2),),
    "mixup": (layers.MixUp,),
    "cutmix": (layers.CutMix,),
    "flip and erase": (layers.RandomFlip, layers.RandomErasing),
}
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
TARGETS = np.eye(6, dtype=np.float32)


def _make(
    factories: tuple[Callable[[], keras.Layer], ...], seed: int = 0
) -> augmentation.Augmentation:
    return augmentation.Augmentation(factories, seed=seed, image_shape=(8, 8, 3))


def _check_pure(factories: tuple[Callable[[], keras.Layer], ...]) -> None:
    chain, twin = _make(factories), _make(factories)
    first = chain(IMAGES, TARGETS, step=7)
    others = [chain(IMAGES, TARGETS, step=step) for step in range(6)]
    again = chain(IMAGES, TARGETS, step=7)
    elsewhere = twin(IMAGES, TARGETS, step=7)
    assert first[0].dtype == np.uint8 and first[0].shape == IMAGES.shape
    for one, two, three in zip(first, again, elsewhere, strict=True):
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, three)
    assert any(not np.array_equal(first[0], other[0]) for other in others)
    reseeded = _make(factories, seed=1)
    assert any(
        not np.array_equal(others[step][0], reseeded(IMAGES, TARGETS, step=step)[0])
        for step in range(6)
    )


@pytest.mark.parametrize("name", CHAINS)
def test_a_step_gives_the_same_bits_and_other_steps_give_others(name: str) -> None:
    _check_pure(CHAINS[name])


@pytest.mark.slow
def test_randaugment_is_pure() -> None:
    _check_pure((layers.RandAugment,))


def test_layers_keep_their_own_state_untouched() -> None:
    chain = _make((layers.RandomFlip,))
    before = [np.asarray(v.numpy()) for v in chain.layers[0].variables]
    chain(IMAGES, TARGETS, step=3)
    after = [np.asarray(v.numpy()) for v in chain.layers[0].variables]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("layer", [layers.MixUp, layers.CutMix])
def test_mixing_images_mixes_their_labels(layer: Callable[[], keras.Layer]) -> None:
    chain = _make((layer,))
    mixed = [chain(IMAGES, TARGETS, step=step)[1] for step in range(5)]
    for targets in mixed:
        assert targets.dtype == np.float32
        np.testing.assert_allclose(targets.sum(axis=1), 1, atol=1e-5)
    assert any(((targets > 0.01) & (targets < 0.99)).any() for targets in mixed)


def test_mixing_integer_labels_is_refused() -> None:
    with pytest.raises(ConfigError, match="one-hot targets"):
        _make((layers.MixUp,))(IMAGES, np.arange(6, dtype=np.int32), step=0)


def test_other_layers_leave_integer_labels_alone() -> None:
    targets = np.arange(6, dtype=np.int32)
    _, after = _make((layers.RandomFlip,))(IMAGES, targets, step=0)
    np.testing.assert_array_equal(after, targets)


def test_a_layer_of_the_user_takes_part() -> None:
    images, _ = _make((Half,))(IMAGES, TARGETS, step=0)
    np.testing.assert_allclose(images, np.rint(IMAGES / 2), atol=0.5)


def test_another_shape_at_the_end_is_refused() -> None:
    with pytest.raises(ConfigError, match="changes the shape of the images"):
        _make((lambda: layers.ZeroPadding2D(2),))(IMAGES, TARGETS, step=0)


def test_what_is_no_layer_is_refused() -> None:
    with pytest.raises(ConfigError, match="no Keras layer"):
        _make((dict,))


def test_data_tells_whether_labels_are_mixed() -> None:
    assert data.Data(source=dict, augment=(layers.CutMix,)).mixes_labels
    assert not data.Data(source=dict, augment=(layers.RandomFlip,)).mixes_labels
    assert not data.Data(source=dict).mixes_labels


def test_the_precision_of_the_model_does_not_touch_the_images() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        images, _ = _make((lambda: layers.ZeroPadding2D(0),))(IMAGES, TARGETS, step=0)
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_array_equal(images, IMAGES)
