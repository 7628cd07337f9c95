from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sstmerge_core.analysis.tax import (
    Curve,
    Matched,
    SafetyTax,
    composite,
    distance_to_ideal,
    matched_tax,
    pareto_distance,
    safety_tax,
    safety_tax_reduction,
    utility_at,
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


def straight(slope: float, loss: float, n: int = 400) -> Curve:
    """Resistance and utility along α 0, 0.25 … 1, in exact shares of n prompts."""
    ease, alphas = (np.arange(n) + 0.5) / n, np.linspace(0, 1, 5)
    resistance = np.column_stack([ease < slope * alpha for alpha in alphas]).astype(float)
    utility = np.column_stack([np.full(n, 0.6 - loss * alpha) for alpha in alphas])
    return Curve(pd.DataFrame(resistance), pd.DataFrame(utility))


def test_at_one_resistance_the_method_that_loses_less_there_has_the_lower_tax() -> None:
    curves = {"linear": straight(0.8, 0.4), "other": straight(0.8, 0.2)}
    found = matched_tax(curves, [0.6] * 400, [0.0] * 400, 0.4, resamples=300)
    tax, reduction = found["other"]
    assert tax.value == pytest.approx(0.1 / 0.4, abs=0.005) and reduction.value == pytest.approx(50.0)
    assert tax.low is not None and tax.high is not None and tax.low < 0.25 < tax.high
    assert found["linear"][1].value == pytest.approx(0.0)


def test_a_resistance_that_a_curve_does_not_reach_has_no_tax() -> None:
    found = matched_tax({"linear": straight(0.8, 0.4), "weak": straight(0.3, 0.1)}, [0.6] * 400, [0.0] * 400, 0.5)
    assert found["weak"] == (Matched(None, None, None), Matched(None, None, None))
    assert found["linear"][0].value is not None


def test_a_resistance_that_some_resamples_only_reach_has_an_open_end() -> None:
    found = matched_tax({"linear": straight(0.5, 0.2, n=40)}, [0.6] * 40, [0.0] * 40, 0.5, resamples=300)["linear"][0]
    assert found.value is not None and found.high is None


def test_utility_is_read_between_the_strengths_and_dips_of_noise_do_not_count() -> None:
    resistance, utility = np.array([[0.0, 0.4, 0.3, 0.8]]), np.array([[0.6, 0.5, 0.4, 0.3]])
    # made to rise: 0, 0.35, 0.35, 0.8
    assert utility_at(resistance, utility, 0.575)[0] == pytest.approx(0.35)
    assert np.isnan(utility_at(resistance, utility, 0.9)).all() and np.isnan(utility_at(resistance + 0.5, utility, 0.2))
