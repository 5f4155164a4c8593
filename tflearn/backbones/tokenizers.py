"""What special tokens a tokenizer's texts need, asked of KerasHub's preprocessors."""

from __future__ import annotations

import inspect
from typing import Any

import keras

from tflearn.backbones.libraries import import_keras_hub
from tflearn.backbones.text import Packing, TextEncoder
from tflearn.backbones.vocabularies import TrainedTokenizer
from tflearn.support.errors import BackboneError

# What a text model may take. Encoder-decoders prefix the encoder's part.
ROLES = ("token_ids", "padding_mask", "segment_ids")
_PREFIX = "encoder_"
_DEFAULT_LENGTH = 512

# Tasks whose preprocessor sees a whole text, the preferred first. Masked language
# models and text embedders pack as classifiers do.
_TASKS = ("TextClassifierPreprocessor", "CausalLMPreprocessor", "Preprocessor")


def text_encoder(
    tokenizer: Any, model: keras.Model, *, max_length: int | None = None
) -> TextEncoder:
    """Makes the encoder that feeds a text model as its KerasHub preprocessor would.

    Args:
        tokenizer: A KerasHub tokenizer, or one of `tflearn.backbones.vocabularies`;
            of the latter its declared special tokens say what is put around a text.
        model: A functional model of token ids.
        max_length: Most tokens of a text; what the model takes by default.

    Returns:
        The encoder.

    Raises:
        BackboneError: The tokenizer does not fit the model, or the model needs inputs
            that cannot be made from a text.
    """
    if isinstance(tokenizer, TrainedTokenizer):
        _check_vocabulary(tokenizer, model)
        return TextEncoder(
            tokenizer=tokenizer,
            packing=_declared_packing(tokenizer),
            max_length=_max_length(model, None, max_length),
            input_names=input_names(model),
        )
    hub = import_keras_hub()
    if not isinstance(tokenizer, hub.tokenizers.Tokenizer):
        raise BackboneError(
            "this is not a KerasHub tokenizer",
            received=type(tokenizer).__name__,
            expected="an instance of a class of keras_hub.tokenizers, or what a "
            "function of tflearn.backbones.vocabularies returns",
        )
    _check_vocabulary(tokenizer, model)
    preprocessor = _preprocessor(hub, tokenizer, model)
    return TextEncoder(
        tokenizer=tokenizer,
        packing=_packing(hub, tokenizer, preprocessor),
        max_length=_max_length(model, preprocessor, max_length),
        input_names=input_names(model),
    )


def input_names(model: keras.Model) -> dict[str, str]:
    """Returns which input of a model takes token ids, padding mask, segment ids.

    Args:
        model: A functional text model.

    Returns:
        Names of inputs by role.

    Raises:
        BackboneError: An input cannot be made from a text.
    """
    names = _names(model)
    if len(names) == 1:
        return {"token_ids": names[0]}
    found = {name.removeprefix(_PREFIX): name for name in names}
    strange = [name for role, name in found.items() if role not in ROLES]
    if strange or "token_ids" not in found:
        raise BackboneError(
            "this model takes inputs that cannot be made from a text",
            received=", ".join(names),
            expected=f"some of {', '.join(ROLES)}",
        )
    return {role: found[role] for role in ROLES if role in found}


def is_text_model(model: keras.Model) -> bool:
    """Tells whether a functional model takes token ids."""
    names = _names(model)
    if any(name.removeprefix(_PREFIX) == "token_ids" for name in names):
        return True
    only = model.inputs[0]
    return len(names) == 1 and len(only.shape) == 2 and "int" in str(only.dtype)


def _names(model: keras.Model) -> list[str]:
    if isinstance(model.input, dict):
        return list(model.input)
    return [tensor.name.split(":")[0] for tensor in model.inputs]


