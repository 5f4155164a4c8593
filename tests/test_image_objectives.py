"""SimCLR, masked images and image-text pretraining, on tiny models."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import subprocess
import sys

import keras
import numpy as np
import pytest

from tflearn import backbones, experiment, objectives, regimes
from tflearn.backbones import graph
from tflearn.backbones.images import ImageEncoder
from tflearn.backbones.text import Packing, TextEncoder
from tflearn.data import Data, sources
from tflearn.data.examples import ImageExamples
from tflearn.objectives import Pretext, Views, contrastive
from tflearn.objectives.masked_decoder import MaskedDecoder, VisibleTokens
from tflearn.regimes import trainability
from tflearn.support.errors import BackboneError, ConfigError, DataError
from tflearn.training import export, optimizers

hub = backbones.import_keras_hub()

SIZE = 16
COLOURS = ("red", "green", "blue", "white", "black", "grey", "pink", "teal")


def examples(count: int = 16) -> ImageExamples:
    """Images of a gradient each, every one of another colour and direction."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    images = np.empty((count, SIZE, SIZE, 3), "uint8")
    for image in images:
        colour, slope = rng.uniform(60, 255, 3), rng.uniform(-1, 1, 2)
        shade = 0.5 + 0.25 * (slope[0] * x + slope[1] * y)
        image[...] = (shade[..., None] * colour).astype("uint8")
    encoder = ImageEncoder(image_size=(SIZE, SIZE), channels=3)
    columns = {"train": {"image": list(images)}}
    data = Data(source=lambda: sources.arrays(columns), input="image", target=None)
    split = data.load(target_kind="none").splits["train"]
    return ImageExamples(split, encoder, cache_bytes=2**20)


def convolutions() -> keras.Model:
    return keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="conv"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Conv2D(16, 3, strides=2, activation="relu", name="deep"),
        ]
    )


def vit(*, use_class_token: bool = True) -> keras.Model:
    return hub.models.ViTBackbone(
        image_shape=(SIZE, SIZE, 3),
        patch_size=4,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        mlp_dim=32,
        use_class_token=use_class_token,
    )


def deit() -> keras.Model:
    return hub.models.DeiTBackbone(
        image_shape=(SIZE, SIZE, 3),
        patch_size=4,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
    )


def words() -> backbones.Backbone:
    """A text backbone whose tokens are the words of a caption."""
    vocabulary = ["", "a", "shape", *COLOURS]

    def tokenizer(texts: list[str]) -> list[list[int]]:
        return [[vocabulary.index(word) for word in text.split()] for text in texts]

    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    padding_mask = keras.Input((None,), dtype="int32", name="padding_mask")
    embedded = keras.layers.Embedding(16, 8, name="words")(token_ids)
    outputs = keras.layers.Dense(8, name="dense")(embedded)
    inputs = {"token_ids": token_ids, "padding_mask": padding_mask}
    return backbones.Backbone(
        model=keras.Model(inputs, outputs, name="backbone"),
        kind="text",
        encoder=TextEncoder(
            tokenizer=tokenizer,
            packing=Packing(),
            max_length=6,
            input_names={name: name for name in inputs},
        ),
        origin="words",
    )


def captions(count: int = 16) -> np.ndarray:
    """Two images share each caption."""
    return np.array([f"a {COLOURS[i // 2 % 8]} shape" for i in range(count)], object)


# An objective, an architecture it works on, and the targets it takes.
OBJECTIVES = {
    "simclr": (
        functools.partial(objectives.simclr, projection=(16, 8)),
        convolutions,
        None,
    ),
    "masked_image": (
        functools.partial(
            objectives.masked_image, decoder_width=16, decoder_depth=1, decoder_heads=2
        ),
        vit,
        None,
    ),
    "image_text": (
        functools.partial(objectives.image_text, text_backbone=words, dim=8),
        convolutions,
        captions(),
    ),
}


@dataclasses.dataclass
class Bound:
    backbone: backbones.Backbone
    pretext: Pretext
    examples: object

    def batch(self, seed: int = 0, indices=range(16)):
        rng = np.random.default_rng(seed)
        return self.pretext.make_batch(self.examples, np.array(indices), rng)


@functools.cache
def bound(name: str) -> Bound:
    keras.utils.set_random_seed(0)
    make, architecture, targets = OBJECTIVES[name]
    backbone = backbones.hub(architecture)
    pretext = make().bind(backbone)
    return Bound(backbone, pretext, pretext.arrange(examples(), targets))


