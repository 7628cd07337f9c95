from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sstmerge_core.analysis.front import hypervolume
from sstmerge_core.analysis.fronts import (
    FEW,
    LEAST,
    Axis,
    average_seeds,
    compare_figures,
    compare_fronts,
    hypervolume_interval,
    volumes,
    wide,
)


def answers(rates: dict[str, float], n: int = 100, *, seed: int = 0) -> pd.DataFrame:
    """Prompts × runs of 0 and 1; a prompt that is easy for one run is easy for all."""
    ease = np.random.default_rng(seed).permutation(n) / n
    return pd.DataFrame({run: (ease < rate).astype(float) for run, rate in rates.items()})


@pytest.mark.parametrize("axes", [2, 3])
def test_all_hypervolumes_at_once_are_those_of_one_at_a_time(axes: int) -> None:
    points = np.random.default_rng(3).random((20, 7, axes))
    points[0, 3] = points[0, 4]
    assert volumes(points) == pytest.approx([hypervolume(rows) for rows in points])


def test_a_front_that_is_clearly_higher_is_found_above_and_the_other_way_round_is_the_same() -> None:
    safety = answers({"a1": 0.9, "a2": 0.6, "b1": 0.6, "b2": 0.3})
    utility = answers({"a1": 0.6, "a2": 0.9, "b1": 0.3, "b2": 0.6}, seed=1)
    for groups in ({"A": ["a1", "a2"], "B": ["b1", "b2"]}, {"B": ["b1", "b2"], "A": ["a1", "a2"]}):
        row = compare_fronts([safety, utility], groups, settings=False, resamples=500).iloc[0]
        assert (row["first"], row["answer"], row["covers"]) == ("A", "yes", True)
        assert row["difference"] == pytest.approx(hypervolume([[0.9, 0.6], [0.6, 0.9]]) - 0.27, abs=0.03)
        assert row["low"] > 0 and row["sentence"].startswith("Yes: for these runs the front of A is above that of B")


def test_two_settings_of_each_say_little_of_a_method_however_clear_they_are_themselves() -> None:
    rates = {"a1": 0.9, "a2": 0.6, "b1": 0.6, "b2": 0.3}
    axes, groups = [answers(rates), answers(rates, seed=1)], {"A": ["a1", "a2"], "B": ["b1", "b2"]}
    given, drawn = (compare_fronts(axes, groups, settings=said, resamples=300).iloc[0] for said in (False, True))
    assert given["answer"] == "yes" and drawn["high"] - drawn["low"] > given["high"] - given["low"]
    assert drawn["answer"] == FEW and drawn["runs_low"] == given["low"] and drawn["runs_answer"] == "yes"
    assert drawn["sentence"] == f"Too few settings to tell A and B apart: 2 of at least {LEAST}. {given['sentence']}"


def test_from_four_settings_on_methods_are_told_apart_and_not_these_runs_alone() -> None:
    names = {name: [f"{name}{place}" for place in range(4)] for name in "AB"}
    rates = dict(zip([*names["A"], *names["B"]], [0.9, 0.85, 0.8, 0.75, 0.4, 0.35, 0.3, 0.25], strict=True))
    row = compare_fronts([answers(rates), answers(rates, seed=1)], names, resamples=300).iloc[0]
    assert row["answer"] == "yes" and row["sentence"].startswith("Yes: the front of A is above that of B")


def test_fronts_that_few_prompts_cannot_tell_apart_are_said_to_be_so() -> None:
    safety = pd.DataFrame({"a": [1, 1, 1, 0, 1, 0, 0, 1.0], "b": [0, 1, 1, 1, 0, 1, 0, 0.0]})
    utility = pd.DataFrame({"a": [1, 1, 0, 1.0], "b": [1, 0, 1, 1.0]})
    row = compare_fronts([safety, utility], {"A": ["a"], "B": ["b"]}, settings=False, resamples=500).iloc[0]
    assert row["answer"] == "not shown" and row["low"] < 0 < row["high"] and row["p_value"] > 0.05
    assert row["sentence"].startswith("Not shown")


def test_crossing_fronts_do_not_cover_each_other() -> None:
    figures = {"A": np.array([[0.9, 0.6]]), "B": np.array([[0.3, 0.7]])}
    row = compare_figures(figures).iloc[0]
    assert row["first"] == "A" and not row["covers"] and np.isnan(row["low"])
    assert "B has points beyond it" in row["sentence"] and "nothing to test with" in row["sentence"]


