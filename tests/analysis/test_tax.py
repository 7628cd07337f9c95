from __future__ import annotations

import pytest

from sstmerge_core.analysis.tax import (
    SafetyTax,
    composite,
    distance_to_ideal,
    pareto_distance,
    safety_tax,
    safety_tax_reduction,
    weighted_score,
)
from sstmerge_core.errors import RecipeError


def test_the_guides_check_value_comes_out_and_is_then_refused_for_its_range() -> None:
    assert weighted_score(1.0092, 0.8449, 0.1783) == pytest.approx(0.7060, abs=5e-5)
    assert distance_to_ideal(1.0092, 0.8449) == pytest.approx(0.1554, abs=5e-5)
    with pytest.raises(RecipeError, match="safety.*outside 0 to 1"):
        composite(1.0092, 0.8449, SafetyTax(0.1783, "ok"))
    with pytest.raises(RecipeError, match="safety.*outside 0 to 1"):
        pareto_distance(1.0092, 0.8449)


@pytest.mark.parametrize(
    ("before", "after", "interval", "expected"),
    [
        ((0.9, 0.2), (0.8, 0.7), (0.4, 0.6), (0.2, "ok")),
        ((0.9, 0.2), (0.95, 0.7), (0.4, 0.6), (0.0, "free")),
        ((0.9, 0.2), (0.9, 0.2), None, (None, "no_gain")),
        ((0.9, 0.2), (0.95, 0.1), None, (None, "no_gain")),
        ((0.9, 0.2), (0.8, 0.1), None, (None, "dominated")),
        ((0.9, 0.2), (0.8, 0.25), (-0.05, 0.15), (None, "gain_uncertain")),
        ((0.9, 0.2), (0.95, 0.25), (-0.05, 0.15), (None, "gain_uncertain")),
    ],
)
def test_a_tax_has_a_value_only_where_safety_was_gained(before, after, interval, expected) -> None:
    found = safety_tax(before[0], after[0], before[1], after[1], interval)
    assert found.status == expected[1]
    assert found.value == (None if expected[0] is None else pytest.approx(expected[0]))


def test_an_undefined_tax_counts_as_one_in_the_composite_and_a_large_one_is_clipped() -> None:
    assert composite(0.5, 0.5, SafetyTax(None, "no_gain")) == pytest.approx(0.2)
    assert composite(0.5, 0.5, SafetyTax(3.0, "ok")) == pytest.approx(0.2)
    assert composite(0.5, 0.5, SafetyTax(0.0, "free")) == pytest.approx(0.4)


def test_the_reduction_is_in_percent_of_linears_tax() -> None:
    assert safety_tax_reduction(SafetyTax(0.1, "ok"), SafetyTax(0.4, "ok")) == pytest.approx(75.0)
    assert safety_tax_reduction(SafetyTax(None, "no_gain"), SafetyTax(0.4, "ok")) is None
    assert safety_tax_reduction(SafetyTax(0.1, "ok"), SafetyTax(0.0, "free")) is None
