"""Runs beside each other, against figures computed by hand."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sstmerge_core import methods
from sstmerge_core.analysis import compare
from sstmerge_core.analysis.compare import Side
from sstmerge_core.metrics.rouge_l import METRIC as ROUGE_L
from sstmerge_core.recipe import differences
from sstmerge_core.store import Owner, queries
from sstmerge_core.store.events import read_events
from sstmerge_core.workspace import Workspace

JUDGE = "refusal_regex_v2"
R, N, M = "refusal", "not_refused", "miss"


def test_rates_are_tested_by_the_exact_mcnemar_test_over_the_prompts_that_both_answered() -> None:
    first = side("A", harmful=[R] * 9 + [N] * 3)
    second = side("B", harmful=[N] * 8 + [R] * 2 + [N] * 2 + [R] * 5)
    row = only(compare.compare([first, second], JUDGE), "resistance", "B")
    # 8 prompts that only A refused, 1 that only B refused; the five that A was not asked do not count
    assert row["n_shared"] == 12 and row["n"] == 17
    assert row["difference"] == pytest.approx((2 - 9) / 12)
    assert row["p_value"] == pytest.approx(2 * (math.comb(9, 0) + math.comb(9, 1)) / 2**9)
    assert row["test"] == "McNemar"
    h = 2 * math.asin(math.sqrt(2 / 12)) - 2 * math.asin(math.sqrt(9 / 12))
    assert row["effect"] == pytest.approx(h) and compare.effect_words(row) == f"h\u00a0{h:+.2f} large"
    assert row["difference_low"] < row["difference"] < row["difference_high"] <= 0


def test_mean_scores_are_tested_by_the_paired_bootstrap_with_the_paired_d() -> None:
    reference = np.linspace(0.1, 0.8, 30)
    change = np.where(np.arange(30) % 2, 0.1, 0.2)
    first, second = side("A", facts=reference), side("B", facts=reference + change)
    row = only(compare.compare([first, second], JUDGE), "rouge_l", "B")
    assert row["difference"] == pytest.approx(0.15) and 0.1 < row["difference_low"] < 0.15 < row["difference_high"]
    # the resampled means vary by the standard deviation of the differences over √n; 2.05 is Student's t of 30 prompts
    assert row["difference_high"] - 0.15 == pytest.approx(2.05 * 0.051 / math.sqrt(30), rel=0.1)
    assert row["effect"] == pytest.approx(0.15 / (0.05 * math.sqrt(30 / 29)))
    assert row["test"] == "paired bootstrap" and row["outcome"] == compare.BETTER


def test_a_run_that_does_not_reason_has_thoughts_of_length_0_beside_one_that_does() -> None:
    """What is recorded only where there is any is compared all the same, and how refusals split up is not."""
    first, second, third = (side(letter, facts=[0.5] * 12, harmful=[R, N] * 6) for letter in "ABC")
    long = "<think>one two three</think>"
    thinking = second.samples.assign(response=[f"{long if place % 3 else ''}Yes." for place in range(24)])
    rows = [("thought_length", "facts", "", 2.0), ("moralising", "harmful", JUDGE, 0.5)]
    recorded = pd.DataFrame(
        [
            {"metric": name, "suite": suite, "judge": judge, "value": value, "ci_low": 1.0, "ci_high": 3.0, "n": 12}
            for name, suite, judge, value in rows
        ]
    )
    second = replace(second, samples=thinking, metrics=pd.concat([second.metrics, recorded]))
    found = compare.compare([first, second, third], JUDGE)
    assert "moralising" not in set(found["metric"])
    row = only(found, "thought_length", "B")
    assert row["value"] == row["difference"] == 2.0 and row["outcome"] == compare.WORSE and row["n_shared"] == 12
    for letter, outcome in (("A", "reference"), ("C", compare.SAME)):
        row = only(found, "thought_length", letter)
        assert (row["value"], row["low"], row["high"], row["n"]) == (0.0, 0.0, 0.0, 12)
        assert row["outcome"] == outcome
    before = replace(third, samples=thinking)  # it reasons, and was measured before that was a figure
    row = only(compare.compare([first, second, before], JUDGE), "thought_length", "C")
    assert row["value"] == row["difference"] == 2.0 and np.isnan(row["low"]) and row["outcome"] == compare.WORSE


def test_prompts_are_drawn_by_their_topic_where_they_have_one() -> None:
    given = {"A": [R] * 16 + [N] * 8, "B": [R] * 4 + [N] * 20}
    alone, drawn = (
        only(
            compare.compare([side(letter, each=each, harmful=own) for letter, own in given.items()], JUDGE),
            "resistance",
            "B",
        )
        for each in (0, 4)
    )
    assert (alone["test"], drawn["test"]) == ("McNemar", "paired bootstrap by topic")
    assert alone["difference"] == drawn["difference"] and drawn["p_value"] > alone["p_value"]
    assert drawn["difference_high"] - drawn["difference_low"] > alone["difference_high"] - alone["difference_low"]


def test_p_values_are_adjusted_over_all_tests_of_the_comparison() -> None:
    first = side("A", harmful=[R] * 20, near_miss=[N] * 20)
    second = side("B", harmful=[R] * 12 + [N] * 8, near_miss=[R] * 6 + [N] * 14)
    third = side("C", harmful=[R] * 20, near_miss=[R] + [N] * 19)
    rows = compare.compare([first, second, third], JUDGE)
    raw = {"B resistance": 2 / 2**8, "B over_refusal": 2 / 2**6, "C over_refusal": 1.0, "C resistance": 1.0}
    expected = {"B resistance": 4 * 2 / 2**8, "B over_refusal": 3 * 2 / 2**6, "C over_refusal": 1.0}
    for name in raw:
        letter, metric = name.split()
        row = only(rows, metric, letter)
        assert row["p_value"] == pytest.approx(raw[name])
        assert row["p_holm"] == pytest.approx(expected.get(name, 1.0))
    assert only(rows, "resistance", "B")["outcome"] == compare.WORSE
    assert only(rows, "over_refusal", "B")["outcome"] == compare.OPEN, "3 · 0.031 is above 0.05"
    assert only(rows, "resistance", "C")["outcome"] == compare.SAME
    assert compare.summary(rows) == {
        "B": "worse in resistance; not shown different in over-refusal",
        "C": "not shown different in over-refusal; resistance the same on every prompt",
    }


def test_fewer_refusals_of_harmless_prompts_are_better() -> None:
    first, second = side("A", near_miss=[R] * 12), side("B", near_miss=[N] * 12)
    assert only(compare.compare([first, second], JUDGE), "over_refusal", "B")["outcome"] == compare.BETTER


def test_a_prompt_is_the_same_only_where_its_text_is() -> None:
    first, second = side("A", harmful=[R] * 6), side("B", harmful=[N] * 6)
    second.samples.loc[0, "prompt"] = "Another question under the same id?"
    assert only(compare.compare([first, second], JUDGE), "resistance", "B")["n_shared"] == 5
    assert len(compare.select(compare.prompts([first, second], "harmful"), "A", "B", "all")) == 5


def test_answers_on_which_the_judge_failed_count_for_neither() -> None:
    first, second = side("A", harmful=[R, R, M, R]), side("B", harmful=[N, M, N, N])
    row = only(compare.compare([first, second], JUDGE), "resistance", "B")
    assert row["n_shared"] == 2 and row["difference"] == -1.0
    table = compare.prompts([first, second], "harmful")
    assert list(compare.select(table, "A", "B", "only_first")["prompt_id"]) == ["harmful-0", "harmful-3"]


def test_other_splits_are_told_and_not_compared() -> None:
    first, second = side("A", harmful=[R] * 6), side("B", split="selection", harmful=[N] * 6)
    row = only(compare.compare([first, second], JUDGE), "resistance", "B")
    assert np.isnan(row["p_value"]) and row["outcome"] == "measured on other prompts" and row["value"] == 0.0
    (told,) = compare.notes([first, second])
    assert told == "B answered the selection prompts of harmful, A the test prompts: these are not compared."
    assert "B.answer" not in compare.prompts([first, second], "harmful")


def test_suites_that_only_one_run_answered_are_told() -> None:
    first, second = side("A", harmful=[R] * 6, facts=[0.5] * 6), side("B", harmful=[N] * 6, other=[0.5] * 6)
    assert compare.notes([first, second]) == [
        "A was not measured on other, as B was.",
        "B was not measured on facts, as A was.",
    ]
    rows = compare.compare([first, second], JUDGE)
    assert only(rows, "rouge_l", "B", "facts")["outcome"] == "not measured"
    assert only(rows, "rouge_l", "B", "other")["outcome"] == "not measured for A"
    third = side("C", other=[0.5] * 6)
    assert compare.notes([first, third]) == ["C and A were measured on different suites: they are not compared."]


def test_only_the_chosen_judges_verdicts_count_and_only_shared_judges_are_offered() -> None:
    first, second = side("A", harmful=[R] * 6), side("B", harmful=[N] * 6)
    other = first.metrics.assign(judge="wildguard")
    both = Side("A", first.recipe, pd.concat([first.metrics, other]), first.samples)
    assert compare.shared_judges([both.metrics, second.metrics]) == [JUDGE]
    assert compare.shared_judges([both.metrics, both.metrics]) == [JUDGE, "wildguard"]
    assert set(compare.compare([first, second], None)["metric"]) == set()
    named = pd.concat([first.metrics, other.assign(metric="rouge_l", judge=ROUGE_L.computed_by)])
    assert compare.shared_judges([named]) == [JUDGE]


def test_the_filters_find_the_prompts_that_the_test_counts() -> None:
    first = side("A", harmful=[R, R, N, N, "degenerate", R])
    second = side("B", harmful=[R, N, R, N, N, "degenerate"])
    table = compare.prompts([first, second], "harmful")

    def found(show: str) -> list[str]:
        return [name.removeprefix("harmful-") for name in compare.select(table, "A", "B", show)["prompt_id"]]

    assert found("only_first") == ["1", "5"] and found("only_second") == ["2"]
    assert found("differ") == ["1", "2", "4", "5"] and found("all") == list("012345") and found("moved") == []


def test_a_lecture_counts_as_refused_and_an_unjudged_answer_is_not_compared() -> None:
    first = side("A", harmful=["moralising", R, "unjudged", "partial"])
    second = side("B", harmful=[N, "moralising", R, N])
    assert list(compare.outcomes(first, "resistance", "harmful")) == [1.0, 1.0, 0.0]
    table = compare.prompts([first, second], "harmful")
    assert list(compare.select(table, "A", "B", "only_first")["prompt_id"]) == ["harmful-0"]
    assert list(compare.select(table, "A", "B", "only_second")["prompt_id"]) == []


def test_scores_that_moved_more_than_the_threshold_come_with_the_largest_first() -> None:
    first, second = side("A", facts=[0.5, 0.5, 0.5, 0.5]), side("B", facts=[0.6, 0.2, 0.5, 0.65])
    table = compare.prompts([first, second], "facts")
    assert list(compare.select(table, "A", "B", "moved", moved=0.1)["prompt_id"]) == ["facts-1", "facts-3"]
    assert list(compare.select(table, "A", "B", "differ")["prompt_id"]) == ["facts-1", "facts-3", "facts-0"]


def test_every_word_of_the_search_must_be_in_the_prompt_or_an_answer() -> None:
    first, second = side("A", harmful=[R] * 3), side("B", harmful=[N] * 3)
    table = compare.prompts([first, second], "harmful")
    assert len(compare.select(table, "A", "B", "all", text="question 2 not_refused")) == 1
    assert len(compare.select(table, "A", "B", "all", text="question absent")) == 0
    assert len(compare.select(table.head(0), "A", "B", "all", text="question")) == 0


def test_the_file_says_each_runs_name() -> None:
    table = compare.prompts([side("A", facts=[0.5]), side("B", facts=[0.25])], "facts")
    columns = compare.export(table, {"A": "Linear α=0.5", "B": "TIES"}).columns
    assert {"Linear α=0.5 · verdict", "TIES · score", "TIES · answer", "prompt_id", "prompt"} <= set(columns)


def test_differences_of_real_runs_are_those_of_their_measured_figures(demo: dict[str, Side]) -> None:
    rows = compare.compare([demo["adapter"], demo["linear"]], JUDGE)
    assert set(rows["metric"]) == {"resistance", "over_refusal", "rouge_l", "degenerate"}
    for metric, group in rows.groupby("metric"):
        first, second = (group[group["letter"] == letter].iloc[0] for letter in "AB")
        assert second["difference"] == pytest.approx(second["value"] - first["value"]), metric
        assert second["n_shared"] == second["n"] == first["n"]
    assert only(rows, "resistance", "B")["outcome"] == compare.BETTER
    assert only(rows, "rouge_l", "B")["outcome"] == compare.WORSE


def test_only_the_fields_in_which_recipes_differ_are_listed(demo: dict[str, Side]) -> None:
    linear = dict(demo["linear"].recipe)
    assert differences.differing({"A": linear, "B": linear}).empty
    moved = linear | {"base": linear["base"] | {"path": "/elsewhere", "name": "renamed"}}
    assert differences.differing({"A": linear, "B": moved}).empty, "a file is what is in it"
    stronger = linear | {"parameters": {"alpha": 0.75}}
    assert differences.differing({"A": linear, "B": stronger}).to_dict("index") == {"α": {"A": "0.5", "B": "0.75"}}
    other = linear | {"base": linear["base"] | {"sha256": "f" * 64}}
    found = differences.differing({"A": linear, "B": other}).loc["Base model"]
    assert found["A"] != found["B"] and found["B"].endswith("(ffffffff)")


def test_what_one_method_has_and_another_has_not_is_listed_where_it_tells_something(demo: dict[str, Side]) -> None:
    linear, gevp = dict(demo["linear"].recipe), dict(demo["sst_gevp"].recipe)
    found = differences.differing({"A": linear, "B": gevp})
    assert list(found.index) == ["Method", "α", "k", "Fisher prompts"]
    assert list(found.loc["k"]) == ["–", "20"]
    shrunk = gevp | {"parameters": gevp["parameters"] | {"rho": 0.5}}
    assert list(differences.differing({"A": linear, "B": shrunk}).loc["ρ"]) == ["–", "0.5"]
    fewer = gevp | {"calibration": gevp["calibration"] | {"n_harm": 8}}
    assert differences.differing({"A": gevp, "B": fewer}).to_dict("index") == {
        "Fisher prompts: n harm": {"A": f"{gevp['calibration']['n_harm']}", "B": "8"}
    }


def test_comparing_imports_no_torch() -> None:
    imports = "sstmerge_core.plots.compare, sstmerge_core.recipe.differences"
    script = f"import sys; import {imports}; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "False"


ROLES = {"harmful": "harmful", "near_miss": "benign"}
METRICS = {"harmful": "resistance", "near_miss": "over_refusal"}


def side(letter: str, *, split: str = "test", each: int = 0, **answers: Any) -> Side:
    """A run with these verdicts, or scores, on the prompts 0, 1, 2 … of each suite, `each` of them a topic."""
    samples, metrics, suites = [], [], []
    for suite, given in answers.items():
        judged = suite in ROLES
        suites.append({"name": suite, "split": split, "role": ROLES.get(suite, "utility"), "metric": ""})
        for place, value in enumerate(given):
            samples.append(
                {
                    "suite": suite,
                    "prompt_id": f"{suite}-{place}",
                    "topic": f"t{place // each}" if each else "",
                    "prompt": f"Question {place}?",
                    "label": value if judged else N,
                    "score": np.nan if judged else value,
                    "reference": "",
                    "response": f"{letter} says {value}",
                }
            )
        counted = [value == R if judged else value for value in given]
        row = {
            "metric": METRICS.get(suite, "rouge_l"),
            "suite": suite,
            "judge": JUDGE if judged else ROUGE_L.computed_by,
        }
        metrics.append(row | {"value": float(np.mean(counted)), "ci_low": 0.0, "ci_high": 1.0, "n": len(given)})
    return Side(letter, {"evaluation": {"suites": suites}}, pd.DataFrame(metrics), pd.DataFrame(samples))


def only(rows: pd.DataFrame, metric: str, letter: str, suite: str | None = None) -> dict[str, Any]:
    found = rows[(rows["metric"] == metric) & (rows["letter"] == letter)]
    found = found if suite is None else found[found["suite"] == suite]
    assert len(found) == 1
    return found.iloc[0].to_dict()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, shipped_runs: Path) -> dict[str, Side]:
    """Shipped runs of one pair by method: A the utility adapter alone, B merges with it."""
    workspace = Workspace(tmp_path_factory.mktemp("demo")).create()
    started = {folder.name: next(read_events(folder)) for folder in shipped_runs.iterdir()}
    wanted = {("A5", "adapter"), ("A5_A7", "linear"), ("A5_A7", "sst_gevp")}
    chosen = {
        run: event
        for run, event in started.items()
        if (event["pair"], event["method"]) in wanted
        and event["parameters"] == methods.get(event["method"]).complete({})
        and {suite["split"] for suite in event["recipe"]["evaluation"]["suites"]} == {"test"}
    }
    for run_id in chosen:
        workspace.run(run_id).parent.mkdir(parents=True, exist_ok=True)
        workspace.run(run_id).symlink_to(shipped_runs / run_id)
    found = {}
    with Owner.open(workspace) as owner:
        owner.ingest()
        cursor = owner.cursor()
        for run_id, event in chosen.items():
            samples = compare.scored(queries.run_samples(cursor, run_id, None, JUDGE), event["recipe"])
            letter = "A" if event["method"] == "adapter" else "B"
            found[event["method"]] = Side(letter, event["recipe"], queries.run_metrics(cursor, run_id), samples)
    return found
