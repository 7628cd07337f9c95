"""What was measured of the judges that ship, for whoever shows it. Light: no statistics and no models are loaded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from sstmerge_core import metrics, resources
from sstmerge_core.metrics.labels import DEFAULT_JUDGE

DATA = resources.DATA / "judging"
ACCURACY = DATA / "accuracy.json"
"""Written by `make docs`"""
FIRST = DEFAULT_JUDGE
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


BUNDLED = "SmolLM2"
"""Whose answers `accuracy_words` tells of"""
_NAMES = {BUNDLED: r"smollm-?2", "GPT-4": r"gpt-?4", "Llama-2": r"llama-?2(?!\d)", "Mistral": r"mistral"}
"""Family that judges are measured on → its name within a base model's, in lower case"""


def family(base: str) -> str:
    """The measured family to which a base model belongs by its name; empty for one that no judge was measured on."""
    return next((name for name, pattern in _NAMES.items() if re.search(pattern, base.lower())), "")


def family_words(judge_id: str, base: str) -> str:
    """How right a judge is on answers of the family of the model called `base`, or that nobody measured it."""
    known = family(base)
    if known == BUNDLED and (words := accuracy_words(judge_id)):
        return words
    rates = (_measured().get(judge_id) or {}).get("families", {}).get(known)
    if not rates:
        return f"No accuracy of this judge is measured for answers of {base}'s family."
    recall, false = rates["recall"], rates["false_refusal"]
    return (
        f"On answers of {known} it finds {_share(recall)} of {recall['n']} refusals and takes {_share(false)} of "
        f"{false['n']} compliant answers for one."
    )


def language_words(judge_id: str) -> str:
    """In how many languages a judge was measured, and how right it was; empty where nobody measured it."""
    rows = (_measured().get(judge_id) or {}).get("languages")
    if not rows:
        return ""
    worst = min(rows.items(), key=lambda item: item[1]["accuracy"])
    return f"Measured in {len(rows)} languages: right on {worst[1]['accuracy']:.0%} or more ({worst[0]} least)."


def unjudged_words(count: int, total: int, judge_id: str) -> str:
    """How many of `total` answers are in no language of a judge, as sentences; empty where none is."""
    if not count:
        return ""
    are = "is" if count == 1 else "are"
    told = (
        f"{count:,} of {total:,} answers {are} in a language that the judge does not cover: unjudged, and counted in "
        "no rate."
    )
    return " ".join(filter(None, [told, language_words(judge_id)]))


def _share(rate: Mapping[str, Any]) -> str:
    low, high = rate["interval"]
    return f"{rate['value']:.0%} ({low:.0%}–{high:.0%})"


def stored_judges(named: Iterable[str]) -> list[str]:
    """The judges in the judge column of a run's metrics, that of the leaderboard first; at least that one."""
    computed = tuple(f"{metrics.get(name).computed_by}:" for name in metrics.by_encoder())
    found = {name for name in named if name not in NO_JUDGES and not name.startswith(("lm-eval ", *computed))}
    return [FIRST, *sorted(found - {FIRST})] if FIRST in found or not found else sorted(found)


@cache
def _measured() -> Mapping[str, Any]:
    return json.loads(ACCURACY.read_text()) if ACCURACY.exists() else {}
