"""Backbones of keras.applications."""

from __future__ import annotations

from collections.abc import Callable

import keras

from tflearn.backbones import encoders, transfer
from tflearn.backbones.backbone import Backbone, as_backbone, functional
from tflearn.support.errors import BackboneError, nearest

# keras.applications, by the beginning of a name: the range of pixels that each expects.
# Those that are not here hold their own scaling as a layer.
_SCALINGS = {
    "VGG": "caffe",
    "ResNet50V2": "tf",
    "ResNet101V2": "tf",
    "ResNet152V2": "tf",
    "ResNet": "caffe",
    "Inception": "tf",
    "Xception": "tf",
    "MobileNetV3": "none",
    "MobileNet": "tf",
    "NASNet": "tf",
    "DenseNet": "torch",
}


def application(
    architecture: str | Callable[..., keras.Model],
    *,
    weights: str | None = "imagenet",
    image_size: tuple[int, int] = (224, 224),
    channels: int = 3,
) -> Backbone:
    """A backbone of `keras.applications`.

    Args:
        architecture: Name of a function of `keras.applications`, such as
            `MobileNetV2`, or the function with arguments bound.
        weights: `imagenet` (downloaded once), the path of a weights file, or None for
            new initial values.
        image_size: Height and width.
        channels: 1 or 3; ImageNet weights need 3.

    Returns:
        The backbone; pixels are scaled as its authors did.

    Raises:
        BackboneError: There is no such architecture, or its weights cannot be had.
    """
    function, name = _application(architecture)
    try:
        model = function(
            include_top=False, weights=weights, input_shape=(*image_size, channels)
        )
    except Exception as error:
        raise BackboneError(
            f"keras.applications.{name} cannot be built",
            received=encoders.reason_of(error),
            fix="weights = None for new initial values, or the path of a weights file "
            "that was downloaded elsewhere"
            if weights == "imagenet"
            else None,
        ) from error
    scaling = next(
        (s for start, s in _SCALINGS.items() if name.startswith(start)),
        "none",
    )
    model = functional(model)
    scaling = scaling if channels == 3 else "unit"
    encoder = encoders.image_encoder(model, image_size, scaling=scaling)
    transfer.check_finite_weights(model, origin=str(weights))
    state = "newly initialised" if weights is None else f"weights {weights}"
    return as_backbone(
        model, encoder=encoder, origin=f"keras.applications.{name}, {state}"
    )


def _application(
    architecture: str | Callable[..., keras.Model],
) -> tuple[Callable[..., keras.Model], str]:
    if not isinstance(architecture, str):
        return architecture, getattr(architecture, "__name__", "architecture")
    names = [x for x in dir(keras.applications) if x[0].isupper()]
    if architecture not in names:
        raise BackboneError(
            "keras.applications has no such architecture",
            received=architecture,
            expected=", ".join(names[:8]) + ", ...",
            nearest=nearest(architecture, names),
        )
    return getattr(keras.applications, architecture), architecture
