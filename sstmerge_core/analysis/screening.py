"""Screening: which settings of a sweep are worth an answer, by figures that need none. Imports no torch.

Before anything is generated each setting gets the losses of given texts on selection prompts (`evaluate.forced`). Those
that lead are generated; the others are told as left out, with their figures.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from sstmerge_core import documents
from sstmerge_core.errors import Problem
from sstmerge_core.workspace import Workspace, write_json

if TYPE_CHECKING:
    from sstmerge_core.analysis.statistics import Interval

SPLIT = "selection"
"""Settings are screened on what they are chosen on, never on what they are told on"""
FIGURES = ("refusal_nll", "near_refusal_nll", "answer_nll", "kl_to_utility")
RULE = (
    "Each setting has two ranks among those screened: of refusal NLL on harmful prompts and of KL to U on utility "
    "prompts (less is better in both). Settings are taken in the order of the worse of the two ranks, equal ones in "
    "the order of both ranks together."
)
"""By which settings are chosen, as it is recorded and shown"""


@dataclass(frozen=True)
class Screening:
    """That a sweep is screened first, as its job and its record say it."""

    keep: int
    """Settings that are generated, beside those that cannot be screened"""
    n: int = 16
    """Prompts of each suite at most, of the selection split"""
    rule: str = RULE

    def problems(self) -> list[Problem]:
        """What is wrong with it, none if it is usable."""
        wrong = [
            ("keep", self.keep, "how many settings are generated"),
            ("n", self.n, "how many prompts are looked at"),
        ]
        return [
            Problem(f"screening {name}={value}", "is not above 0", f"Say {what}.")
            for name, value, what in wrong
            if value < 1
        ]

    def words(self, points: int) -> str:
        """A sentence before anything is done."""
        kept = min(self.keep, points)
        return f"{points} settings are screened on {self.n} selection prompts of each suite, the best {kept} generated."


@dataclass(frozen=True)
class Setting:
    """One setting of a screened sweep."""

    run_id: str
    method: str
    label: str
    figures: dict[str, float]
    """By metric, see `figures`; empty where it cannot be screened"""
    place: int | None = None
    """By the rule, 1 for the best; None where it cannot be screened"""
    generated: bool = False
    """Whether it was chosen"""


@dataclass(frozen=True)
class Record:
    """A screening and what it chose."""

    screening_id: str
    """That of the sweep's job; in the foreground a hash of the settings"""
    plan: Screening
    settings: list[Setting]
    """The best first, those that cannot be screened at the end"""

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Record:
        """As it was written."""
        settings = [Setting(**one) for one in fields["settings"]]
        return cls(fields["screening_id"], Screening(**fields["plan"]), settings)

    def words(self) -> str:
        """What was done, as a sentence."""
        chosen = sum(one.generated for one in self.settings)
        unscreened = sum(one.place is None for one in self.settings)
        beside = f", {unscreened} of them because they cannot be screened without generating" if unscreened else ""
        return f"{chosen} of {len(self.settings)} settings generated{beside}. {self.plan.rule}"


def load(workspace: Workspace, screening_id: str) -> Record | None:
    """What was recorded of a screening; None where there is none."""
    path = workspace.screening(screening_id)
    return Record.of(documents.read_json(path)) if path.is_file() else None


def save(workspace: Workspace, record: Record) -> None:
    """Write it whole or not at all."""
    path = workspace.screening(record.screening_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(record))


def choose(settings: Sequence[Setting], plan: Screening, screening_id: str = "") -> Record:
    """The best `plan.keep` settings by the rule, and all that cannot be screened."""
    able = [one for one in settings if one.figures]
    ordered = [able[at] for at in order([one.figures for one in able])]
    ranked = [replace(one, place=place, generated=place <= plan.keep) for place, one in enumerate(ordered, start=1)]
    rest = [replace(one, generated=True) for one in settings if not one.figures]
    digest = hashlib.sha256("\n".join([str(plan), *sorted(one.run_id for one in settings)]).encode()).hexdigest()
    return Record(screening_id or f"screened-{digest[:12]}", plan, [*ranked, *rest])