def test_three_fronts_are_compared_pair_by_pair_and_adjusted_together() -> None:
    rates = {"a": 0.8, "b": 0.75, "c": 0.2}
    rows = compare_fronts([answers(rates), answers(rates, seed=1)], {name: [name] for name in rates}, resamples=400)
    assert list(zip(rows["first"], rows["second"], strict=True)) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert (rows["p_holm"] >= rows["p_value"]).all() and (rows["p_holm"] > rows["p_value"]).any()


def test_told_by_the_points_that_chose_a_volume_is_the_hypervolume_and_by_others_no_more() -> None:
    generator = np.random.default_rng(5)
    points = generator.random((30, 6, 3))
    assert volumes(points, points) == pytest.approx(volumes(points))
    shuffled = points[:, ::-1]
    assert (volumes(shuffled, points) <= volumes(points) + 1e-12).all()


def test_equal_settings_do_not_raise_the_front_by_their_noise() -> None:
    generator = np.random.default_rng(8)
    names = [f"r{place}" for place in range(12)]
    values = []
    for trial in range(30):
        axes = [pd.DataFrame((generator.random((64, 12)) < 0.6).astype(float), columns=names) for _ in range(2)]
        values.append(hypervolume_interval(axes, names, resamples=100, seed=trial).value)
    assert np.mean(values) == pytest.approx(0.36, abs=0.03)


def test_the_larger_group_is_compared_by_as_many_settings_as_the_smaller_has() -> None:
    generator = np.random.default_rng(9)
    names = [f"a{place}" for place in range(9)] + ["b0", "b1", "b2"]
    axes = [pd.DataFrame((generator.random((64, 12)) < 0.6).astype(float), columns=names) for _ in range(2)]
    row = compare_fronts(axes, {"A": names[:9], "B": names[9:]}, resamples=200).iloc[0]
    assert row["settings"] == 3 and row["answer"] == FEW and "3 of at least 4" in row["sentence"]


def test_retention_is_a_share_of_the_run_it_is_of_and_one_at_most() -> None:
    resistance = answers({"a": 0.5, "b": 0.5})
    utility = answers({"a": 0.3, "b": 0.9, "U": 0.6}, seed=1)
    axes = [Axis(resistance), Axis(utility, of="U")]
    assert hypervolume_interval(axes, ["a"], resamples=100).value == pytest.approx(0.25, abs=0.03)
    assert hypervolume_interval(axes, ["b"], resamples=100).value == pytest.approx(0.5, abs=0.03)


def test_topics_are_drawn_whole() -> None:
    table = pd.DataFrame({"a": np.repeat([0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0], 8)})
    topics = [f"t{row // 8}" for row in range(64)]
    alone = hypervolume_interval([table, table], ["a"], resamples=300)
    whole = hypervolume_interval([Axis(table, topics)] * 2, ["a"], resamples=300)
    assert whole.high - whole.low > 2 * (alone.high - alone.low)


def test_the_hypervolume_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(11)
    rates = np.array([[0.8, 0.4], [0.6, 0.6], [0.4, 0.8]])
    truth, hits, trials = hypervolume(rates), 0, 150
    for trial in range(trials):
        axes = [
            pd.DataFrame((generator.random((60, 3)) < rates[:, axis]).astype(float), columns=list("abc"))
            for axis in range(2)
        ]
        found = hypervolume_interval(axes, list("abc"), resamples=300, seed=trial)
        hits += found.low <= truth <= found.high
    assert 0.89 <= hits / trials <= 1.0


def test_only_runs_over_the_same_prompts_stand_side_by_side() -> None:
    rows = [(run, "harmful", prompt, 1.0) for run in ("x", "y") for prompt in "pqr"]
    rows += [("small", "harmful", "p", 0.0), ("x", "facts", "p", 0.5)]
    table = wide(pd.DataFrame(rows, columns=["run_id", "suite", "prompt_id", "value"]), "harmful")
    assert list(table.columns) == ["x", "y"] and list(table.index) == ["p", "q", "r"]


def test_seeds_are_averaged_prompt_by_prompt() -> None:
    rows = [("s42", "harmful", "p", 1.0), ("s43", "harmful", "p", 0.0), ("other", "harmful", "p", 1.0)]
    table = average_seeds(
        pd.DataFrame(rows, columns=["run_id", "suite", "prompt_id", "value"]), {"s42": "DARE", "s43": "DARE"}
    )
    assert table.to_dict("records") == [{"run_id": "DARE", "suite": "harmful", "prompt_id": "p", "value": 0.5}]
