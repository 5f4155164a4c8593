"""`--mode=predict` on a run that learnt to continue texts, or to make new ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tflearn.commands.arguments import Arguments
from tflearn.data import Data, Split
from tflearn.evaluation import diversity, generation
from tflearn.support.console import say
from tflearn.support.errors import ConfigError
from tflearn.training.finished import FinishedRun

#: Tasks of runs whose model gives logits of the next token.
TASKS = ("causal_lm", "seq2seq", "span_corruption")
_FLAGS = ("max_new_tokens", "sampler", "temperature", "seed")
_MAX_NEW_TOKENS = 100
_SAMPLER = "top_k:40"
#: What a text is to become is decided; how one goes on is open.
_SAMPLERS = {"seq2seq": "greedy", "span_corruption": "greedy"}


def check_flags(run: FinishedRun, arguments: Arguments) -> None:
    """Checks that flags about texts are given for a run that makes texts.

    Args:
        run: The run.
        arguments: The flags.

    Raises:
        ConfigError: A flag means nothing to this run.
    """
    given = [name for name in _FLAGS if getattr(arguments, name) is not None]
    if given and run.task not in TASKS:
        raise ConfigError(
            f"--{given[0]} means nothing to this run",
            received=f"a run of task '{run.task}'",
            expected=f"a run of task {' or '.join(map(repr, TASKS))}",
        )


def faults(
    run: FinishedRun, tokens: Sequence[np.ndarray], data: Data
) -> dict[int, str]:
    """Says which texts the model cannot be given, by example.

    Args:
        run: A run of one of `TASKS`.
        tokens: What `read` gave for them.
        data: Says how long a text may be that an encoder reads.
    """
    if not generation.is_encoder_decoder(run.model):
        reason = "no token of the vocabulary to go on from"
        return {row: reason for row, ids in enumerate(tokens) if not len(ids)}
    limit = _limit(run)
    return {
        row: f"{len(ids):,} tokens, more than {limit:,}"
        for row, ids in enumerate(tokens)
        if len(ids) > limit and not data.truncate
    }


def read(run: FinishedRun, split: Split) -> list[np.ndarray]:
    """Tokenizes the texts of a split, once for all that is done with them."""
    if not len(split):
        return []
    return generation.read(run.model, run.encoder, list(split.inputs))


def results(
    run: FinishedRun, split: Split, tokens: Sequence[np.ndarray], arguments: Arguments
) -> Iterator[dict[str, Any]]:
    """Continues the texts of a split, or makes a text of each.

    Args:
        run: A run of one of `TASKS`.
        split: The texts.
        tokens: What `read` gave for them.
        arguments: How many tokens, which sampler, the seed.

    Yields:
        A row a text: its number, the new text, how many tokens that is, and whether
        the model ended it.
    """
    model, encoder = run.model, run.encoder
    most = generation.most_new_tokens(model, encoder)
    usual = _MAX_NEW_TOKENS if most is None else min(_MAX_NEW_TOKENS, most)
    if most is not None:
        cut = encoder.packing.cut
        tokens = [cut(ids, np.zeros_like(ids), _limit(run))[0] for ids in tokens]
    made = generation.generate_from(
        model,
        encoder,
        tokens,
        max_new_tokens=int(_number(arguments, "max_new_tokens", usual)),
        sampler=generation.make_sampler(
            arguments.sampler or _SAMPLERS.get(run.task, _SAMPLER),
            temperature=_number(arguments, "temperature", 1.0),
        ),
        seed=int(_number(arguments, "seed", 0)),
    )
    for index, one in enumerate(made):
        yield {
            "row": split.ordinal(index),
            "generated": one.text,
            "tokens": len(one.ids),
            "ended": one.ended,
        }
    if arguments.output not in (None, "-"):
        figures = diversity.diversity([one.ids.tolist() for one in made])
        say(f"generated {made[0].how}")
        say("of tokens: " + ", ".join(f"{k} {v:.3f}" for k, v in figures.items()))


def _limit(run: FinishedRun) -> int:
    # What the run was trained to read may be less than the model takes.
    return run.labels["max_length"] or run.encoder.max_length


def _number(arguments: Arguments, name: str, default: float) -> float:
    given = getattr(arguments, name)
    if given is None:
        return default
    kind = float if name == "temperature" else int
    try:
        value = kind(given)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise ConfigError(
            f"--{name} is not a number that can be used",
            received=given,
            expected="a number" if kind is float else "a whole number",
        )
    return value