def flat(batch) -> list[np.ndarray]:
    return keras.tree.flatten(batch)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_batch_is_a_pure_function_of_indices_and_generator(name: str) -> None:
    one = bound(name)
    first, again, other = (flat(one.batch(seed)) for seed in (0, 0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    if name != "image_text":  # Without views, it has nothing random.
        assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    fewer = one.batch(0, range(4))
    assert {len(array) for array in flat(fewer)} == {4}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_model_holds_the_backbone_s_own_weights_under_their_paths(name) -> None:
    one = bound(name)
    paths = graph.variables_by_path(one.pretext.model)
    for path, variable in graph.weights_by_path(one.backbone.model).items():
        assert paths[f"backbone/{path}"] is variable


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_regime_reaches_backbone_and_head(name: str) -> None:
    model = bound(name).pretext.model
    census = regimes.apply(model, regimes.frozen())
    roles = {row.path.split("/")[0]: row.role for row in census.rows}
    assert roles == {"backbone": "frozen", "head": "trained"}
    everything = regimes.apply(model, regimes.full())
    assert {row.role for row in everything.rows} == {"trained"}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_statistics_and_loss_agree(name: str) -> None:
    pretext = bound(name).pretext
    inputs, targets = bound(name).batch()
    outputs = pretext.model(inputs)
    found = {
        key: np.asarray(value)
        for key, value in pretext.statistics(outputs, targets, None).items()
    }
    assert {value.shape for value in found.values()} == {(16,)}
    means = {key: np.full((2, 3), value.mean()) for key, value in found.items()}
    metrics = pretext.summarize(means)
    assert {value.shape for value in metrics.values()} == {(2, 3)}
    loss = float(pretext.loss()(targets, outputs))
    np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
    for metric in pretext.metrics():
        metric.update_state(targets, outputs)
        expected = metrics[metric.name][0, 0]
        assert float(metric.result()) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_network_can_be_saved_and_loaded(name: str, tmp_path) -> None:
    model = bound(name).pretext.model
    inputs, _ = bound(name).batch()
    if bound(name).pretext.deployed is not None:
        model, inputs = bound(name).pretext.deployed, examples().batch(np.arange(4))
        assert isinstance(model.get_layer("backbone"), type(bound(name).backbone.model))
    model.save(tmp_path / "model.keras")
    loaded = backbones.load_model(tmp_path / "model.keras")
    assert list(graph.weights_by_path(loaded)) == list(graph.weights_by_path(model))
    np.testing.assert_allclose(
        np.asarray(loaded(inputs)), np.asarray(model(inputs)), atol=1e-5
    )


# --- Contrastive losses ---


def reference_nt_xent(pairs, numbers, temperature):
    """NT-Xent as the paper writes it, pair by pair."""
    views = pairs.reshape(-1, pairs.shape[-1]).astype("float64")
    views /= np.linalg.norm(views, axis=1, keepdims=True)
    owner = np.repeat(numbers, 2)
    losses, found = [], []
    for i in range(len(views)):
        scores = views @ views[i]
        other = i + 1 if i % 2 == 0 else i - 1
        negative = scores[owner != owner[i]]
        terms = np.exp(np.append(negative, scores[other]) / temperature)
        losses.append(-np.log(terms[-1] / terms.sum()))
        found.append(scores[other] > negative.max())
    return np.reshape(losses, (-1, 2)).mean(1), np.reshape(found, (-1, 2)).mean(1)


def reference_info_nce(pairs, numbers, temperature):
    scores = pairs[:, 0] @ pairs[:, 1].T / temperature

    def chosen(table, i):
        others = table[i][numbers != numbers[i]]
        own = table[i, i]
        loss = np.log(np.exp(np.append(others, own)).sum()) - own
        return loss, own > others.max()

    rows = [chosen(scores, i) for i in range(len(scores))]
    columns = [chosen(scores.T, i) for i in range(len(scores))]
    losses = [(a[0] + b[0]) / 2 for a, b in zip(rows, columns, strict=True)]
    return losses, [found for _, found in rows], [found for _, found in columns]


NUMBERS = {"all different": np.arange(6), "repeated": np.array([0, 1, 2, 3, 3, 3])}


@pytest.mark.parametrize("numbers", NUMBERS.values(), ids=NUMBERS)
@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_nt_xent_is_that_of_the_paper(numbers, temperature) -> None:
    base = np.random.default_rng(0).normal(size=(6, 1, 5))
    noise = np.random.default_rng(1).normal(size=(6, 2, 5))
    pairs = (base + noise).astype("float32")
    losses, found = reference_nt_xent(pairs, numbers, temperature)
    ours = contrastive.nt_xent(pairs, numbers, temperature=temperature)
    np.testing.assert_allclose(np.asarray(ours), losses, rtol=1e-5)
    np.testing.assert_array_equal(
        np.asarray(contrastive.views_found(pairs, numbers)), found
    )
    assert 0 < np.mean(found) < 1
    loss = contrastive.PairLoss("nt_xent", temperature=temperature)(numbers, pairs)
    assert float(loss) == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize("numbers", NUMBERS.values(), ids=NUMBERS)
def test_info_nce_is_cross_entropy_both_ways(numbers) -> None:
    pairs = np.random.default_rng(0).normal(size=(6, 2, 5)).astype("float32")
    losses, texts, images = reference_info_nce(pairs, numbers, 0.5)
    ours = contrastive.info_nce(pairs, numbers, temperature=0.5)
    np.testing.assert_allclose(np.asarray(ours), losses, atol=2e-6)
    found = contrastive.sides_found(pairs, numbers)
    np.testing.assert_array_equal(np.asarray(found[0]), texts)
    np.testing.assert_array_equal(np.asarray(found[1]), images)


def test_one_point_for_all_finds_nothing() -> None:
    same = np.ones((4, 2, 3), "float32")
    assert np.asarray(contrastive.views_found(same, np.arange(4))).sum() == 0
    chance = contrastive.nt_xent(same, np.arange(4), temperature=0.5)
    np.testing.assert_allclose(np.asarray(chance), np.log(7), rtol=1e-5)


@pytest.mark.parametrize("name", ["nt_xent", "info_nce"])
def test_a_loss_over_pairs_is_one_of_two_at_a_positive_temperature(name: str) -> None:
    with pytest.raises(ConfigError, match="temperature"):
        contrastive.PairLoss(name, temperature=0.0)
    config = contrastive.PairLoss(name, temperature=0.3).get_config()
    restored = contrastive.PairLoss.from_config(config)
    assert (restored.name, restored.temperature) == (name, 0.3)
    with pytest.raises(ConfigError, match=f"Did you mean '{name}'"):
        contrastive.PairLoss(name[:-1])


# --- Views ---

PICTURES = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), "uint8")
STILL = {"min_area": 1.0, "flip": 0.0, "jitter": 0.0, "grayscale": 0.0}


