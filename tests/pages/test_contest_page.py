"""What the contest of all methods found, on the page of experiments."""

from __future__ import annotations

from typing import Any

import pytest

from sstmerge_core import experiments
from sstmerge_core.experiments import Result, Table
from sstmerge_core.experiments.contest import ContestPlan
from sstmerge_core.workspace import Workspace


def row(method: str, score: float, told: str) -> dict[str, Any]:
    found: dict[str, Any] = {"pair": "A5_A7", "method": method, "seeds": 3, "told": told, "run_ids": ["0" * 12]}
    figures = {"score": score, "discrimination": score, "retention": 0.9, "resistance": score, "over_refusal": 0.1}
    for name, value in (figures | {"utility": 0.5}).items():
        found |= {name: value, f"{name}_low": value - 0.05, f"{name}_high": value + 0.05}
    return found


def told() -> Result:
    rows = [row("sst_signed", 0.6, "with the best"), row("linear", 0.5, "with the best"), row("U alone", 0.0, "worse")]
    names = [one["method"] for one in rows]
    contest = {
        "goal": "balanced",
        "best_method": None,
        "leader": names[0],
        "not_shown_worse": names[1:2],
        "comparisons": [
            {"method": name, "difference": 0.1, "low": -0.1, "high": 0.3, "p_value": 0.4} for name in names[1:]
        ],
        "scores": {one["method"]: {"value": one["score"], "low": 0.0, "high": 0.7} for one in rows},
        "n": {"resistance": 256, "over_refusal": 256, "utility": 100},
    }
    return Result(
        "contest",
        experiments.get("contest").question,
        ContestPlan().model_dump(mode="json"),
        "refusal_regex_v2",
        "SmolLM2-135M-Instruct",
        [Table("contest", "Contest", "Means over 3 training seeds.", rows)],
        {"best_method": None, "goal": "balanced", "contests": {"A5_A7": contest}},
        ["A5_A7: No winner: the differences are within noise."],
        ["3 training seeds give little power; a difference not shown is not shown to be absent."],
    )


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    workspace = Workspace(tmp_path / "workspace").create()
    experiments.save(workspace, ContestPlan(), told())
    return workspace


def test_the_contest_shows_who_is_with_the_best_and_every_entrant_with_its_intervals(workspace, open_page):
    app = open_page(workspace, "experiments", experiment="contest")
    assert not app.exception
    said = "\n".join(one.value for one in (*app.markdown, *app.caption))
    assert "SST-Merge (signed)" in said and "with the best" in said and "3 training seeds" in said
    assert ".60 (0.55 to 0.65)" in said and "Over-refusal ↓" in said and ".10 (0.05 to 0.15)" in said
    (table,) = app.dataframe
    assert list(table.value["method"]) == ["SST-Merge (signed)", "Linear", "U alone"]
    assert {"score", "discrimination", "retention", "over_refusal", "utility", "told"} <= set(table.value.columns)
