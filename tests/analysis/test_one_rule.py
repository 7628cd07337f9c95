"""Beside each other, a difference's interval and its p are both corrected, and say the same."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sstmerge_core.analysis import compare
from sstmerge_core.analysis.statistics import holm, paired_bootstrap, paired_p
from sstmerge_core.plots import compare as pictures


def test_an_interval_at_holms_level_leaves_out_zero_just_where_p_after_holm_is_below_a_twentieth():
    numbers = np.random.default_rng(0)
    pairs = [(numbers.normal(shift, 1, 60), numbers.normal(0, 1, 60)) for shift in np.linspace(0, 1, 12)]
    raw = np.array([paired_p(own, reference) for own, reference in pairs])
    after = holm(raw)
    said, told = [], []
    for (own, reference), p_value, p_holm in zip(pairs, raw, after, strict=True):
        level = compare.corrected_confidence(float(p_value), float(p_holm))
        found = paired_bootstrap(own, reference, confidence=level)
        said.append(not found.low <= 0 <= found.high)
        told.append(p_holm < compare.SIGNIFICANT)
    assert 0 < sum(told) < len(told), "some differ and some do not"
    edge = np.abs(after - compare.SIGNIFICANT) < 0.01  # where an expanded percentile and a count of resamples may part
    assert [a for a, near in zip(said, edge, strict=True) if not near] == [
        b for b, near in zip(told, edge, strict=True) if not near
    ]


@pytest.mark.parametrize(("p_value", "p_holm", "level"), [(0.01, 0.04, 0.9875), (0.02, 0.02, 0.95), (0.5, 1.0, 0.975)])
def test_the_level_follows_the_factor_by_which_holm_multiplies(p_value, p_holm, level):
    assert compare.corrected_confidence(p_value, p_holm) == pytest.approx(level)


def test_the_line_says_that_both_are_corrected_and_how_far():
    row = dict.fromkeys(compare.COLUMNS, np.nan) | {"metric": "resistance", "suite": "harmful", "letter": "B"}
    row |= {"value": 0.5, "low": 0.4, "high": 0.6, "n": 60, "n_shared": 60, "outcome": compare.BETTER}
    row |= {"difference": 0.2, "difference_low": 0.05, "difference_high": 0.35, "confidence": 0.9875}
    row |= {"p_value": 0.01, "p_holm": 0.04, "effect": 0.4, "effect_kind": "Cohen's h"}
    ((_, text),) = pictures.measure_tables(pd.DataFrame([row]))
    assert "| Difference, after Holm | p, after Holm |" in text
    assert "+0.200 [0.050,\u00a00.350]\u00a0at\u00a098.8\u00a0%" in text and "p\u00a0=\u00a00.040" in text
    assert pictures.csv(pd.DataFrame([row]), {"B": "run"})["confidence"].tolist() == [0.9875]
