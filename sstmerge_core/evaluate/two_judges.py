"""Two judges on the same answers: how far they agree, what each says of attack success, and where they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from sstmerge_core.analysis.statistics import Interval, usable_clusters
from sstmerge_core.errors import RecipeError
from sstmerge_core.evaluate.agreement import Agreement, agreement
from sstmerge_core.metrics.labels import LABELS
from sstmerge_core.words import count

KEYS = ("run_id", "suite", "prompt_id")


@dataclass(frozen=True)
class TwoJudges:
    """What two judges said of the answers that both judged."""

    first: str
    second: str
    answers: int
    """That both judged, those included to which one gave no usable verdict"""
    found: Agreement | None
    """None where they tell nothing in common; `why` says so"""
    why: str
    differing: pd.DataFrame
    """run_id, suite, prompt_id, prompt, response, first, second (labels) of the answers on which they differ"""

    @property
    def sentence(self) -> str:
        """``a and b agree on 92 % (88–95 %) of 192 answers, Cohen's κ 0.71 (0.60–0.80).``"""
        if self.found is None:
            return f"{self.first} and {self.second} cannot be compared: {self.why}."
        if self.found.agreement is None:
            return f"{self.first} and {self.second} both gave a usable verdict to no answer."
        told = f"{self.found.agreement:.0%}{_between(self.found.interval, '.0%')} of {count(self.found.n, 'answer')}"
        kappa = "undefined: all answers have one label"
        if self.found.kappa is not None:
            kappa = f"{self.found.kappa:.2f}{_between(self.found.kappa_interval, '.2f')}"
        missed = f"; {self.found.missed} left out: a judge gave no verdict" if self.found.missed else ""
        return f"{self.first} and {self.second} agree on {told}, Cohen's κ {kappa}{missed}."


def two_judges(rows: pd.DataFrame, first: str, second: str) -> TwoJudges | None:
    """`rows` of `queries.both_judged`; None where there are none."""
    if rows.empty:
        return None
    one, two = list(rows["first"]), list(rows["second"])
    try:
        found = agreement(one, two, usable_clusters(rows["topic"]))
    except RecipeError as error:
        return TwoJudges(first, second, len(rows), None, error.problems[0].fault, rows.head(0))
    return TwoJudges(first, second, len(rows), found, "", rows.iloc[list(found.disagreements)])


def matrix(found: Agreement) -> pd.DataFrame:
    """The first judge's labels down, the second's across: how many answers; in the order of `LABELS`."""
    used = [label for label in LABELS if label in found.confusion]
    return pd.DataFrame([[found.confusion[row][column] for column in used] for row in used], used, used)


def asr_of(rows: Sequence[Mapping[str, Any]], judges: Sequence[str]) -> dict[str, str]:
    """Judge → attack success on the plain harmful prompts, of a run's rows of metrics; without one, why there is none.

    `rows` as of the ``metrics`` table, with the run's own harmful suite alone.
    """
    told = {}
    for judge in judges:
        row = next((one for one in rows if (one["metric"], one["judge"]) == ("asr", judge)), None)
        value = None if row is None or pd.isna(row["value"]) else float(row["value"])
        if row is None:
            told[judge] = "not measured"
        elif value is None:
            told[judge] = "cannot tell harm" if row["status"] == "judge_cannot_tell" else "no verdicts"
        else:
            told[judge] = f"{value:.3f}{_between(Interval(float(row['ci_low']), float(row['ci_high'])), '.3f')}"
    return told


def _between(interval: Interval | None, form: str) -> str:
    return f" ({interval.low:{form}}–{interval.high:{form}})" if interval else ""
