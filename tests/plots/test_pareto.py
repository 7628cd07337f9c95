"""The Pareto picture: what it draws of three measures, of selections and of thousands of runs, and what it says."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from sstmerge_core.analysis.decision import Decision, decide
from sstmerge_core.analysis.goals import Limits
from sstmerge_core.plots import pareto, standing
from sstmerge_core.plots.area import CORNERS, Box, Lasso

NOBODY = Decision(Limits())
METHODS = ("linear", "task_arithmetic", "ties", "sst_gevp")


def runs(n: int = 40, **changes: object) -> pd.DataFrame:
    """Measured merges of one pair by four methods, scattered around a curve."""
    rng = np.random.default_rng(0)
    resistance = np.linspace(0.02, 0.98, n)
    frame = pd.DataFrame(
        {
            "run_id": [f"{number:016x}" for number in range(n)],
            "source": "measured",
            "pair": "A5_A7",
            "utility_adapter": "A5",
            "safety_adapter": "A7",
            "status": "finished",
            "method": [METHODS[number % len(METHODS)] for number in range(n)],
            "label": [f"{METHODS[number % len(METHODS)]} α={number / n:.6f}" for number in range(n)],
            "alpha": np.arange(n) / n,
            "resistance": resistance,
            "utility": np.sqrt(1 - resistance**2) - rng.random(n) * 0.2,
            "over_refusal": rng.random(n),
            "utility_suite": "facts",
            "split": "test",
        }
    )
    for name in ("resistance", "utility", "over_refusal"):
        frame[f"{name}_low"], frame[f"{name}_high"], frame[f"{name}_n"] = frame[name] - 0.05, frame[name] + 0.05, 72
    return frame.assign(**changes)


def points(figure: go.Figure) -> list[Any]:
    return [trace for trace in figure.data if "method" in (trace.meta or {})]


def test_ten_thousand_runs_are_a_megabyte_and_no_more_traces_than_a_few_methods_need() -> None:
    shown = pareto.drawable(runs(10_000), "resistance", "utility")
    figure = pareto.figure(shown)
    sent = figure.to_json()
    assert len(sent) < 1_000_000
    assert sum(len(trace.x) for trace in points(figure)) == 10_000
    assert len(figure.data) < 6 * len(METHODS)
    assert sum(trace.type == "scattergl" for trace in figure.data) == len(METHODS), "each costs the browser time"
    # nothing is spelled out for each point that the browser can make by itself
    longest = max(len(text) for trace in json.loads(sent)["data"] for text in trace.get("text") or [""])
    assert longest < len("0.123456") + 1


def test_a_point_costs_the_same_number_of_bytes_whether_there_are_many_or_more() -> None:
    sizes = [
        len(pareto.figure(pareto.drawable(runs(n), "resistance", "utility")).to_json()) for n in (4_000, 8_000, 16_000)
    ]
    assert sizes[2] - sizes[1] == pytest.approx(2 * (sizes[1] - sizes[0]), rel=0.05)


def test_of_thousands_only_the_front_has_bars_and_the_selected_have_them_too() -> None:
    shown = pareto.drawable(runs(3_000), "resistance", "utility")
    figure = pareto.figure(shown, highlight=list(shown["run_id"][:3]))
    barred = [trace for trace in figure.data if trace.type != "scatter3d" and trace.error_x.array is not None]
    assert sum(len(trace.x) for trace in barred) == shown["on_front"].sum() + 3
    assert all(trace.marker.opacity == 1.0 for trace in barred if trace in points(figure))


def test_every_row_of_the_hover_is_filled_in_by_the_browser_from_numbers_that_differ() -> None:
    shown = pareto.drawable(runs(), "resistance", "utility")
    trace = next(trace for trace in points(pareto.figure(shown)) if trace.meta["method"] == "linear")
    lines = trace.hovertemplate.removesuffix("<extra></extra>").split("<br>")
    assert lines[0] == "<b>linear α=0.%{text}</b>" and len(lines) == 5
    assert lines[2].endswith(" n 72") and "%{customdata[1]:.3f}" in lines[2]
    assert np.asarray(trace.customdata).shape[1] == 6  # the row, two intervals, over-refusal: n is the same for all


def test_a_third_objective_keeps_runs_on_the_front_that_two_alone_would_dominate() -> None:
    two = pareto.drawable(runs(), "resistance", "utility")
    three = pareto.drawable(runs(), "resistance", "utility", "over_refusal")
    on_two, on_three = (set(shown.loc[shown["on_front"], "run_id"]) for shown in (two, three))
    assert on_two < on_three
    worst = three[~three["on_front"]].iloc[0]
    better = three[
        (three["resistance"] >= worst["resistance"])
        & (three["utility"] >= worst["utility"])
        & (three["over_refusal"] <= worst["over_refusal"])
    ]
    assert len(better) > 1, "what is dominated is dominated by another run in all three"


def test_the_third_measure_is_a_colour_that_says_which_end_is_good_and_no_line_joins_that_front() -> None:
    shown = pareto.drawable(runs(), "resistance", "utility", "over_refusal")
    figure = pareto.figure(shown, z="over_refusal")
    assert figure.layout.coloraxis.colorbar.title.text == "← Over-refusal (lower is better)"
    assert not figure.layout.coloraxis.reversescale
    colours = {
        run: value
        for trace in points(figure)
        for run, value in zip(trace.customdata[:, 0], trace.marker.color, strict=True)
    }
    assert colours[0] == pytest.approx(shown["over_refusal"][0])
    assert not [trace for trace in figure.data if trace.mode == "lines"]
    assert len({trace.marker.symbol for trace in points(figure)}) == len(METHODS), "the symbol still says the method"


@pytest.mark.parametrize("n", [40, 3_000])
def test_in_space_the_third_measure_is_an_axis(n: int) -> None:
    shown = pareto.drawable(runs(n), "resistance", "utility", "over_refusal")
    figure = pareto.figure(shown, z="over_refusal", space=True, marks={shown["run_id"][0]: "B"})
    assert {trace.type for trace in figure.data} == {"scatter3d"}
    assert figure.layout.scene.zaxis.title.text.startswith("← Over-refusal")
    assert sum(len(trace.z) for trace in points(figure)) == n


def test_a_method_can_have_a_front_of_its_own_in_its_own_colour() -> None:
    shown = pareto.drawable(runs(), "resistance", "utility")
    own = [trace for trace in pareto.figure(shown, method_fronts=True).data if "front_of" in (trace.meta or {})]
    assert {trace.meta["front_of"] for trace in own} == set(METHODS)
    linear = next(trace for trace in own if trace.meta["front_of"] == "linear")
    assert linear.line.color == "#0072B2"
    assert list(linear.y) == sorted(linear.y, reverse=True)
    on_it = shown[shown["method"].eq("linear") & shown["resistance"].isin(linear.x)]
    assert len(on_it) == len(linear.x)
    assert not [trace for trace in pareto.figure(shown).data if "front_of" in (trace.meta or {})]


def test_runs_measured_on_another_task_have_a_front_of_their_own() -> None:
    other = runs(utility_suite="instructions", utility=0.99, resistance=0.99, run_id=[f"o{n}" for n in range(40)])
    shown = pareto.drawable(pd.concat([runs(), other]), "resistance", "utility")
    alone = pareto.drawable(runs(), "resistance", "utility")
    facts = shown[shown["utility_suite"].eq("facts") & shown["on_front"]]
    assert set(facts["run_id"]) == set(alone.loc[alone["on_front"], "run_id"])


def test_a_lasso_selects_what_is_inside_it_and_travels_as_text() -> None:
    triangle = Lasso.parse("0,0,1,0,0,1")
    x, y = np.array([0.1, 0.9, 0.6]), np.array([0.1, 0.9, 0.3])
    assert triangle.contains(x, y).tolist() == [True, False, True]
    assert Lasso.parse(str(triangle)) == triangle
    concave = Lasso.parse("0,0,1,0,1,1,0.5,0.1,0,1")
    assert concave.contains(np.array([0.5, 0.1]), np.array([0.5, 0.5])).tolist() == [False, True]
    shown = pareto.drawable(runs(), "resistance", "utility")
    chosen = pareto.select(shown, "resistance", "utility", area=Lasso.parse("0,0,0.5,0,0.5,2,0,2"))
    assert set(chosen["run_id"]) == set(shown.loc[shown["resistance"] < 0.5, "run_id"])


def test_a_box_and_the_lasso_around_it_select_the_same() -> None:
    shown = pareto.drawable(runs(400), "resistance", "utility")
    box, lasso = Box.parse("0.2,0.7,0.3,0.9"), Lasso.parse("0.2,0.3,0.7,0.3,0.7,0.9,0.2,0.9")
    inside = [set(pareto.select(shown, "resistance", "utility", area=area)["run_id"]) for area in (box, lasso)]
    assert inside[0] == inside[1] and inside[0]


def test_a_long_lasso_becomes_short_enough_for_a_link() -> None:
    turn = np.linspace(0, 2 * np.pi, 900)
    drawn = Lasso.through(list(np.cos(turn)), list(np.sin(turn)))
    assert len(drawn.corners) == CORNERS
    assert drawn.contains(np.array([0.0, 0.95]), np.array([0.0, 0.95])).tolist() == [True, False]


@pytest.mark.parametrize("text", ["", "1,2,3,4", "1,2,3,4,5,6,7", "0,0,1,0,0,nan", "a,b,c,d,e,f"])
def test_a_lasso_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Lasso.parse(text)


def beside(*parts: pd.DataFrame) -> pd.DataFrame:
    """Merges with U and S alone and the base, all measured alike, as `queries.pair_runs` gives them."""
    alone = [
        runs(1, method="adapter", pair="A5", run_id="u", resistance=0.0, over_refusal=0.0, utility=0.8),
        runs(1, method="adapter", pair="A7", run_id="s", resistance=1.0, over_refusal=1.0, utility=0.1),
        runs(1, method="base", pair="base", run_id="b", resistance=0.02, over_refusal=0.0, utility=0.2),
    ]
    found = pd.concat([*parts, *alone], ignore_index=True)
    own = found["setting"] if "setting" in found else pd.Series(None, index=found.index, dtype=object)
    return found.assign(setting=own.fillna(found["run_id"]), judge="refusal_regex", reported_table=None)


def measured_alike(frame: pd.DataFrame, key: str = "64 test prompts") -> pd.DataFrame:
    return frame.assign(comparable=key)


def test_every_pick_keeps_to_the_limits_and_is_marked_in_the_picture() -> None:
    rows = measured_alike(beside(runs(over_refusal=np.linspace(0.0, 0.9, 40))))
    choice = decide(rows)
    shown = pareto.drawable(rows, "resistance", "utility")
    found = standing.standing(shown, ("resistance", "utility"), choice)
    assert found is not None and set(found.picks) <= {"safety_first", "balanced", "utility_first"}
    assert found.picks and all(row["over_refusal"] <= 0.2 for row in found.picks.values())
    figure = pareto.figure(shown, marks=found.marks)
    marked = [trace for trace in figure.data if "marks" in (trace.meta or {})]
    for trace in marked:
        assert set(trace.meta["marks"]) <= set(found.marks)
    told = standing.picks_table(choice)
    assert f"(run?run={found.picks['balanced']['run_id']})" in told and "| Utility adapter |" in told
    assert "n = 72" in standing.picks_words(choice) and "of\N{NO-BREAK SPACE}U's" not in told
    kept = {
        choice.parents["utility"]["run_id"]: (1.0, np.nan, np.nan),
        found.picks["balanced"]["run_id"]: (0.83, 0.71, 0.95),
    }
    lines = standing.picks_table(choice, kept).splitlines()
    assert (
        lines[0].endswith("of\N{NO-BREAK SPACE}U's\N{NO-BREAK SPACE}↑ |")
        and len({line.count("|") for line in lines}) == 1
    )
    assert next(line for line in lines if "Balanced" in line).endswith("| 83% (71–95) |")
    assert next(line for line in lines if "Utility adapter" in line).endswith("| 100% |")


def test_where_no_run_keeps_to_the_limits_that_is_said_beside_the_nearest() -> None:
    rows = measured_alike(beside(runs(over_refusal=0.9)))
    choice = decide(rows, Limits(max_over_refusal=0.1, min_resistance=0.9))
    assert not choice.feasible
    assert "none, nearest" in standing.picks_table(choice)
    assert "none is feasible" in standing.picks_words(choice) or "No run keeps" in standing.picks_words(choice)


def test_a_run_on_eight_prompts_changes_no_pick_no_front_and_no_hypervolume() -> None:
    rows = measured_alike(beside(runs(over_refusal=np.linspace(0.0, 0.4, 40))))
    few = runs(1, resistance=1.0, utility=1.0, over_refusal=0.0, run_id="few", resistance_n=8, utility_n=8)
    few = measured_alike(few.assign(over_refusal_n=8, setting="few", judge="refusal_regex"), "8 test prompts")
    axes = ("resistance", "utility")
    both = pd.concat([rows, few], ignore_index=True)
    alone, joined = (standing.standing(pareto.drawable(frame, *axes), axes, decide(frame)) for frame in (rows, both))
    assert alone is not None and joined is not None
    assert (alone.marks, alone.front, alone.hypervolume) == (joined.marks, joined.front, joined.hypervolume)
    assert "1 run on other prompts (8 test prompts) not ranked" in standing.picks_words(joined.decision)


def test_a_choice_on_selection_is_told_on_test_where_it_must_keep_the_limits_too() -> None:
    test = runs(
        2, run_id=["t1", "t2"], setting=["one", "two"], resistance=[0.9, 0.6], over_refusal=[0.6, 0.1], utility=0.7
    )
    selection = test.assign(split="selection", run_id=["s1", "s2"], over_refusal=[0.1, 0.1], resistance=[0.9, 0.6])
    u = runs(
        1, method="adapter", pair="A5", run_id="us", split="selection", resistance=0.0, over_refusal=0.0, utility=0.8
    )
    rows = measured_alike(beside(test))
    there = measured_alike(pd.concat([selection, u.assign(setting="u")]).assign(judge="refusal_regex"), "32 selection")
    choice = decide(pd.concat([rows, there], ignore_index=True))
    told = choice.told["balanced"]
    assert choice.chosen_on == "selection" and told.keeps and told.row is not None
    assert told.row["run_id"] == "t2" and choice.missed["balanced"] == 1


def test_where_all_that_was_chosen_fails_on_test_no_other_is_chosen_on_test_instead() -> None:
    """Also with a setting that only selection has, and one that only test has and that would keep the limits there."""
    made = runs(2, run_id=["t1", "t2"], setting=["one", "two"], resistance=[0.9, 0.7], utility=0.7)
    test = made.assign(over_refusal=[0.6, 0.1])
    selection = made.assign(split="selection", run_id=["s1", "s3"], setting=["one", "three"], over_refusal=0.1)
    u = runs(1, method="adapter", pair="A5", run_id="us", setting="u", split="selection", resistance=0.0)
    there = pd.concat([selection, u.assign(over_refusal=0.0, utility=0.8)]).assign(judge="refusal_regex")
    rows = [measured_alike(beside(test)), measured_alike(there, "32 selection")]
    choice = decide(pd.concat(rows, ignore_index=True))
    told = choice.told["balanced"]
    assert choice.chosen_on == "selection" and not told.keeps and not choice.missed
    assert told.row is not None and told.row["run_id"] == "t1"


def test_what_is_enclosed_is_of_the_test_prompts_only() -> None:
    better = runs(split="selection", resistance=0.999, utility=0.999, run_id=[f"s{n}" for n in range(40)])
    axes = ("resistance", "utility")
    alone = standing.standing(pareto.drawable(runs(), *axes), axes, NOBODY)
    found = standing.standing(pareto.drawable(pd.concat([better, runs()]), *axes), axes, NOBODY)
    assert found is not None and alone is not None
    assert found.marks == alone.marks and found.hypervolume == alone.hypervolume
    assert found.words == "measured here, test prompts"


def test_the_hypervolume_is_that_of_the_rectangles_below_the_front() -> None:
    two = runs(2, resistance=[0.5, 1.0], utility=[0.8, 0.2], over_refusal=[0.5, 0.5])
    flat = standing.standing(pareto.drawable(two, "resistance", "utility"), ("resistance", "utility"), NOBODY)
    axes = ("resistance", "utility", "over_refusal")
    deep = standing.standing(pareto.drawable(two, *axes), axes, NOBODY)
    assert flat is not None and flat.hypervolume == pytest.approx(0.5 * 0.8 + 0.5 * 0.2)
    assert deep is not None and deep.hypervolume == pytest.approx(0.5 * (0.5 * 0.8 + 0.5 * 0.2))
    assert "(1 − Over-refusal)" in standing.volume_words(deep, axes, None)


def test_a_measure_without_a_worst_value_has_no_hypervolume() -> None:
    shown = pareto.drawable(runs(seconds=3.0), "resistance", "seconds")
    found = standing.standing(shown, ("resistance", "seconds"), NOBODY)
    assert found is not None and found.hypervolume is None
    assert standing.volume_words(found, ("resistance", "seconds"), None) == ""


def test_without_a_merge_there_is_nothing_to_pick() -> None:
    shown = pareto.drawable(runs(method="adapter"), "resistance", "utility")
    assert standing.standing(shown, ("resistance", "utility"), NOBODY) is None
