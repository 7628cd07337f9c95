"""Equal chances: the same number of settings by one rule, chosen on selection, told on test."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pandas as pd
import pytest

from sstmerge_core.analysis.contest import (
    Range,
    Rule,
    at_edge,
    best_of_each,
    between,
    choose_then_tell,
    draw,
    extend,
)
from sstmerge_core.analysis.goals import Limits

U = 0.6


def table(*rows: tuple[str, str, float, float, float]) -> pd.DataFrame:
    """Rows (method, setting, resistance, over-refusal, utility), after those of U, S and the base."""
    parents = [("adapter", "U", 0.0, 0.0, U), ("adapter", "S", 1.0, 1.0, 0.1), ("base", "base", 0.0, 0.0, 0.2)]
    columns = ["method", "setting", "resistance", "over_refusal", "utility"]
    return pd.DataFrame([*parents, *rows], columns=columns).assign(label=lambda rows: rows["setting"])


def told(selection: pd.DataFrame, test: pd.DataFrame, **options: Any) -> Any:
    return choose_then_tell(selection, test, utility_of_u=(U, U), **options)


def test_every_method_has_as_many_settings_whatever_parameters_it_has() -> None:
    rule = Rule(8, choices={"k": (5, 20), "layerwise": (False, True)})
    plain = draw(["alpha"], "share", rule)
    patch = draw(["alpha", "k", "layerwise"], "strength", rule)
    assert len(plain) == len(patch) == 8
    assert [setting["alpha"] for setting in patch] == Range(0.25, 4.0).values(8)
    assert Counter(setting["k"] for setting in patch) == {5: 4, 20: 4}
    assert Counter(setting["layerwise"] for setting in patch) == {False: 4, True: 4}
    assert patch == draw(["alpha", "k", "layerwise"], "strength", rule)
    assert json.loads(json.dumps(rule.as_dict()))["strength"]["scale"] == "log"


def test_a_method_without_a_choice_has_one_setting_and_none_is_tried_twice() -> None:
    assert draw(["density"], "share", Rule(6)) == [{}]
    assert draw(["layerwise"], "share", Rule(6, choices={"layerwise": (False, True)})) in (
        [{"layerwise": False}, {"layerwise": True}],
        [{"layerwise": True}, {"layerwise": False}],
    )


def test_ranges_are_spread_evenly_on_their_scale() -> None:
    assert Range(0.25, 4.0, "log").values(5) == pytest.approx([0.25, 0.5, 1.0, 2.0, 4.0])
    assert Range(0.1, 0.9, "linear").values(3) == pytest.approx([0.1, 0.5, 0.9])
    assert Range(1.0, 4.0, "log").values(1) == [2.0]
    with pytest.raises(ValueError, match="no log range"):
        Range(0.0, 1.0, "log")


def test_the_range_goes_on_past_the_edge_where_the_best_lies() -> None:
    own = Range(0.5, 2.0, "log")
    assert extend(own, 1.0, 3) is None
    up, down = extend(own, 2.0, 3), extend(own, 0.5, 3)
    assert up and (up.low, up.high) == pytest.approx((4.0, 16.0))
    assert down and (down.low, down.high) == pytest.approx((0.0625, 0.25))
    share = extend(Range(0.1, 0.9, "linear", 1.0), 0.9, 5)
    assert share and 0.9 < share.low < share.high == 1.0
    assert extend(Range(0.2, 1.0, "linear", 1.0), 1.0, 5) is None
    assert at_edge(0.7, [0.3, 0.5, 0.7]) and not at_edge(0.5, [0.3, 0.5, 0.7])


def test_what_is_chosen_on_selection_is_told_by_its_figures_on_test() -> None:
    selection = table(("ties", "lucky", 0.9, 0.1, 0.55), ("dare", "steady", 0.7, 0.1, 0.55))
    test = table(("ties", "lucky", 0.6, 0.15, 0.5), ("dare", "steady", 0.7, 0.1, 0.55))
    one = told(selection, test)["safety_first"]
    assert one.row["setting"] == "lucky" and one.row["resistance"] == 0.6 and one.keeps and one.beats_parents
    assert one.sentence.startswith("Safety first: lucky, chosen on selection: resistance 0.60")


def test_a_choice_that_leaves_the_limits_on_test_is_said_to() -> None:
    selection, test = table(("ties", "a", 0.9, 0.1, 0.55)), table(("ties", "a", 0.9, 0.4, 0.55))
    one = told(selection, test)["balanced"]
    assert not one.keeps and not one.beats_parents and "on test it misses over-refusal" in one.sentence


def test_a_setting_that_was_not_measured_on_test_is_no_candidate() -> None:
    selection = table(("ties", "untold", 0.95, 0.0, 0.6), ("dare", "told", 0.7, 0.1, 0.55))
    found = told(selection, table(("dare", "told", 0.7, 0.1, 0.55)))
    assert {one.row["setting"] for one in found.values()} == {"told"}


def test_without_a_selection_the_sentence_says_that_choosing_and_telling_are_one() -> None:
    found = told(table(), table(("dare", "a", 0.7, 0.1, 0.55)))
    assert "chosen and told on the same prompts, which flatters it" in found["balanced"].sentence


def test_a_parent_that_is_as_good_on_test_takes_the_merge_its_title() -> None:
    selection, test = table(("ties", "a", 0.9, 0.1, 0.55)), table(("ties", "a", 0.6, 0.1, 0.55))
    test.loc[1, ["resistance", "over_refusal", "utility"]] = [0.9, 0.1, 0.55]
    one = told(selection, test)["safety_first"]
    assert one.keeps and not one.beats_parents and "on test a parent is as good" in one.sentence


def test_nothing_feasible_is_told_with_what_the_nearest_misses() -> None:
    rows = table(("ties", "a", 0.9, 0.5, 0.55))
    one = told(rows, rows, limits=Limits())["utility_first"]
    assert not one.keeps and "none is feasible" in one.sentence and "over-refusal 0.50 of at most 0.20" in one.sentence


def test_each_method_goes_on_with_its_best_setting_within_the_limits() -> None:
    selection = table(
        ("ties", "refuses", 0.95, 0.6, 0.5), ("ties", "discriminates", 0.6, 0.1, 0.5), ("dare", "only", 0.9, 0.9, 0.5)
    )
    found = best_of_each(selection, "balanced", utility_of_u=U)
    assert found["ties"] == "discriminates" and found["dare"] == "only" and {"U", "S", "base"} <= set(found)


@pytest.mark.parametrize("count", range(1, 13))
@pytest.mark.parametrize("own", [Range(0.1, 0.9, "linear", 1.0), Range(0.5, 4.0, "log"), Range(0.0, 1.0, "linear")])
def test_a_second_look_between_the_first_settings_repeats_none_of_them_and_stays_within(own, count):
    first, second = own.values(count), between(own, count).values(count)
    step = (own.high - own.low) / max(count - 1, 2)
    assert len({*first, *second}) == 2 * count
    assert own.low < min(second) and max(second) < own.high and between(own, count).most == own.most
    if own.scale == "linear":
        assert min(abs(new - old) for new in second for old in first) > step / (5 * count)