def views_of(pixels=PICTURES, seed: int = 0, **changes) -> np.ndarray:
    return Views(**(STILL | changes))(pixels, np.random.default_rng(seed))


def test_views_that_change_nothing_change_nothing() -> None:
    np.testing.assert_array_equal(views_of(), PICTURES)


def test_a_flip_mirrors_columns() -> None:
    np.testing.assert_array_equal(views_of(flip=1.0), PICTURES[:, :, ::-1])


def test_a_crop_shows_a_part_in_full_size() -> None:
    ramp = np.broadcast_to(np.arange(0, 256, 8, dtype="uint8")[:, None], (9, 32, 32))
    pixels = np.repeat(ramp[..., None], 3, axis=-1)
    cropped = views_of(pixels, min_area=0.25).astype(int)
    spans = np.ptp(cropped[..., 0], axis=1)[:, 0]
    # The share of the height that is left, of an area from a quarter to the whole.
    assert spans.min() >= 0.4 * 248 and spans.max() <= 248 and np.ptp(spans) > 20
    assert np.ptp(cropped, axis=2).max() == 0


def test_gray_has_the_brightness_and_no_colour() -> None:
    gray = views_of(grayscale=1.0)
    assert np.ptp(gray, axis=-1).max() == 0
    luma = PICTURES @ np.array([0.299, 0.587, 0.114])
    assert np.abs(gray[..., 0] - luma).max() <= 0.5


def test_jitter_changes_colours_of_each_image_by_itself() -> None:
    same = np.repeat(PICTURES[:1], 20, axis=0)
    changed = views_of(same, jitter=1.0)
    assert len(np.unique(changed.reshape(20, -1), axis=0)) == 20
    some = views_of(same, jitter=0.5)
    unchanged = (some == same).all(axis=(1, 2, 3)).mean()
    assert 0.2 < unchanged < 0.8


