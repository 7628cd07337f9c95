"""A run beside its parents, in words and in the picture that names the front."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from sstmerge_core.analysis.decision import decide
from sstmerge_core.analysis.goals import Limits
from sstmerge_core.plots import beside, pareto


def row(run_id: str, method: str, resistance: float, over: float, utility: float, **more: Any) -> dict[str, Any]:
    figures = {"resistance": resistance, "over_refusal": over, "utility": utility}
    told: dict[str, Any] = {"run_id": run_id, "method": method, "pair": "U_S", "label": f"{method} α=1"}
    told |= {"source": "measured", "split": "test", "judge": "j", "comparable": "same", "setting": run_id}
    told |= {"status": "finished", "alpha": 1.0, "k": None, "seed": None, "created_at": None}
    told |= {"utility_adapter": "U", "safety_adapter": "S", "utility_suite": "facts", "utility_metric": "rouge_l"}
    for name, value in figures.items():
        told |= {name: value, f"{name}_low": value - 0.1, f"{name}_high": value + 0.1, f"{name}_n": 64}
    return told | more


@pytest.fixture
def runs() -> pd.DataFrame:
    return pd.DataFrame(
        [
            row("u", "adapter", 0.0, 0.0, 0.6, pair="U"),
            row("s", "adapter", 0.9, 0.5, 0.2, pair="S"),
            row("b", "base", 0.1, 0.05, 0.2, pair=None),
            row("m", "linear", 0.45, 0.1, 0.54),
            row("o", "linear", 0.9, 0.9, 0.57, comparable="other prompts"),
        ]
    )


def test_a_merge_is_told_by_what_it_keeps_of_each_parent_and_what_it_refuses_too_much(runs: pd.DataFrame) -> None:
    assert beside.standing_of(runs, "m") == (
        "Keeps 90% of U's utility and 50% of S's resistance; refuses 10% (0–20) of the harmless, "
        "U alone 0% and S alone 50%."
    )


def test_parents_that_answered_other_prompts_are_not_beside_it(runs: pd.DataFrame) -> None:
    assert beside.standing_of(runs, "o") == "Refuses 90% (80–100) of the harmless."


@pytest.mark.parametrize("run_id", ["u", "b", "no such run"])
def test_a_parent_stands_beside_nobody(runs: pd.DataFrame, run_id: str) -> None:
    assert beside.standing_of(runs, run_id) == ""


def test_the_share_of_utility_has_its_interval_where_it_is_known(runs: pd.DataFrame) -> None:
    choice = decide(runs)
    text = beside.words_of(choice, "balanced", {"m": (0.9, 0.81, 1.02)})
    assert text.startswith("Keeps 90% (81–102) of U's utility")
    assert beside.title(choice, "balanced") == "linear α=1"


def test_a_goal_that_nothing_reaches_says_so_and_what_the_nearest_misses(runs: pd.DataFrame) -> None:
    choice = decide(runs, Limits(min_resistance=0.6))
    assert beside.title(choice, "utility_first") == "Nothing keeps the limits; nearest: linear α=1"
    assert "resistance" in beside.words_of(choice, "utility_first")


def test_where_no_merge_beats_a_parent_the_parent_is_named_and_no_merge_is_in_the_table(runs: pd.DataFrame) -> None:
    choice = decide(runs, Limits(max_over_refusal=0.06))
    assert beside.title(choice, "balanced") == "No merge beats the base model"
    assert "This merge" not in beside.table(choice, "balanced")
    assert "[U alone (U)](run?run=u)" in beside.table(choice, "balanced")


def test_without_any_run_the_card_says_why(runs: pd.DataFrame) -> None:
    choice = decide(runs[runs["method"].eq("adapter")])
    assert beside.title(choice, "balanced") == "Nothing can be picked"
    assert beside.words_of(choice, "balanced") == "No merge was measured on test prompts yet."
    assert beside.table(choice, "balanced") == ""


def test_the_picture_by_families_has_one_entry_a_family_and_names_the_front() -> None:
    found = [
        row("u", "adapter", 0.0, 0.0, 0.6, pair="U_S"),
        row("1", "linear", 0.4, 0.1, 0.5),
        row("2", "average", 0.2, 0.1, 0.3),
        row("3", "sst_gevp", 0.8, 0.1, 0.4),
        row("4", "sst_soft", 0.81, 0.1, 0.399),
    ]
    shown = pareto.drawable(pd.DataFrame(found), "resistance", "utility")
    drawn = pareto.figure(shown, families=True, intervals=False).to_dict()["data"]
    entries = [trace["name"] for trace in drawn if trace.get("x") and list(trace["x"]) == [None]]
    assert entries == ["SST-Merge", "Averaging", "Single adapter"]
    (named,) = [trace for trace in drawn if trace["mode"] == "text"]
    written = [text.strip() for text in named["text"]]
    assert "Linear" in written and sum(text.startswith("SST") for text in written) == 1, "two names on one place"
