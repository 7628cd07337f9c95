"""The short form of ``python -m benchmarks.simulate``: how often intervals hold and false statements are made."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.simulate import Case, cases, rates, simulate, table, utilities

CASES = [case for case in cases(resamples=150) if not case.known]
TRIALS = 250


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name}; {case.data}")
def test_intervals_hold_and_statements_are_false_as_often_as_they_say(case: Case) -> None:
    found = simulate(case, TRIALS, seed=1)
    assert found.within, f"{found.share:.3f} of {found.trials}"


def test_simulated_answers_have_the_expected_means_and_the_topics_effect() -> None:
    generator = np.random.default_rng(0)
    for kind in (rates, utilities):
        values, codes = kind(generator, np.array([0.2, 0.7]), 4_000, 4)
        assert values.mean(axis=0) == pytest.approx([0.2, 0.7], abs=0.01)
        by_topic = values.reshape(-1, 4, 2).mean(axis=1)
        effect = by_topic.var(axis=0) / (values.var(axis=0) / 4)
        assert ((effect > 1.15) & (effect < 1.55)).all() and len(set(codes)) == 4_000


def test_the_table_says_what_left_its_range_and_why() -> None:
    always = Case("an interval", "some data", lambda generator: False)
    page = table([simulate(always, 100)], 100)
    assert "| an interval | some data | covers 0.0 % (0.0–3.7) | 100 | **outside** |" in page