def test_grey_images_have_views_too() -> None:
    grey = PICTURES[..., :1]
    assert Views()(grey, np.random.default_rng(0)).shape == grey.shape


@pytest.mark.parametrize("field", ["min_area", "flip", "strength", "grayscale"])
def test_a_view_out_of_its_range_is_refused(field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        Views(**{field: -0.1})


# --- SimCLR ---


def test_a_pair_is_two_views_of_one_image() -> None:
    one = bound("simclr")
    pairs, numbers = one.batch(indices=[5, 5, 2])
    assert pairs.shape == (3, 2, SIZE, SIZE, 3) and pairs.dtype == np.float32
    assert numbers.tolist() == [5, 5, 2]
    assert not np.array_equal(pairs[0, 0], pairs[0, 1])
    outputs = one.pretext.model(pairs)
    assert outputs.shape == (3, 2, 8)


def test_views_of_one_s_own() -> None:
    pretext = objectives.simclr(views=lambda pixels, rng: pixels // 2).bind(
        backbones.hub(convolutions)
    )
    images = examples()
    pairs, _ = pretext.make_batch(images, np.arange(2), np.random.default_rng(0))
    half = images.scale(images.pixels(np.arange(2)) // 2)
    np.testing.assert_array_equal(pairs[:, 0], half)
    np.testing.assert_array_equal(pairs[:, 1], half)


def test_simclr_refuses_what_it_cannot_use() -> None:
    with pytest.raises(ConfigError, match="temperature"):
        objectives.simclr(temperature=0.0)
    with pytest.raises(ConfigError, match="projection"):
        objectives.simclr(projection=())
    with pytest.raises(ConfigError, match="backbone of images"):
        objectives.simclr().bind(words())


# --- Masked images ---


@pytest.mark.parametrize(
    ("architecture", "extra"),
    [(functools.partial(vit, use_class_token=False), 0), (deit, 2)],
    ids=["vit", "deit"],
)
def test_the_encoder_sees_the_visible_patches_alone(architecture, extra) -> None:
    backbone = backbones.hub(architecture)
    pretext = objectives.masked_image(decoder_width=16).bind(backbone)
    images = examples()
    inputs, targets = pretext.make_batch(images, np.arange(3), np.random.default_rng(0))
    assert inputs["visible"].shape == (3, 4)
    assert targets.shape == (3, 12, 4 * 4 * 3)
    inner = pretext.model.get_layer("backbone")
    given = {name: inputs[name] for name in ("images", "visible")}
    encoded = np.asarray(inner(given))
    assert encoded.shape == (3, extra + 4, 16)
    # Another value in a masked patch changes nothing, in a visible one it does.
    for kind, changes in (("masked", False), ("visible", True)):
        row, column = divmod(int(inputs[kind][0, 0]), 4)
        other = inputs["images"].copy()
        other[0, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] += 0.5
        again = np.asarray(inner(given | {"images": other}))
        assert np.allclose(again, encoded, atol=1e-6) is not changes


def test_seeing_every_patch_is_the_backbone_itself() -> None:
    backbone = backbones.hub(vit)
    images = examples().batch(np.arange(2))
    embedding, encoder = backbone.model.layers[1:]
    every = np.tile(np.arange(16, dtype="int32"), (2, 1))
    seen = VisibleTokens(1)(embedding(images), every)
    np.testing.assert_allclose(
        np.asarray(encoder(seen)), np.asarray(backbone.model(images)), atol=1e-6
    )


def test_targets_are_the_normalised_pixels_of_masked_patches() -> None:
    backbone = backbones.hub(vit)
    images = examples()

    def batch(normalize: bool):
        keep = lambda pixels, rng: pixels  # noqa: E731
        pretext = objectives.masked_image(normalize=normalize, views=keep).bind(
            backbone
        )
        return pretext.make_batch(images, np.arange(2), np.random.default_rng(0))

    inputs, pixels = batch(False)
    row, column = divmod(int(inputs["masked"][1, 5]), 4)
    patch = inputs["images"][1, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
    np.testing.assert_array_equal(pixels[1, 5], patch.ravel())
    _, normalised = batch(True)
    expected = (patch.ravel() - patch.mean()) / np.sqrt(patch.var() + 1e-6)
    np.testing.assert_allclose(normalised[1, 5], expected, rtol=1e-4, atol=1e-4)
    together = np.sort(np.concatenate([inputs["visible"], inputs["masked"]], 1), 1)
    np.testing.assert_array_equal(together, np.tile(np.arange(16), (2, 1)))


def test_the_decoder_tells_masked_patches_apart_by_their_place() -> None:
    decoder = MaskedDecoder(grid=(2, 2), outputs=3, extra=1, width=8, num_heads=2)
    tokens = np.random.default_rng(0).normal(size=(1, 2, 5)).astype("float32")
    first = np.asarray(decoder(tokens, np.array([[0]]), np.array([[1, 2, 3]])))
    turned = np.asarray(decoder(tokens, np.array([[0]]), np.array([[3, 2, 1]])))
    assert not np.allclose(first[:, 0], first[:, 1], atol=1e-3)
    np.testing.assert_allclose(first, turned[:, ::-1], atol=1e-5)


def test_the_decoder_takes_lengths_that_are_known_only_when_it_runs() -> None:
    decoder = MaskedDecoder(grid=(2, 2), outputs=3, extra=1, width=8, num_heads=2)
    shapes = {"tokens": ((None, 5), "float32"), "visible": ((None,), "int32")}
    shapes["masked"] = shapes["visible"]
    inputs = {
        name: keras.Input(shape, dtype=dtype, name=name)
        for name, (shape, dtype) in shapes.items()
    }
    model = keras.Model(inputs, decoder(*inputs.values()))
    model.compile("sgd", "mse")

    def batches():
        for masked in itertools.cycle((3, 2)):
            order = np.arange(4, dtype="int32")[None]
            tokens = np.ones((1, 5 - masked, 5), "float32")
            parts = (tokens, order[:, masked:], order[:, :masked])
            yield dict(zip(inputs, parts, strict=True)), np.ones((1, masked, 3))

    history = model.fit(
        batches(), steps_per_epoch=2, epochs=2, shuffle=False, verbose=0
    )
    assert np.isfinite(history.history["loss"]).all()


def test_masked_images_need_a_vision_transformer() -> None:
    with pytest.raises(BackboneError, match="objectives.simclr"):
        objectives.masked_image().bind(backbones.hub(convolutions))


def test_masked_image_refuses_what_it_cannot_use() -> None:
    with pytest.raises(ConfigError, match="ratio"):
        objectives.masked_image(ratio=1.0)
    with pytest.raises(ConfigError, match="nothing to"):
        objectives.masked_image(ratio=0.99).bind(backbones.hub(vit))
    with pytest.raises(ConfigError, match="decoder"):
        objectives.masked_image(decoder_width=6).bind(backbones.hub(vit))


def masked_stage(name: str, width: int) -> experiment.Stage:
    count = 8
    pixels = np.random.default_rng(0).integers(0, 255, (count, SIZE, SIZE, 3), "uint8")
    columns = {"train": {"image": list(pixels)}}
    return experiment.Stage(
        name=name,
        data=lambda: Data(
            source=lambda: sources.arrays(columns), input="image", target=None
        ),
        objective=functools.partial(
            objectives.masked_image, decoder_width=width, decoder_depth=1
        ),
        regime=regimes.full(),
        optimizer=optimizers.adamw,
        budget="1 steps",
        batch_size=count,
    )


def test_a_decoder_of_equal_size_goes_on(tmp_path, capsys) -> None:
    stages = [masked_stage(*x) for x in (("a", 8), ("b", 8), ("c", 12))]
    declared = experiment.Experiment(
        backbone=functools.partial(backbones.hub, vit), stages=stages
    )
    first, equal, wider = experiment.build(declared).stages
    decoder = first.network.model.get_layer("decoder")
    for weight in decoder.weights:
        weight.assign(np.full(weight.shape, 0.5))

    def carried(prepared) -> bool:
        weights = prepared.network.model.get_layer("decoder").get_weights()
        return all((weight == 0.5).all() for weight in weights)

    export.carry_head(first, equal)
    assert carried(equal)
    assert "decoder carried, from 'a' to 'b'" in capsys.readouterr().out
    export.carry_head(first, wider)
    assert not carried(wider)
    assert "new decoder: of other sizes" in capsys.readouterr().out

    export.write_model(first, tmp_path / "model")
    (again,) = experiment.build(
        dataclasses.replace(
            declared, stages=(masked_stage("d", 8),), start_from=str(tmp_path)
        )
    ).stages
    assert carried(again)
    assert "decoder carried" in capsys.readouterr().out


# --- Image and text ---


def test_captions_are_tokenized_beside_their_images() -> None:
    one = bound("image_text")
    inputs, numbers = one.batch(indices=[0, 1, 4])
    assert set(inputs) == {"images", "token_ids", "padding_mask"}
    # "a red shape" twice, then "a blue shape", padded to the most that fits.
    assert inputs["token_ids"].tolist() == [
        [1, 3, 2, 0, 0, 0],
        [1, 3, 2, 0, 0, 0],
        [1, 5, 2, 0, 0, 0],
    ]
    assert numbers[0] == numbers[1] != numbers[2]
    assert len(one.examples) == 16
    assert one.examples.batch(np.arange(2)).shape == (2, SIZE, SIZE, 3)


def test_the_text_tower_lies_in_the_head() -> None:
    paths = trainability.layer_paths(bound("image_text").pretext.model)
    assert "head/text_backbone/words" in paths
    assert "head/cosine_scale" in paths


def test_the_scale_is_learned_unless_declared_otherwise() -> None:
    def scale(**changes):
        make = functools.partial(objectives.image_text, text_backbone=words)
        pretext = make(**changes).bind(backbones.hub(convolutions))
        return pretext.model.get_layer("cosine_scale")

    assert len(scale().trainable_variables) == 1
    fixed = scale(learn_temperature=False, temperature=0.5)
    assert not fixed.variables
    vector = np.array([[3.0, 4.0]])
    np.testing.assert_allclose(np.asarray(fixed(vector)), [[1.2, 1.6]], rtol=1e-6)
    largest = scale(temperature=1e-4)(vector)
    np.testing.assert_allclose(np.linalg.norm(np.asarray(largest)), 100, rtol=1e-5)


def test_long_captions_are_refused_or_cut_and_counted() -> None:
    def arranged(**changes):
        make = functools.partial(objectives.image_text, text_backbone=words)
        pretext = make(**changes).bind(backbones.hub(convolutions))
        return pretext.arrange(examples(), captions())

    with pytest.raises(DataError, match="16 of 16 captions"):
        arranged(max_length=2)
    cut = arranged(max_length=2, truncate=True)
    assert "cut" in cut.notes[0]
    assert cut.captions(np.arange(3))["token_ids"].shape == (3, 2)
    with pytest.raises(ConfigError, match="more than the text backbone"):
        arranged(max_length=7)


def test_image_text_refuses_what_it_cannot_use() -> None:
    convolution = functools.partial(backbones.hub, convolutions)
    with pytest.raises(ConfigError, match="backbone of texts"):
        objectives.image_text(text_backbone=convolution).bind(convolution())
    pretext = bound("image_text").pretext
    with pytest.raises(ConfigError, match="data.Data.target"):
        pretext.arrange(examples(), None)


# --- Several devices ---

TRAIN = """
import keras
import numpy as np
from tflearn.objectives.contrastive import PairLoss

keras.utils.set_random_seed(0)
inputs = keras.Input((2, 5))
model = keras.Model(inputs, keras.layers.Dense(3)(inputs))
model.compile(keras.optimizers.SGD(0.5), PairLoss("nt_xent", temperature=0.5))
x = np.random.default_rng(0).normal(size=(8, 2, 5)).astype("float32")
losses = [float(model.train_on_batch(x, np.arange(8))) for _ in range(4)]
"""

DIVIDE = """
import keras
assert len(keras.distribution.list_devices()) == 4
mesh = keras.distribution.DataParallel(auto_shard_dataset=False)
keras.distribution.set_distribution(mesh)
"""


@pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="keras.distribution is JAX's"
)
def test_the_loss_sees_the_pairs_of_all_devices() -> None:
    alone: dict[str, list[float]] = {}
    exec(TRAIN, alone)
    found = subprocess.run(
        [sys.executable, "-c", f"{DIVIDE}{TRAIN}\nprint(*losses)"],
        env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    divided = [float(loss) for loss in found.stdout.split()[-4:]]
    np.testing.assert_allclose(divided, alone["losses"], rtol=1e-5)
    # Two pairs a device, seen alone, would start below log 3.
    assert divided[0] > np.log(4) and divided[-1] < divided[0]
