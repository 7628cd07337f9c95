from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sstmerge_core.analysis.paired import compare, compare_sums, sum_interval
from sstmerge_core.analysis.statistics import holm, mcnemar, student_p, usable_clusters


def test_rates_are_tested_by_mcnemar_and_means_by_the_bootstrap_all_runs_together() -> None:
    safety = pd.DataFrame({"ref": [0.0] * 20, "a": [1.0] * 15 + [0.0] * 5, "b": [1.0] + [0.0] * 19})
    utility = pd.DataFrame(
        {"ref": np.linspace(0.5, 1, 20), "a": np.linspace(0.1, 0.7, 20), "b": np.linspace(0.5, 1, 20)}
    )
    rows = compare({"resistance": safety, "utility": utility}, ["a", "b", "unknown"], "ref").set_index(
        ["measure", "run_id"]
    )
    assert len(rows) == 4
    a, b = rows.loc[("resistance", "a")], rows.loc[("resistance", "b")]
    assert (a["test"], a["difference"], a["effect_kind"]) == ("McNemar", 0.75, "Cohen's h")
    p_values = [mcnemar(list(safety[run] == 1), [False] * 20).p_value for run in "ab"]
    assert [a["p_holm"], b["p_holm"]] == pytest.approx(list(holm(p_values)))
    assert rows.loc[("utility", "a"), "test"] == "paired bootstrap" and rows.loc[("utility", "a"), "high"] < 0
    assert rows.loc[("utility", "b"), "p_value"] == 1.0


def test_a_sum_of_two_measures_is_resampled_measure_by_measure() -> None:
    generator = np.random.default_rng(2)
    base = generator.random((60, 1))
    one = pd.DataFrame(np.hstack([base, base + 0.2]), columns=["low", "high"])
    two = pd.DataFrame({"low": [0.0] * 40, "high": [0.0, 1.0] * 20})
    found = compare_sums([one, two], "high", "low")
    assert found.difference == pytest.approx(0.7) and found.low == pytest.approx(0.7 - 0.155, abs=0.03)
    assert found.p_value < 0.001 and compare_sums([one, two], "low", "low").p_value == 1.0


def test_the_interval_of_a_sum_adds_the_distances_in_squares() -> None:
    assert sum_interval([(0.5, 0.2, 0.6), (0.4, 0.0, 0.7)]) == pytest.approx((0.4, 0.9 + np.hypot(0.1, 0.3)))


def test_prompts_of_one_topic_are_drawn_together_and_mcnemar_does_not_take_them_for_independent() -> None:
    generator = np.random.default_rng(7)
    topics = [f"t{row // 8}" for row in range(64)]
    shift = np.repeat(generator.random(8) < 0.6, 8)
    safety = pd.DataFrame({"ref": np.zeros(64), "a": shift.astype(float)})
    utility = pd.DataFrame({"ref": np.zeros(64), "a": np.repeat(generator.normal(0.2, 0.2, 8), 8)})
    tables = {"resistance": safety, "utility": utility}
    alone = compare(tables, ["a"], "ref").set_index("measure")
    drawn = compare(tables, ["a"], "ref", topics={"resistance": topics, "utility": topics}).set_index("measure")
    for measure in tables:
        assert drawn.loc[measure, "high"] - drawn.loc[measure, "low"] > 2 * (
            alone.loc[measure, "high"] - alone.loc[measure, "low"]
        )
        assert drawn.loc[measure, "p_value"] > alone.loc[measure, "p_value"]
    assert list(drawn["test"]) == ["paired bootstrap by topic"] * 2 and drawn.loc["resistance", "effect"] is not None
    sums = [compare_sums([safety, utility], "a", "ref", topics=own) for own in ((), (topics, topics))]
    assert sums[1].high - sums[1].low > 2 * (sums[0].high - sums[0].low) and sums[1].p_value > sums[0].p_value


def test_a_p_value_by_topic_agrees_with_its_interval() -> None:
    generator = np.random.default_rng(3)
    topics = [f"t{row // 4}" for row in range(24)]
    for effect in np.linspace(0.0, 0.6, 13):
        values = np.repeat(generator.normal(effect, 0.4, 6), 4)
        table = pd.DataFrame({"ref": np.zeros(24), "a": values})
        row = compare({"utility": table}, ["a"], "ref", topics={"utility": topics}).iloc[0]
        if not 0.03 < row["p_value"] < 0.07:
            assert (row["p_value"] < 0.05) == (row["low"] > 0 or row["high"] < 0)


def test_topics_that_say_nothing_are_none() -> None:
    assert usable_clusters(["a", "a", "b"]) == ["a", "a", "b"]
    for topics in ([], ["", "a", "a"], ["a", "a"], ["a", "b"], [None, "a", "a"], [float("nan"), "a", "a"]):
        assert usable_clusters(topics) is None


def test_many_clear_differences_by_topic_stay_clear_when_adjusted_together() -> None:
    generator = np.random.default_rng(5)
    topics = [f"t{row // 4}" for row in range(64)]
    table = pd.DataFrame(
        {"ref": np.zeros(64)} | {f"m{place}": (generator.random(64) < 0.6) * 1.0 for place in range(30)}
    )
    rows = compare({"resistance": table}, list(table), "ref", topics={"resistance": topics})
    assert (rows["p_holm"] < 0.001).all(), "no floor of the resamples under the p-values"


def test_where_topics_do_not_vary_at_all_their_number_is_what_a_test_rests_on() -> None:
    assert student_p(1.0, np.ones(100), 4) == 0.125 and student_p(1.0, np.ones(100), 16) < 0.001
    assert student_p(0.0, np.zeros(100), 16) == 1.0 and student_p(0.3, np.ones(100), 1) == 1.0
