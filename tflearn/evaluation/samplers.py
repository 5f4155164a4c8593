"""KerasHub's samplers, from a short description."""

from __future__ import annotations

from typing import Any

from tflearn.backbones import import_keras_hub
from tflearn.support.errors import ConfigError, nearest

#: Samplers by name, and the argument that a number behind the name stands for.
SAMPLERS: dict[str, tuple[str | None, type]] = {
    "greedy": (None, int),
    "random": (None, int),
    "top_k": ("k", int),
    "top_p": ("p", float),
    "beam": ("num_beams", int),
    "contrastive": ("k", int),
}


def make_sampler(described: str, *, temperature: float = 1.0) -> Any:
    """Makes one of KerasHub's samplers from a short description.

    Args:
        described: `greedy`, `random`, `top_k:K`, `top_p:P`, `beam:BEAMS` or
            `contrastive:K`; without a number KerasHub's own default is taken.
        temperature: Logits are divided by it; below 1 the likely gets likelier.

    Returns:
        A `keras_hub.samplers.Sampler`.

    Raises:
        ConfigError: There is no such sampler, or its number is no good.

    Example:

    >>> make_sampler("top_k:40", temperature=0.8).k
    40
    """
    name, _, number = described.partition(":")
    if name not in SAMPLERS:
        raise ConfigError(
            "there is no such sampler",
            received=described,
            expected=", ".join(SAMPLERS),
            nearest=nearest(name, SAMPLERS),
        )
    argument, kind = SAMPLERS[name]
    config: dict[str, Any] = {"temperature": temperature}
    try:
        if number and argument:
            config[argument] = kind(number)
        good = not number or (argument and 0 < config[argument])
        good = good and (argument != "p" or config.get("p", 1) <= 1)
    except ValueError:
        good = False
    if not good or temperature <= 0:
        raise ConfigError(
            "the sampler cannot work with these numbers",
            received=f"{described}, temperature {temperature:g}",
            expected=f"{name}:{argument.upper()}" if argument else name,
        )
    class_name = "".join(part.capitalize() for part in name.split("_")) + "Sampler"
    return getattr(import_keras_hub().samplers, class_name)(**config)


def seeded(sampler: Any, seed: int) -> Any:
    """Copies a sampler; the copy draws the same numbers whenever it is made.

    Args:
        sampler: A `keras_hub.samplers.Sampler`.
        seed: Decides what is drawn, if anything is.
    """
    config = sampler.get_config()
    if "seed" in config:
        config |= {"seed": seed}
    return type(sampler).from_config(config)
