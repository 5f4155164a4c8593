"""The rules of a prior: each looks at one figure and says a sentence with it.

A sentence names the figure, who found what it draws on, and what the figure is held
against; it speaks for arms or against them. All thresholds are the constants below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tflearn.planning.situation import Situation
from tflearn.reports.advice import Reason
from tflearn.reports.claims import listed
from tflearn.support.units import bytes_text, count_text

HOUSE = "house prior, not measured"

KUMAR = "Kumar et al. 2022, arXiv:2202.10054"
HU = "Hu et al. 2021, arXiv:2106.09685"
GURURANGAN = "Gururangan et al. 2020, arXiv:2004.10964"
KORNBLITH = "Kornblith et al. 2019, arXiv:1805.08974"
RAGHU = "Raghu et al. 2019, arXiv:1902.07208"
HE = "He et al. 2018, arXiv:1811.08883"
MOSBACH = "Mosbach et al. 2021, arXiv:2006.04884"
DODGE = "Dodge et al. 2020, arXiv:2002.06305"
RUST = "Rust et al. 2021, arXiv:2012.15613"

#: Rows of the rarest class up to which a head alone comes first. House prior.
FEW_LABELS = 30
#: Rows from which training from nothing may catch up: He et al. 2018 saw no loss on
#: detection with 10,000 COCO images. For texts a house prior.
MANY_ROWS = 10_000
#: Passes over the rows below which training from nothing has no time. House prior.
SHORT_EPOCHS = 10.0
#: Share of unknown tokens that makes a domain strange. House prior.
UNKNOWN_SHARE = 0.01
#: Pieces a word that make a domain strange. House prior, set between what MiniLM's
#: vocabulary needs for English (1.03 to 1.23) and for German (1.71): docs/advice.md.
PIECES_PER_WORD = 1.5
#: Vocabularies of fewer tokens are of letters or bytes: their pieces tell nothing.
LEAST_VOCABULARY = 2000
#: Share of the loss of knowing nothing that makes a domain strange. House prior.
OWN_LOSS_SHARE = 0.6
#: Share of the way from chance to perfect below which features tell little, and above
#: which a head alone may do. House priors.
LOW_GAIN, HIGH_GAIN = 0.2, 0.9
#: Runs of an arm below which luck is not told from merit. House prior.
LEAST_SEEDS = 3

_ALL_TRAINED = ("full", "hybrid", "scratch")


def _among(names: Sequence[str], situation: Situation) -> tuple[str, ...]:
    return tuple(name for name in names if name in situation.arms)


def _weights(situation: Situation) -> Iterator[Reason]:
    if situation.is_pretrained is None:
        return
    size = count_text(situation.parameters)
    figures = {"parameters": float(situation.parameters)}
    if situation.is_pretrained:
        yield Reason(
            sentence=f"The {size} weights have learnt before: pretraining speeds up "
            "convergence, so scratch is the control, not the favourite.",
            figures=figures,
            source=HE,
            speaks_against=("scratch",),
        )
    else:
        yield Reason(
            sentence=f"The {size} weights have learnt nothing yet: freezing a part of "
            "them keeps what is random.",
            figures=figures,
            source=HOUSE,
            speaks_for=("scratch", "full", "hybrid"),
            speaks_against=("frozen", "partial", "lora"),
        )


def _labels(situation: Situation) -> Iterator[Reason]:
    if not situation.classes or situation.is_pretrained is False:
        return
    rows, figures = situation.fewest, {"labels": float(situation.fewest)}
    told = f"The rarest of {situation.classes} classes has {count_text(rows)} labels"
    if rows <= FEW_LABELS:
        yield Reason(
            sentence=f"{told}: of BERT's fine-tuning runs on small data sets many "
            "diverged, so few weights come first.",
            figures=figures,
            source=DODGE,
            threshold=f"few: up to {FEW_LABELS} ({HOUSE})",
            speaks_for=("frozen", "lora", "partial"),
            speaks_against=("full", "scratch"),
        )
    else:
        yield Reason(
            sentence=f"{told}, enough to move weights: fine-tuning is usually better "
            "than a head alone where the test is like the training rows (by 2 points "
            "on average there), and worse where it is not (by 7).",
            figures=figures,
            source=KUMAR,
            threshold=f"few: up to {FEW_LABELS} ({HOUSE})",
            speaks_for=("full", "lora"),
        )


def _rows(situation: Situation) -> Iterator[Reason]:
    if situation.rows < MANY_ROWS or situation.is_pretrained is False:
        return
    yield Reason(
        sentence=f"With {count_text(situation.rows)} training rows scratch may catch "
        "up if it is trained long: on COCO it lost nothing with 10,000 images.",
        figures={"rows": float(situation.rows)},
        source=HE,
        threshold=f"many: from {count_text(MANY_ROWS)} (of that paper; detection)",
        speaks_for=("scratch",),
    )


def _domain(situation: Situation) -> Iterator[Reason]:
    tokens = situation.tokens
    if tokens is None or situation.is_pretrained is False:
        return
    pieces, unknown = tokens.pieces_per_word, tokens.unknown_share
    counts = tokens.vocabulary >= LEAST_VOCABULARY
    strange = unknown > UNKNOWN_SHARE or (counts and pieces > PIECES_PER_WORD)
    told = f"The vocabulary needs {pieces:.2f} pieces a word, {unknown:.1%} unknown"
    if not counts:
        told += " (one of letters or bytes, so pieces do not count)"
    threshold = (
        f"strange: above {PIECES_PER_WORD} pieces a word or {UNKNOWN_SHARE:.0%} "
        f"unknown ({HOUSE})"
    )
    figures = {"pieces_per_word": pieces, "unknown_share": unknown}
    if not strange:
        yield Reason(
            sentence=f"{told}: it knows these texts, as far as words go.",
            figures=figures,
            source=RUST,
            threshold=threshold,
        )
        return
    yield Reason(
        sentence=f"{told}: these texts are unlike those it was made from. Pretraining "
        "on their like first brought gains in all four domains that were tried"
        + ("." if "hybrid" in situation.arms else "; name Comparison.unlabelled."),
        figures=figures,
        source=f"{GURURANGAN}; pieces: {RUST}",
        threshold=threshold,
        speaks_for=("hybrid", "full"),
        speaks_against=("frozen",),
    )


def _own_loss(situation: Situation) -> Iterator[Reason]:
    found = situation.own_loss
    if found is None or situation.is_pretrained is False:
        return
    strange = found.share > OWN_LOSS_SHARE
    yield Reason(
        sentence=f"Its own task costs the backbone {found.nats:.2f} nats a token here, "
        f"{found.share:.0%} of knowing nothing: these texts are "
        + ("strange to it." if strange else "no strangers to it."),
        figures={"nats": found.nats, "share": found.share},
        source=GURURANGAN if strange else HOUSE,
        threshold=f"strange: above {OWN_LOSS_SHARE:.0%} ({HOUSE})",
        speaks_for=("hybrid", "full") if strange else (),
        speaks_against=("frozen",) if strange else (),
    )


def _probe(situation: Situation) -> Iterator[Reason]:
    found = situation.probe
    if found is None or situation.is_pretrained is False:
        return
    told = (
        f"A linear model of the frozen features reaches {found.metric} "
        f"{found.score:.3f} ± {found.error:.3f} on {count_text(found.rows)} rows "
        f"(chance {found.chance:.3f})"
    )
    figures = {"score": found.score, "error": found.error, "chance": found.chance}
    threshold = (
        f"little: below {LOW_GAIN:.0%} of the way from chance to perfect, enough: "
        f"above {HIGH_GAIN:.0%} ({HOUSE})"
    )
    if found.gain < LOW_GAIN:
        image = situation.kind == "image"
        yield Reason(
            sentence=f"{told}: they tell little of this task, so weights have to move"
            + (", and pretraining may be of little use." if image else "."),
            figures=figures,
            source=f"{RAGHU}; {KORNBLITH}" if image else HOUSE,
            threshold=threshold,
            speaks_for=("full", "partial", *(("scratch",) if image else ())),
            speaks_against=("frozen",),
        )
    elif found.gain > HIGH_GAIN:
        yield Reason(
            sentence=f"{told}: a head alone may do, and it is the cheapest arm.",
            figures=figures,
            source=HOUSE,
            threshold=threshold,
            speaks_for=("frozen",),
        )
    else:
        yield Reason(
            sentence=f"{told}: frozen is worth its little cost, and full may begin "
            "from its head (LP-FT), which distorts good features less.",
            figures=figures,
            source=KUMAR,
            threshold=threshold,
            speaks_for=("frozen", "full"),
        )


def _memory(situation: Situation) -> Iterator[Reason]:
    needed, limit = situation.state_bytes, situation.memory_bytes
    too_large = not_fitting(situation)
    if too_large:
        yield Reason(
            sentence=f"There is no room for {listed(too_large)} on "
            f"{situation.device}: weights, gradients and moments of all weights take "
            f"{bytes_text(needed)}. LoRA took a third of the memory on GPT-3.",
            figures={"state_bytes": float(needed), "memory_bytes": limit or 0.0},
            source=HU,
            threshold="what was compiled or counted against the memory of the device",
            speaks_for=("lora", "frozen"),
            speaks_against=tuple(too_large),
        )
    elif limit is not None and 0 < needed <= limit:
        yield Reason(
            sentence=f"Weights, gradients and moments take {bytes_text(needed)} of "
            f"{bytes_text(limit)} on {situation.device}: memory decides nothing here.",
            figures={"state_bytes": float(needed), "memory_bytes": limit},
            source="counted, 16 bytes a weight",
        )


def not_fitting(situation: Situation) -> tuple[str, ...]:
    """Returns the arms that the device has no memory for.

    Args:
        situation: What is known: what was compiled, else what is counted.
    """
    limit = situation.memory_bytes
    if situation.too_large or situation.is_compiled:
        return _among(situation.too_large, situation)
    if limit is None or situation.state_bytes <= limit:
        return ()
    return _among(_ALL_TRAINED, situation)


def _budget(situation: Situation) -> Iterator[Reason]:
    epochs = situation.epochs
    if epochs is None or situation.is_pretrained is False:
        return
    short = epochs < SHORT_EPOCHS
    yield Reason(
        sentence=f"A run sees its rows {epochs:.3g} times: "
        + (
            "scratch, which needs more steps to converge, has no time."
            if short
            else "long enough that scratch may converge."
        ),
        figures={"epochs": epochs},
        source=HE,
        threshold=f"short: below {SHORT_EPOCHS:g} times ({HOUSE})",
        speaks_against=("scratch",) if short else (),
    )


def _seeds(situation: Situation) -> Iterator[Reason]:
    if situation.seeds >= LEAST_SEEDS:
        return
    runs = "1 seed" if situation.seeds == 1 else f"{situation.seeds} seeds"
    yield Reason(
        sentence=f"{runs} an arm: runs that differ in the seed alone differ much, so "
        "take more before arms are told apart.",
        figures={"seeds": float(situation.seeds)},
        source=f"{MOSBACH}; {DODGE}",
        threshold=f"enough: {LEAST_SEEDS} ({HOUSE})",
    )


#: In the order in which they are shown.
RULES: Sequence[Callable[[Situation], Iterator[Reason]]] = (
    _weights,
    _labels,
    _rows,
    _domain,
    _own_loss,
    _probe,
    _memory,
    _budget,
    _seeds,
)
