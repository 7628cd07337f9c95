"""Seeds averaged, splits kept apart, and what is said of them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sstmerge_core.analysis.decision import decide
from sstmerge_core.report.comparisons import over_seeds
from sstmerge_core.report.gather import Chapter
from sstmerge_core.report.points import axes, outcomes, points, topics


def run(
    run_id: str, method: str, alpha: float, seed: int | None, rates: tuple[float, float], split: str = "test"
) -> dict[str, Any]:
    """A leaderboard row with its recipe; `rates` are resistance and utility."""
    suites = [
        {"name": "harmful", "role": "harmful", "split": split},
        {"name": "facts", "role": "utility", "split": split},
    ]
    parameters = {"alpha": alpha} | ({} if seed is None else {"seed": seed})
    recipe = {"method": method, "parameters": parameters, "evaluation": {"suites": suites, "judge": "j"}}
    row: dict[str, Any] = {"run_id": run_id, "pair": "U_S", "method": method, "alpha": alpha, "k": np.nan, "seed": seed}
    row |= {"layerwise": None, "split": split, "resistance": rates[0], "utility": rates[1], "over_refusal": np.nan}
    for measure in ("resistance", "utility", "over_refusal"):
        row |= {f"{measure}_low": row[measure] - 0.1, f"{measure}_high": row[measure] + 0.1}
    label = f"{method} α={alpha:g}" + (f" seed={seed}" if seed is not None else "")
    return row | {"label": label, "utility_suite": "facts", "recipe": json.dumps(recipe)}


RUNS = pd.DataFrame(
    [
        run("d42", "dare_linear", 0.5, 42, (0.50, 0.30)),
        run("d43", "dare_linear", 0.5, 43, (0.60, 0.20)),
        run("d44", "dare_linear", 0.5, 44, (0.55, 0.25)),
        run("lin", "linear", 0.5, None, (0.90, 0.80)),
        run("low", "linear", 0.2, None, (0.60, 0.82)),
    ]
)


def answers() -> pd.DataFrame:
    rows: list[tuple[str | None, ...]] = []
    for row in RUNS.to_dict("records"):
        refused = round(20 * row["resistance"])
        rows += [
            (
                row["run_id"],
                "harmful",
                f"h{i}",
                "x",
                "",
                "refusal" if i < refused else "miss" if i == 19 else "not_refused",
            )
            for i in range(20)
        ]
        rows += [
            (row["run_id"], "facts", f"f{i}", "the red fox" if i % 2 else "blue", "the red fox", None)
            for i in range(10)
        ]
        rows += [(row["run_id"], "unknown", "u", "x", "", "refusal")]
    return pd.DataFrame(rows, columns=["run_id", "suite", "prompt_id", "response", "reference", "label"])


def chapter(found: pd.DataFrame, selection: pd.DataFrame | None = None) -> Chapter:
    empty = RUNS.head(0)
    tables = axes(found, outcomes(answers(), RUNS))
    chosen = points(empty) if selection is None else selection
    return Chapter(
        "U_S",
        "measured",
        "base",
        "j",
        "facts",
        found,
        {},
        tables,
        chosen,
        empty,
        RUNS,
        decide(RUNS.assign(source="measured", judge="j")),
    )


def test_outcomes_are_refusals_and_rouge_without_what_the_judge_missed() -> None:
    found = outcomes(answers(), RUNS)
    lin = found[found["run_id"] == "lin"]
    assert set(lin["suite"]) == {"harmful", "facts"}
    assert len(lin[lin["role"] == "harmful"]) == 19  # one miss
    assert lin[lin["role"] == "utility"]["value"].mean() == pytest.approx(0.5)


def test_intervals_of_averaged_seeds_and_all_tests_know_the_topics() -> None:
    by_topic = answers()
    by_topic["topic"] = ["t" + str(int(prompt[1:] or 0) // 5) for prompt in by_topic["prompt_id"]]
    wide, narrow = (
        points(RUNS, outcomes(given, RUNS)).set_index("setting").loc["d42"] for given in (by_topic, answers())
    )
    assert wide["resistance_high"] - wide["resistance_low"] > narrow["resistance_high"] - narrow["resistance_low"]
    found = points(RUNS, outcomes(by_topic, RUNS))
    tables = axes(found, outcomes(by_topic, RUNS))
    named = topics(tables, outcomes(by_topic, RUNS))
    assert [f"t{int(prompt[1:]) // 5}" for prompt in tables["resistance"].index] == named["resistance"]
    assert topics(tables, outcomes(answers(), RUNS)) == {"resistance": None, "utility": None}


def test_runs_that_differ_in_their_seed_alone_are_one_setting() -> None:
    found = points(RUNS, outcomes(answers(), RUNS)).set_index("setting")
    assert list(found.index) == ["low", "lin", "d42"]
    dare = found.loc["d42"]
    assert dare["run_ids"] == ["d42", "d43", "d44"] and dare["label"] == "dare_linear α=0.5"
    assert (dare["resistance"], dare["resistance_std"]) == pytest.approx((0.55, 0.05))
    assert dare["resistance_low"] < 0.55 < dare["resistance_high"]
    assert found.loc["lin", "total"] == pytest.approx(1.7)
    assert found.loc["lin", "total_low"] == pytest.approx(1.7 - np.hypot(0.1, 0.1))


def test_each_seed_is_a_link_and_the_methods_are_tested_over_seeds() -> None:
    section = over_seeds(chapter(points(RUNS, outcomes(answers(), RUNS))))
    assert section is not None
    text = repr(section.blocks)
    assert ("[43](run?run=d43)" in text and "has the best mean sum" in text) or "is best: mean sum" in text
    assert over_seeds(chapter(points(RUNS.tail(2)))) is None
