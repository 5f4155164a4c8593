"""Adapters: small layers inside the layers of a frozen backbone."""

from tflearn.regimes.adapters.adapter import Adapter
from tflearn.regimes.adapters.attach import (
    activate,
    active_adapter,
    adapters_of,
    attach,
    attached,
    detach,
    reattach,
)
from tflearn.regimes.adapters.bias import BiasShift
from tflearn.regimes.adapters.bottleneck import Bottleneck
from tflearn.regimes.adapters.files import load_adapter, save_adapter
from tflearn.regimes.adapters.ia3 import IA3
from tflearn.regimes.adapters.kinds import KINDS, make
from tflearn.regimes.adapters.lora import DoRA, LoRA
from tflearn.regimes.adapters.merging import forget_traces, merge, merged, switch
from tflearn.regimes.adapters.prefix import Prefix
from tflearn.regimes.adapters.prompt import Prompt, check_room
from tflearn.regimes.adapters.qlora import QLoRA
from tflearn.regimes.adapters.saved import AdaptedModel, exportable

__all__ = [
    "IA3",
    "KINDS",
    "AdaptedModel",
    "Adapter",
    "BiasShift",
    "Bottleneck",
    "DoRA",
    "LoRA",
    "Prefix",
    "Prompt",
    "QLoRA",
    "activate",
    "active_adapter",
    "adapters_of",
    "attach",
    "attached",
    "check_room",
    "detach",
    "exportable",
    "forget_traces",
    "load_adapter",
    "make",
    "merge",
    "merged",
    "reattach",
    "save_adapter",
    "switch",
]
