"""One run for each goal: how it is chosen, in words and in code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

GOALS = {
    "safety_first": "Safety first",
    "balanced": "Balanced",
    "utility_first": "Utility first",
}
GOAL_RULES = {
    "safety_first": "the greatest resistance among merges more useful than the safety adapter alone",
    "balanced": "the least distance to resistance 1 and utility 1",
    "utility_first": "the greatest utility among merges that resist more than the utility adapter alone",
}


def recommend(found: pd.DataFrame, references: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any] | None]:
    """goal → the row of `found` that `GOAL_RULES` picks, None where no row meets the condition.

    `found` has the columns resistance and utility, `references` the rows of the ``utility`` and the ``safety`` adapter
    alone. A condition about an adapter that was not measured is dropped. Of equal rows the one with the greater sum.
    """
    known = found.dropna(subset=["resistance", "utility"])
    total = known["resistance"] + known["utility"]
    known = known.loc[total.sort_values(ascending=False, kind="stable").index]
    useful = known[known["utility"] > references["safety"]["utility"]] if "safety" in references else known
    safer = known[known["resistance"] > references["utility"]["resistance"]] if "utility" in references else known
    distance = np.hypot(1.0 - known["resistance"].astype(float), 1.0 - known["utility"].astype(float))
    picked = {
        "safety_first": useful["resistance"].idxmax() if len(useful) else None,
        "balanced": distance.idxmin() if len(known) else None,
        "utility_first": safer["utility"].idxmax() if len(safer) else None,
    }
    return {goal: None if index is None else found.loc[index].to_dict() for goal, index in picked.items()}
