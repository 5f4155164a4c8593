"""Images become what the backbone's own converter would make of them."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from tflearn import backbones
from tflearn.backbones import images
from tflearn.backbones.images import SCALINGS, ImageEncoder
from tflearn.support.errors import BackboneError, DataError

hub = backbones.import_keras_hub()


def picture(height: int = 21, width: int = 34, channels: int = 3) -> np.ndarray:
    """A smooth picture with some noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 5 + band) + np.cos(y / (4 + band)) for band in range(channels)]
    noise = rng.normal(size=(height, width, channels)) * 5
    return np.clip(np.stack(waves, -1) * 60 + 127 + noise, 0, 255).astype("uint8")


CONVERTERS = {
    "plain": {"scale": 1 / 255},
    "stretched": {"scale": 1 / 255, "crop_to_aspect_ratio": False},
    "padded": {
        "scale": 1 / 255,
        "crop_to_aspect_ratio": False,
        "pad_to_aspect_ratio": True,
    },
    "bicubic": {"scale": 1 / 255, "interpolation": "bicubic"},
    "nearest": {"scale": 1 / 255, "interpolation": "nearest"},
    "antialias": {"scale": 1 / 255, "antialias": True},
    "channels": {"scale": [0.01, 0.02, 0.03], "offset": [-1.0, -2.0, 0.5]},
    "offset": {"scale": 1 / 127.5, "offset": -1.0},
    "raw": {},
}


@pytest.mark.parametrize("size", [(12, 12), (40, 25)])
@pytest.mark.parametrize("name", CONVERTERS)
def test_an_image_becomes_what_the_converter_makes_of_it(name: str, size) -> None:
    converter = hub.layers.ImageConverter(image_size=size, **CONVERTERS[name])
    encoder = images.from_converter(converter, image_size=size, channels=3)
    image = picture()
    ours = encoder.scale(encoder.resize(image)[None])
    theirs = keras.ops.convert_to_numpy(converter(image[None].astype("float32")))
    unit = np.max(np.abs(np.array(encoder.scaling.factor))) * 255
    # Ours is rounded to whole pixels, to be kept in memory: half a step of 255, and
    # overshoot of cubic interpolation is clipped.
    error = np.abs(ours - theirs) / unit * 255
    if name == "antialias" or name == "bicubic":
        assert np.mean(error) < 1.5
    else:
        assert np.max(error) <= 1.01


def test_scalings_are_those_of_keras_applications() -> None:
    batch = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), "uint8")
    for mode, module in (
        ("tf", keras.applications.mobilenet_v2),
        ("torch", keras.applications.densenet),
        ("caffe", keras.applications.vgg16),
        ("none", keras.applications.efficientnet),
    ):
        encoder = ImageEncoder(image_size=(4, 4), channels=3, scaling=SCALINGS[mode])
        expected = module.preprocess_input(batch.astype("float32"))
        scaled = encoder.scale(batch)
        assert scaled.dtype == np.float32
        np.testing.assert_allclose(scaled, expected, atol=1e-4, err_msg=mode)


def test_channels_are_brought_to_what_the_backbone_takes() -> None:
    grey = ImageEncoder(image_size=(8, 8), channels=1)
    colour = ImageEncoder(image_size=(8, 8), channels=3)
    red = np.zeros((16, 16, 3), "uint8")
    red[..., 0] = 255
    # The weight of red in ITU-R 601 luma is 0.299.
    assert grey.resize(red)[0, 0].tolist() == [76]
    assert colour.resize(red[..., 0]).tolist()[0][0] == [255, 255, 255]
    transparent = np.dstack([red, np.zeros((16, 16), "uint8")])
    assert colour.resize(transparent)[3, 3].tolist() == [255, 0, 0]
    assert grey.resize(red[..., :1]).shape == (8, 8, 1)
    many = ImageEncoder(image_size=(8, 8), channels=5)
    assert many.resize(np.zeros((3, 3, 5), "uint8")).shape == (8, 8, 5)


def test_an_image_of_the_right_size_is_left_alone() -> None:
    image = picture(8, 8)
    encoder = ImageEncoder(image_size=(8, 8), channels=3)
    np.testing.assert_array_equal(encoder.resize(image), image)


def test_encoders_survive_a_save(tmp_path) -> None:
    encoder = ImageEncoder(
        image_size=(6, 9), channels=3, scaling=SCALINGS["caffe"], aspect="pad"
    )
    from tflearn.backbones.encoder_files import save_encoder

    save_encoder(encoder, tmp_path / "encoder")
    assert backbones.load_encoder(tmp_path / "encoder") == encoder
    vector = backbones.VectorEncoder(size=4)
    save_encoder(vector, tmp_path / "vector")
    assert backbones.load_encoder(tmp_path / "vector") == vector


def test_what_is_no_image_or_no_choice_is_refused() -> None:
    encoder = ImageEncoder(image_size=(8, 8), channels=3)
    for wrong in (np.zeros((4, 4, 3)), np.zeros((0, 4, 3), "uint8")):
        with pytest.raises(DataError, match="not an image"):
            encoder.resize(wrong)
    with pytest.raises(DataError, match="channels.*Received: 5. Expected: 3"):
        encoder.resize(np.zeros((4, 4, 5), "uint8"))
    with pytest.raises(BackboneError, match="Did you mean 'bilinear'"):
        ImageEncoder(image_size=(8, 8), channels=3, interpolation="biliner")
    with pytest.raises(BackboneError, match="another number of channels"):
        ImageEncoder(image_size=(8, 8), channels=1, scaling=SCALINGS["torch"])
    with pytest.raises(BackboneError, match="unknown scaling.*Did you mean 'torch'"):
        images.chosen_scaling("toch")
    with pytest.raises(DataError, match=r"Expected: \(batch, 4\)"):
        backbones.VectorEncoder(size=4)(np.zeros((2, 3)))
