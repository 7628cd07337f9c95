"""Conclusions of experiments are tables, with the very figures that the results hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from sstmerge_core import experiments
from sstmerge_core.experiments import Result, Table, choice
from sstmerge_core.plots import experiment_tables
from sstmerge_core.plots.table import markdown

SHIPPED = sorted((Path(__file__).parents[2] / "data" / "demo" / "experiments").glob("*.json"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name.rpartition("-")[0])
def test_what_ships_is_told_as_tables(path):
    result = experiments.load(path)
    found = experiment_tables.summaries(result)
    assert found and all(len(one.rows) > 1 and not one.rows.isna().any().any() for one in found)
    assert markdown(found[0].rows).count("\n") == len(found[0].rows) + 1


def result(experiment: str, analysis: dict, *tables: Table) -> Result:
    return Result(experiment, "", {}, "refusal_regex_v2", "B", list(tables), {"best_method": None} | analysis, ["x"])


def test_taxes_stand_by_method_and_resistance_and_what_is_not_reached_says_so():
    rows = [
        {"pair": "P", "at": 0.25, "method": "linear", "tax": 0.5, "tax_low": 0.25, "tax_high": None, "n": 64},
        {"pair": "P", "at": 0.5, "method": "linear", "tax": None, "tax_low": None, "tax_high": None, "n": 64},
    ]
    (found,) = experiment_tables.summaries(result("safety-tax", {}, Table("matched", "", "", rows)))
    assert found.rows.to_dict("records") == [
        {"Method": "Linear", "at 25%": "0.50 (0.25 to ∞)", "at 50%": "not reached"}
    ]
    assert found.title == "P" and "64 harmful" in found.note


def test_a_contest_says_who_leads_and_who_is_shown_worse():
    contest = {
        "goal": "balanced",
        "leader": "linear",
        "not_shown_worse": ["ties"],
        "n": {"resistance": 64, "over_refusal": 63},
        "scores": {
            name: {"value": value, "low": 0.0, "high": 1.0}
            for name, value in (("base", 0.1), ("ties", 0.4), ("linear", 0.5))
        },
        "comparisons": [
            {"method": "ties", "difference": 0.1, "low": -0.1, "high": 0.3, "p_value": 0.4},
            {"method": "base", "difference": 0.4, "low": 0.2, "high": 0.6, "p_value": 0.0001},
        ],
    }
    (found,) = experiment_tables.summaries(result("alpha-k", {"contests": {"P balanced": contest}}))
    assert found.rows["Told"].tolist() == ["leads", "not shown worse", "shown worse"]
    assert found.rows["p"].tolist() == ["–", "0.400", "< 0.001"]
    assert found.rows["Behind"].tolist()[1:] == ["0.10 (-0.10 to 0.30)", "0.40 (0.20 to 0.60)"]


@pytest.mark.parametrize("goal", choice.GOALS)
def test_a_contest_by_any_goal_that_settings_may_name_is_told(goal):
    scores = {name: {"value": 0.5, "low": 0.0, "high": 1.0} for name in ("linear", "ties")}
    contest = {"goal": goal, "leader": "linear", "not_shown_worse": [], "n": {"resistance": 64}, "scores": scores}
    # nothing differs, so that there is no p
    contest["comparisons"] = [{"method": "ties", "difference": 0.0, "low": 0.0, "high": 0.0, "p_value": None}]
    (found,) = experiment_tables.summaries(result("alpha-k", {"contests": {f"A5_A7 {goal}": contest}}))
    assert found.title == f"A5_A7: {experiment_tables.SCORES[goal]}" and list(found.rows["p"]) == ["–", "–"]
