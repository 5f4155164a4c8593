"""The kinds of adapters, by the name that rules and files call them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tflearn.regimes.adapters.adapter import Adapter
from tflearn.regimes.adapters.bias import BiasShift
from tflearn.regimes.adapters.bottleneck import Bottleneck
from tflearn.regimes.adapters.ia3 import IA3
from tflearn.regimes.adapters.lora import DoRA, LoRA
from tflearn.regimes.adapters.prefix import Prefix
from tflearn.regimes.adapters.prompt import Prompt
from tflearn.regimes.adapters.qlora import QLoRA
from tflearn.support.errors import RegimeError, nearest

# A new kind is a subclass of Adapter and a line here.
KINDS: dict[str, type[Adapter]] = {
    kind.kind: kind
    for kind in (LoRA, DoRA, QLoRA, IA3, Bottleneck, Prefix, Prompt, BiasShift)
}


def make(kind: str, options: Mapping[str, Any]) -> Adapter:
    """Makes an adapter.

    Args:
        kind: Name of the kind.
        options: Its hyper-parameters.

    Returns:
        A new adapter without weights.

    Raises:
        RegimeError: There is no such kind, or it does not take these options.
    """
    if kind not in KINDS:
        raise RegimeError(
            "unknown kind of adapter",
            received=kind,
            expected=", ".join(KINDS),
            nearest=nearest(kind, KINDS),
        )
    try:
        return KINDS[kind](**options)
    except TypeError as error:
        raise RegimeError(
            f"an adapter of kind '{kind}' does not take these options",
            received=f"{dict(options)}: {error}",
        ) from None
