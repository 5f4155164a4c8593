"""Convolutions of images smaller than their kernel, at the speed of products, on JAX.

Where an image has fewer pixels than the kernel has taps, as in the last stage of a
ResNet on small images, XLA swaps the two of them, and then knows no fast way on a CPU:
3 x 3 taps over 2 x 2 pixels of 512 channels run at 2 GFLOP/s, a hundredth of what a
product reaches. What lies under the kernel at every place is a matrix; laid out, it
makes the convolution a product, and its gradients too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras

from tflearn.distribution.devices import computed_on

# A `Conv1D` does not call `convolution_op`.
_KINDS = (keras.layers.Conv2D, keras.layers.Conv3D)


def install(layers: Iterable[keras.Layer]) -> int:
    """Makes convolutions compute small images as products where XLA would not.

    Numbers stay the same up to the order of sums; what a layer saves does, too.

    Args:
        layers: All layers of a model.

    Returns:
        How many layers have it: none but on JAX and CPUs, where it decides anew for
        every shape that a layer is called on.
    """
    if keras.backend.backend() != "jax" or computed_on() != "cpu":
        return 0
    found = [x for x in layers if isinstance(x, _KINDS) and _is_plain(x)]
    for layer in found:
        # Past `__setattr__`, which would look for layers in it.
        layer.__dict__["convolution_op"] = _either(layer)
    return len(found)


def _is_plain(layer: Any) -> bool:
    return (
        layer.groups == 1
        and layer.data_format == "channels_last"
        and layer.padding in ("same", "valid")
        and math.prod(layer.kernel_size) > 1
        # Only Keras's own form is known.
        and type(layer).convolution_op in {x.convolution_op for x in _KINDS}
    )


def _either(layer: Any) -> Callable[[Any, Any], Any]:
    """Returns what convolves as a layer does, small images as a product."""
    usual = type(layer).convolution_op.__get__(layer)

    def convolve(inputs: Any, kernel: Any) -> Any:
        # A gradient convolves what came out, so that must not be small either.
        pixels = [x for x in inputs.shape[1:-1] if x is not None]
        symbolic = isinstance(inputs, keras.KerasTensor) or len(pixels) != layer.rank
        strides = math.prod(layer.strides)
        if symbolic or math.prod(pixels) >= strides * math.prod(layer.kernel_size):
            return usual(inputs, kernel)
        return multiplied(
            inputs,
            kernel,
            strides=layer.strides,
            dilation=layer.dilation_rate,
            padding=layer.padding,
        )

    return convolve


def multiplied(
    images: Any,
    kernel: Any,
    *,
    strides: Sequence[int],
    dilation: Sequence[int],
    padding: str,
) -> Any:
    """Convolves as a product of what lies under the kernel at every place.

    Args:
        images: `(batch, *pixels, channels)`.
        kernel: `(*taps, channels, filters)`.
        strides: Step from place to place on each axis.
        dilation: Step from tap to tap on each axis.
        padding: `same` or `valid`, as Keras means it.

    Returns:
        `(batch, *places, filters)`.

    Example:

    >>> import numpy as np
    >>> images = np.arange(4.0, dtype="float32").reshape(1, 2, 2, 1)
    >>> kernel = np.ones((3, 3, 1, 1), "float32")
    >>> found = multiplied(images, kernel, strides=(1, 1), dilation=(1, 1),
    ...                    padding="same")
    >>> np.asarray(found).ravel().tolist()
    [6.0, 6.0, 6.0, 6.0]
    """
    import jax

    taps = kernel.shape[:-2]
    reach = [(tap - 1) * step + 1 for tap, step in zip(taps, dilation, strict=True)]
    borders = jax.lax.padtype_to_pads(
        images.shape[1:-1], reach, strides, padding.upper()
    )
    images = keras.ops.pad(images, [(0, 0), *borders, (0, 0)])
    last = [
        length - long for length, long in zip(images.shape[1:-1], reach, strict=True)
    ]
    # What one tap meets: every so-many-th pixel from its own offset on.
    seen = []
    for tap in itertools.product(*map(range, taps)):
        offsets = [i * step for i, step in zip(tap, dilation, strict=True)]
        cut = [
            slice(offset, offset + end + 1, stride)
            for offset, end, stride in zip(offsets, last, strides, strict=True)
        ]
        seen.append(images[(slice(None), *cut)])
    patches = keras.ops.concatenate(seen, axis=-1)
    return keras.ops.matmul(patches, keras.ops.reshape(kernel, (-1, kernel.shape[-1])))
