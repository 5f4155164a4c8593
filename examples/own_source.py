"""A data source of your own: any function that returns rows.

A row is a dict; a source is a sequence of rows, or one sequence a split. Name the
function in a gin file and give its arguments there, see `own_parts.gin`.
"""

from __future__ import annotations

from sklearn.datasets import make_moons


def two_moons(num_examples: int = 400, noise: float = 0.1) -> list[dict[str, object]]:
    """Draws points from two interleaved half circles.

    Args:
        num_examples: How many points.
        noise: Standard deviation of the noise.

    Returns:
        Rows with the columns `x`, `y` and `moon`.
    """
    points, moons = make_moons(num_examples, noise=noise, random_state=0)
    return [
        {"x": float(x), "y": float(y), "moon": ("upper", "lower")[moon]}
        for (x, y), moon in zip(points, moons, strict=True)
    ]


if __name__ == "__main__":
    print(two_moons(3))