def _check_vocabulary(tokenizer: Any, model: keras.Model) -> None:
    size = getattr(model, "vocabulary_size", None)
    if size is not None and tokenizer.vocabulary_size() > size:
        raise BackboneError(
            "the tokenizer has more tokens than the backbone",
            received=tokenizer.vocabulary_size(),
            expected=f"at most vocabulary_size={size}",
            fix="leave the architecture's vocabulary_size unbound: it is then given "
            "the tokenizer's",
        )


def _declared_packing(tokenizer: TrainedTokenizer) -> Packing:
    """Puts around a text what was declared, and nothing else."""
    # The mask of a pair is made by value, which a token that pads only must have.
    pairs = None not in (tokenizer.pad_token_id, tokenizer.sep_token_id)
    return Packing(
        start=_ids(tokenizer.start_token_id),
        separator=_ids(tokenizer.sep_token_id) if pairs else (),
        end=_ids(tokenizer.end_token_id),
        pad=tokenizer.pad_token_id or 0,
        pairs=pairs,
    )


def _preprocessor(hub: Any, tokenizer: Any, model: keras.Model) -> Any | None:
    """Makes the preprocessor that KerasHub pairs with a model or a tokenizer."""
    classes: list[Any] = [x for x in vars(hub.models).values() if inspect.isclass(x)]
    for task in _TASKS:
        base = getattr(hub.models, task)
        of_task = [x for x in classes if issubclass(x, base)]
        # The tokenizer of one architecture is often used with another.
        for fits in (
            [x for x in of_task if x.backbone_cls is type(model)],
            [x for x in of_task if x.tokenizer_cls is type(tokenizer)],
        ):
            for candidate in fits:
                made = _try_preprocessor(candidate, tokenizer)
                if made is not None:
                    return made
    return None


def _try_preprocessor(candidate: Any, tokenizer: Any) -> Any | None:
    if not isinstance(tokenizer, candidate.tokenizer_cls or object):
        return None
    try:
        made = candidate(tokenizer)
        made.build(None)
    except (TypeError, ValueError, AttributeError):
        # A preprocessor that also needs images or audio.
        return None
    return made if _packer(made) is not None else None


def _packer(preprocessor: Any) -> Any:
    encoder_packer = getattr(preprocessor, "encoder_packer", None)
    return encoder_packer or getattr(preprocessor, "packer", None)


def _packing(hub: Any, tokenizer: Any, preprocessor: Any | None) -> Packing:
    if preprocessor is None:
        return Packing(
            start=_ids(getattr(tokenizer, "start_token_id", None)),
            end=_ids(getattr(tokenizer, "end_token_id", None)),
            pad=getattr(tokenizer, "pad_token_id", None) or 0,
        )
    packer = _packer(preprocessor)
    pairs = isinstance(packer, hub.layers.MultiSegmentPacker)
    adds_start = getattr(preprocessor, "add_start_token", True)
    adds_end = getattr(preprocessor, "add_end_token", True)
    return Packing(
        start=_ids(packer.start_value) if adds_start else (),
        separator=_ids(packer.sep_value) if pairs else (),
        end=_ids(packer.end_value) if adds_end else (),
        pad=packer.pad_value or 0,
        pad_left=packer.padding_side == "left",
        pairs=pairs,
        waterfall=pairs and packer.truncate == "waterfall",
    )


def _ids(value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    return (int(value),) if isinstance(value, int) else tuple(map(int, value))


def _max_length(
    model: keras.Model, preprocessor: Any | None, wanted: int | None
) -> int:
    limit = getattr(model, "max_sequence_length", None)
    limit = limit if isinstance(limit, int) else None
    if wanted is None:
        # Backbones with relative positions have no limit of their own.
        usual = getattr(preprocessor, "sequence_length", None)
        return limit or usual or _DEFAULT_LENGTH
    if wanted < 1 or (limit is not None and wanted > limit):
        raise BackboneError(
            "the backbone does not take texts of this length",
            received=f"max_length={wanted}",
            expected=f"1 to {limit or 'any number of'} tokens",
        )
    return wanted