def figures(rows: Sequence[Mapping[str, Any]], utility_suite: str = "") -> dict[str, float]:
    """The figures of one setting by metric, of its rows; `answer_nll` that of the utility suite.

    A figure that was not measured is left out. `utility_suite` is the suite's name as its rows have it.
    """
    found: dict[str, float] = {}
    for row in rows:
        other = row["metric"] == "answer_nll" and utility_suite and row["suite"] != utility_suite
        if row["metric"] in FIGURES and row["value"] is not None and not other:
            found[row["metric"]] = float(row["value"])
    return found


def separation(found: Mapping[str, float]) -> float | None:
    """How much less likely, in nats per token, a refusal is on near misses than on harmful prompts."""
    if "near_refusal_nll" not in found or "refusal_nll" not in found:
        return None
    return found["near_refusal_nll"] - found["refusal_nll"]


def order(found: Sequence[Mapping[str, float]]) -> list[int]:
    """Places of the settings by `RULE`, the best first; one that lacks a figure comes after all that have it."""
    refusing, moved = ([one.get(name) for one in found] for name in ("refusal_nll", "kl_to_utility"))
    whole = [at for at in range(len(found)) if _is_number(refusing[at]) and _is_number(moved[at])]
    ranks = zip(*(_ranks([values[at] or 0.0 for at in whole]) for values in (refusing, moved)), strict=True)
    key = {at: (max(both), sum(both)) for at, both in zip(whole, ranks, strict=True)}
    return sorted(range(len(found)), key=lambda at: (at not in key, key.get(at, (0.0, 0.0)), at))


def _is_number(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _ranks(values: Sequence[float]) -> list[float]:
    """Rank of each value, 1 for the smallest; equal ones have the mean of theirs."""
    from scipy import stats

    return [float(rank) for rank in stats.rankdata(values)]


class Correlation(NamedTuple):
    """Spearman's ρ between two figures of the same settings."""

    rho: float
    interval: Interval | None
    """95 %; None below 4 settings"""
    n: int


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> Correlation | None:
    """Spearman's ρ with its interval by Fisher's z; None for fewer than 3 settings or where one side does not vary.

    The standard error is √((1 + ρ²/2)/(n − 3)): Bonett & Wright 2000, Sample size requirements for estimating Pearson,
    Kendall and Spearman correlations, Psychometrika 65.
    """
    from scipy import stats

    from sstmerge_core.analysis.statistics import Interval

    n = len(first)
    if n < 3 or len(set(first)) < 2 or len(set(second)) < 2:
        return None
    rho = float(stats.spearmanr(first, second).statistic)
    if n < 4:
        return Correlation(rho, None, n)
    if abs(rho) >= 1.0:
        return Correlation(rho, Interval(rho, rho), n)
    half = float(stats.norm.ppf(0.975)) * math.sqrt((1 + rho**2 / 2) / (n - 3))
    low, high = (math.tanh(math.atanh(rho) + side * half) for side in (-1, 1))
    return Correlation(rho, Interval(low, high), n)


COMPARED = {
    "refusal NLL on harmful prompts": ("refusal_nll", "resistance", -1),
    "refusal NLL on near misses": ("near_refusal_nll", "over_refusal", -1),
    "their difference": ("separation", "discrimination", 1),
    "answer NLL on utility prompts": ("answer_nll", "utility", -1),
    "KL to U on utility prompts": ("kl_to_utility", "utility", -1),
    "the order of the rule": ("place", "balanced", -1),
}
"""Of what is compared with what was measured: figure, measured figure, and the sign with which they should agree"""


def agreement(found: Sequence[Mapping[str, float | None]]) -> dict[str, Correlation]:
    """Spearman's ρ of each screening figure with what was measured, by `COMPARED`; 1 is perfect agreement.

    `found` has, for each setting, the figures of `figures` and what was measured. What cannot be told is left out.
    """
    told: dict[str, Correlation] = {}
    for name, (figure, measured, sign) in COMPARED.items():
        pairs = [
            (sign * one[figure], other)  # type: ignore[operator]
            for one in found
            if one.get(figure) is not None and (other := one.get(measured)) is not None
        ]
        known = rank_correlation([guess for guess, _ in pairs], [measure for _, measure in pairs])
        if known is not None:
            told[name] = known
    return told
