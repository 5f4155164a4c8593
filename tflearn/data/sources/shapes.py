"""Drawn shapes: images with words for them, without any download."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tflearn.support.errors import DataError

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 40, 40),
    "green": (40, 180, 60),
    "blue": (50, 80, 230),
    "yellow": (235, 220, 50),
    "purple": (150, 50, 190),
    "white": (240, 240, 240),
}
# From distances to the middle, in units of the radius, to what is inside.
SHAPES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": lambda x, y: x**2 + y**2 < 1,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) < 0.85,
    "triangle": lambda x, y: (y < 0.8) & (y > 2 * abs(x) - 0.9),
    "cross": lambda x, y: (
        (np.minimum(abs(x), abs(y)) < 0.3) & (np.maximum(abs(x), abs(y)) < 1)
    ),
    "ring": lambda x, y: abs(x**2 + y**2 - 0.7) < 0.3,
}
_LEAST_SIZE = 16


def drawn_shapes(
    num_examples: int = 2000, size: int = 32, seed: int = 0
) -> list[dict[str, Any]]:
    """Draws one shape an image: 5 shapes in 6 colours, anywhere, of any size.

    Args:
        num_examples: How many images.
        size: Height and width in pixels.
        seed: Another seed draws other images.

    Returns:
        Rows with the columns `image` (uint8 `(size, size, 3)`), `colour`, `shape` and
        `label` (both words).

    Raises:
        DataError: The images are too small to tell the shapes apart.

    Example:

    >>> row = drawn_shapes(num_examples=1)[0]
    >>> row["label"], row["image"].shape
    ('red circle', (32, 32, 3))
    """
    if size < _LEAST_SIZE:
        raise DataError(
            "shapes cannot be told apart in such small images",
            received=size,
            expected=f"at least {_LEAST_SIZE} pixels",
        )
    rng = np.random.default_rng(seed)
    kinds = [(colour, shape) for shape in SHAPES for colour in COLOURS]
    rows = []
    for number in range(num_examples):
        colour, shape = kinds[number % len(kinds)]
        rows.append(
            {
                "image": _drawn(rng, COLOURS[colour], SHAPES[shape], size),
                "colour": colour,
                "shape": shape,
                "label": f"{colour} {shape}",
            }
        )
    return rows


def _drawn(
    rng: np.random.Generator,
    colour: tuple[int, int, int],
    inside: Callable[[np.ndarray, np.ndarray], np.ndarray],
    size: int,
) -> np.ndarray:
    radius = rng.uniform(0.2, 0.4) * size
    x0, y0 = rng.uniform(radius, size - radius, 2)
    y, x = np.mgrid[:size, :size] + 0.5
    within = inside((x - x0) / radius, (y - y0) / radius)
    image = np.where(within[..., None], colour, rng.uniform(20, 110))
    # Noise: otherwise two drawings of a kind could be the same image.
    return np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype("uint8")
