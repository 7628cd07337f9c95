"""What a reader's labels say about a judge's verdicts, and the metrics that follow from both. Pure; imports no torch.

Nothing here is stored: a figure with labels by hand in it is computed where it is shown, under a name that says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sstmerge_core.analysis.statistics import usable_clusters
from sstmerge_core.evaluate import metric_rows
from sstmerge_core.evaluate.agreement import Agreement, agreement, common_scale, on_scale

ENOUGH = 10
"""Labels from which on κ is said: of a few it says nothing"""
Row = Mapping[str, Any]
"""An answer: prompt_id, the judge's ``label``, the reader's ``hand`` label and ``reader``; each None where it lacks"""


@dataclass(frozen=True)
class ByHand:
    """Whose labels they are, a `judges.Rater`: the readers', or a judge's with some corrected."""

    judge_id: str
    can_tell_harm: bool
    can_tell_refusal: bool


@dataclass(frozen=True)
class Reading:
    """One suite's answers of a run, as far as somebody labelled them."""

    answers: int
    labelled: int
    agreement: Agreement | None
    """Of the judge with the reader on what both labelled; None where there is nothing or no common scale"""
    corrected: int
    """Labels that are not the judge's"""

    @property
    def complete(self) -> bool:
        return self.labelled == self.answers > 0

    def sentence(self, judge: str) -> str:
        """``12 of 64 labelled by hand; refusal_regex agrees on 10 of 12, κ = 0.66 (0.31–0.92)``"""
        text = f"{self.labelled:,} of {self.answers:,} labelled by hand"
        found = self.agreement
        if found is None or not found.n:
            return text
        agreed = found.n - len(found.disagreements)
        text += f"; {judge} agrees on {agreed:,} of {found.n:,}"
        if found.kappa is not None and found.n >= ENOUGH:
            text += f", κ = {found.kappa:.2f}"
            if found.kappa_interval:
                text += f" ({found.kappa_interval.low:.2f}–{found.kappa_interval.high:.2f})"
        return text + (f"; {found.missed:,} left out: no verdict" if found.missed else "")


def reading(rows: Sequence[Row]) -> Reading:
    both = [row for row in rows if row["hand"] and row["label"]]
    judged, by_hand = [row["label"] for row in both], [row["hand"] for row in both]
    labelled = sum(bool(row["hand"]) for row in rows)
    if not both:
        return Reading(len(rows), labelled, None, labelled)
    scale = common_scale(judged, by_hand)
    differ = sum(a != b for a, b in zip(on_scale(judged, scale), on_scale(by_hand, scale), strict=True))
    return Reading(
        len(rows),
        labelled,
        agreement(judged, by_hand, usable_clusters(row.get("topic") for row in both)),
        differ + labelled - len(both),
    )


def differs(row: Row) -> bool:
    """Whether the reader gave another verdict than the judge, as far as the judge can tell."""
    return bool(row["hand"]) and (not row["label"] or reading([row]).corrected > 0)


def readings(
    suite: str, role: str, rows: Sequence[Row], judge: str, *, tells_harm: bool, tells_refusal: bool
) -> list[dict[str, Any]]:
    """Metric rows (as of the ``metrics`` event) that the labels by hand give, each under the name of who judged.

    Where every answer is labelled these are the readers' own; otherwise the judge's verdicts with some corrected by
    hand, which tell no more than the judge can. ROUGE-L rests on no verdict and is left out. Empty without labels, and
    where the judge left an answer without a verdict that no reader gave either.
    """
    found = reading(rows)
    if not found.labelled:
        return []
    if found.complete:
        readers = sorted({row["reader"] for row in rows})
        who = ByHand(" + ".join(readers), can_tell_harm=True, can_tell_refusal=True)
    else:
        who = ByHand(f"{judge}, {found.corrected} corrected by hand", tells_harm, tells_refusal)
    verdicts = [{"prompt_id": row["prompt_id"], "label": row["hand"] or row["label"]} for row in rows]
    if any(not verdict["label"] for verdict in verdicts):
        return []
    found_rows = metric_rows.judged_metrics(suite, role if role != "utility" else "benign", rows, verdicts, who)
    return [row for row in found_rows if role != "utility" or row["metric"] == "degenerate"]
