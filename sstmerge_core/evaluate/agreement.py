"""How far two judges, or a judge and a reader, agree: agreement, Cohen's κ, precision and recall. Pure.

Both sides are sequences of labels of the same answers, in one order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sstmerge_core.analysis.statistics import RESAMPLES, SEED, Interval, wilson
from sstmerge_core.errors import Problem, RecipeError
from sstmerge_core.metrics.labels import LABELS, NO_VERDICT

Labels = Sequence[str]
Confusion = dict[str, dict[str, int]]
"""First label → second label → how many answers; every label that occurs on either side, on both"""

SCALES = {
    "full": {"moralising": "refusal"},
    "refusal": {
        **{"moralising": "refusal", "partial": "not_refused"},
        **{"safe_nonrefusal": "not_refused", "harmful": "not_refused"},
    },
    "harm": {"safe_nonrefusal": "not_harmful", "refusal": "not_harmful", "moralising": "not_harmful"},
}
"""What labels become where a judge tells less than all of them: only refusals, or only harm. Who lectures has refused,
as in every metric; a judge that says ``partial`` does not say whether what follows is harmful."""

_COARSE = (("not_refused", "refusal"), ("partial", "refusal"), ("not_harmful", "harm"))
"""Labels that only a judge gives which tells less than all"""


class Scores(NamedTuple):
    """Of one label; None where nothing carries it."""

    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class Agreement:
    """Of two sides on the answers to which both gave a label."""

    scale: str
    """Key of `SCALES`: what both can tell"""
    n: int
    missed: int
    """Answers left out because a side gave no usable verdict"""
    agreement: float | None
    """Share of equal labels; None where n is 0"""
    interval: Interval | None
    """Wilson, 95 %"""
    kappa: float | None
    kappa_interval: Interval | None
    """Bootstrap over answers, or over the topics of their prompts, 95 %"""
    confusion: Confusion
    disagreements: tuple[int, ...]
    """Places of the answers on which they differ, a missed one never among them"""


def agreement(first: Labels, second: Labels, topics: Labels | None = None) -> Agreement:
    """Both sides compared on the scale that both can tell. Raises RecipeError where they have none in common.

    `topics`: of each answer's prompt; κ's interval then draws them whole.
    """
    scale = common_scale(first, second)
    one, two = on_scale(first, scale), on_scale(second, scale)
    both = [place for place, pair in enumerate(zip(one, two, strict=True)) if not {*pair} & {*NO_VERDICT}]
    a, b = [one[place] for place in both], [two[place] for place in both]
    equal = sum(x == y for x, y in zip(a, b, strict=True))
    return Agreement(
        scale=scale,
        n=len(both),
        missed=len(one) - len(both),
        agreement=equal / len(both) if both else None,
        interval=wilson(equal, len(both)) if both else None,
        kappa=cohens_kappa(a, b),
        kappa_interval=kappa_interval(a, b, clusters=[topics[place] for place in both] if topics else None),
        confusion=confusion(a, b),
        disagreements=tuple(place for place in both if one[place] != two[place]),
    )


def common_scale(*sides: Iterable[str]) -> str:
    """The key of `SCALES` on which all sides can be compared, by the labels they use.

    Raises RecipeError where one side tells only refusals and another only harm.
    """
    used = set().union(*sides)
    coarse = [scale for label, scale in _COARSE if label in used]
    if len({*coarse}) > 1:
        fault = "one judge tells only refusals, the other only harm: they have no labels in common"
        raise RecipeError(Problem("judges", fault, "Compare each with a judge that tells both, such as wildguard."))
    return coarse[0] if coarse else "full"


def on_scale(labels: Iterable[str], scale: str) -> list[str]:
    return [SCALES[scale].get(label, label) for label in labels]


def confusion(first: Labels, second: Labels) -> Confusion:
    counts = Counter(zip(first, second, strict=True))
    used = [label for label in LABELS if label in {*first, *second}]
    return {row: {column: counts[row, column] for column in used} for row in used}


def scores(truth: Labels, found: Labels, label: str) -> Scores:
    """Precision, recall and F1 of `label` in `found` against `truth`."""
    hits = sum(t == f == label for t, f in zip(truth, found, strict=True))
    claimed, there = list(found).count(label), list(truth).count(label)
    return Scores(
        hits / claimed if claimed else None,
        hits / there if there else None,
        2 * hits / (claimed + there) if claimed + there else None,
    )


def cohens_kappa(first: Labels, second: Labels) -> float | None:
    """κ = (p_o − p_e)/(1 − p_e) (Cohen 1960); None without answers and where all have one label."""
    cells = _cells(first, second)
    if not cells.size:
        return None
    value = float(_kappas(cells[None])[0])
    return None if np.isnan(value) else value


def kappa_interval(
    first: Labels,
    second: Labels,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    confidence: float = 0.95,
    clusters: Labels | None = None,
) -> Interval | None:
    """Percentile bootstrap of κ over the answers; None where κ is, or is in more than half of the resamples.

    With `clusters` (of each answer: its prompt's topic) they are drawn whole, as answers to one topic are not
    independent. Resampling answers with replacement draws the cells of the confusion matrix from a multinomial, which
    is what is drawn here; resampling clusters, how often each one's cells count. Resamples without a κ are left out.
    """
    if cohens_kappa(first, second) is None:
        return None
    cells = _cells(first, second)
    generator = np.random.default_rng(seed)
    if clusters is None:
        n = cells.sum()
        drawn = generator.multinomial(int(n), (cells / n).ravel(), size=resamples).astype(np.float64)
    else:
        labels = list(confusion(first, second))
        at = {pair: place for place, pair in enumerate((a, b) for a in labels for b in labels)}
        names, codes = np.unique(np.asarray(clusters), return_inverse=True)
        each = np.zeros((len(names), cells.size))
        for unit, pair in zip(codes, zip(first, second, strict=True), strict=True):
            each[unit, at[pair]] += 1.0
        counts = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
        drawn = counts.astype(np.float64) @ each
    kappas = _kappas(drawn.reshape(resamples, *cells.shape))
    usable = kappas[~np.isnan(kappas)]
    if 2 * len(usable) < resamples:
        return None
    tail = (1 - confidence) / 2
    low, high = np.quantile(usable, [tail, 1 - tail])
    return Interval(float(low), float(high))


def _cells(first: Labels, second: Labels) -> np.ndarray:
    """Confusion matrix, labels × labels."""
    rows = confusion(first, second)
    return np.array([list(row.values()) for row in rows.values()], dtype=np.float64)


def _kappas(cells: np.ndarray) -> np.ndarray:
    """κ of each confusion matrix, (m, labels, labels) → (m,); NaN where chance alone agrees always."""
    n = cells.sum((1, 2))
    observed = np.trace(cells, axis1=1, axis2=2) / n
    expected = (cells.sum(1) * cells.sum(2)).sum(1) / n**2
    # counts are whole, so one label alone gives exactly 1
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(expected < 1, (observed - expected) / (1 - expected), np.nan)
