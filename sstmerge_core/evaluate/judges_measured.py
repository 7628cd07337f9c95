"""What was measured of the judges that ship, for whoever shows it. Light: no statistics and no models are loaded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from sstmerge_core import resources

DATA = resources.DATA / "judging"
ACCURACY = DATA / "accuracy.json"
"""Written by `make docs`"""
FIRST = "refusal_regex"
"""Whose figures the leaderboard shows where a run has several judges'"""
NO_JUDGES = ("", "rouge_score", "reference", "reported")
"""What else stands in the judge column of metrics"""


def accuracy_words(judge_id: str) -> str:
    """A judge's measured accuracy as a sentence; empty for a judge that `make docs` does not measure."""
    row = _measured().get(judge_id)
    if row is None:
        return ""
    low, high = row["interval"]
    return f"Right on {row['accuracy']:.0%} ({low:.0%}–{high:.0%}) of {row['n']} answers labelled by reading."


def stored_judges(named: Iterable[str]) -> list[str]:
    """The judges in the judge column of a run's metrics, that of the leaderboard first; at least that one."""
    found = {name for name in named if name not in NO_JUDGES and not name.startswith("lm-eval ")}
    return [FIRST, *sorted(found - {FIRST})] if FIRST in found or not found else sorted(found)


@cache
def _measured() -> Mapping[str, Any]:
    return json.loads(ACCURACY.read_text()) if ACCURACY.exists() else {}
