"""Masked language modelling: tokens are predicted from both sides."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from tflearn.backbones import Backbone
from tflearn.backbones.text import TextEncoder
from tflearn.data.examples import TextExamples
from tflearn.heads.language_model import POSITIONS, LanguageModel
from tflearn.objectives.language import isolation, masking, scores, tokens
from tflearn.objectives.language.masking import Masked, Masking
from tflearn.objectives.pretext import Batch, Pretext, SelfSupervised

_ACCURACY = "masked_accuracy"


def masked_lm(
    *,
    rate: float = 0.15,
    whole_word: bool = False,
    keep: float = 0.1,
    random: float = 0.1,
    tie_embeddings: bool | None = None,
) -> SelfSupervised:
    """Predicts masked tokens, chosen anew every time a text is seen.

    Special tokens are never chosen. Logits are computed at the chosen places alone.

    Args:
        rate: Share of the tokens of a text that are chosen; at least one.
        whole_word: Whether all tokens of a word are chosen together, for WordPiece,
            byte pairs and SentencePiece.
        keep: Share of the chosen tokens that the model sees as they are.
        random: Share of the chosen tokens that it sees replaced by another one; it
            sees the mask token at all others.
        tie_embeddings: Whether logits come from the token embedding. None: where the
            backbone can do that, else from an output layer.

    Returns:
        The objective. Its metrics: `loss` in nats a masked token, `perplexity`,
        `masked_accuracy`.

    Raises:
        ConfigError: A share is out of its range.

    References:
        Devlin et al. 2019, https://arxiv.org/abs/1810.04805
        Liu et al. 2019, https://arxiv.org/abs/1907.11692 (dynamic masking)
    """
    settings = Masking(rate=rate, keep=keep, random=random)
    return SelfSupervised(
        name="masked_lm",
        inputs=("text", "pair"),
        bind=functools.partial(_bind, settings, whole_word, tie_embeddings),
        headline="loss",
    )


def _bind(
    settings: Masking,
    whole_word: bool,
    tie_embeddings: bool | None,
    backbone: Backbone,
) -> Pretext:
    encoder = tokens.text_encoder(backbone, "masked_lm")
    masker = Masker(encoder, settings, whole_word=whole_word, objective="masked_lm")
    isolation.check_not_decoder(backbone, "masked_lm")
    return Pretext(
        model=LanguageModel(
            backbone.model,
            masked=True,
            tied=tie_embeddings,
            vocabulary_size=tokens.vocabulary_size(backbone),
            output=tokens.feature_output(backbone, "sequence"),
            name="masked_lm",
        ),
        features="sequence",
        make_batch=functools.partial(_make_batch, masker),
        loss=scores.loss,
        metrics=functools.partial(scores.metrics, accuracy=_ACCURACY),
        statistics=scores.statistics,
        summarize=functools.partial(scores.summarize, accuracy=_ACCURACY),
    )


class Masker:
    """Masks batches of tokens.

    Args:
        encoder: Of the backbone.
        settings: How many tokens, and how.
        whole_word: Whether words are masked as a whole.
        objective: Who asks, for messages.

    Raises:
        BackboneError: The tokenizer has no mask token.
        ConfigError: The vocabulary does not say where words begin.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        settings: Masking,
        *,
        whole_word: bool,
        objective: str,
    ) -> None:
        self._settings = settings
        self._token_name = encoder.input_names["token_ids"]
        self._mask_name = encoder.input_names.get("padding_mask")
        self._mask_id = tokens.mask_token(encoder, objective)
        self._special = tokens.special_ids(encoder)
        self._pad = encoder.packing.pad
        self._ordinary = tokens.ordinary_ids(encoder)
        self._continues = tokens.continues_word(encoder) if whole_word else None

    def __call__(
        self, inputs: dict[str, np.ndarray], rng: np.random.Generator
    ) -> tuple[dict[str, np.ndarray], Masked]:
        """Returns the inputs with masked token ids, and what was masked."""
        ids = inputs[self._token_name]
        real = ids != self._pad
        if self._mask_name is not None:
            real = inputs[self._mask_name] > 0
        eligible = real & ~np.isin(ids, self._special)
        if self._continues is None:
            chosen = masking.choose_tokens(eligible, self._settings, rng)
        else:
            continues = self._continues[ids]
            chosen = masking.choose_words(eligible, continues, self._settings, rng)
        masked = masking.mask(
            ids,
            chosen,
            self._settings,
            rng,
            mask_id=self._mask_id,
            replacements=self._ordinary,
        )
        return {**inputs, self._token_name: masked.ids}, masked


def _make_batch(
    masker: Masker,
    examples: TextExamples,
    indices: np.ndarray,
    rng: np.random.Generator,
) -> Batch:
    batch: Any = examples.batch(np.asarray(indices))
    inputs, masked = masker(batch, rng)
    return {**inputs, POSITIONS: masked.positions}, masked.targets, masked.weights
