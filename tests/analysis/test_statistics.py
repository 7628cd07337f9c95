from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from sstmerge_core.analysis.statistics import (
    Interval,
    bootstrap_mean,
    holm,
    mcnemar,
    newcombe,
    paired_bootstrap,
    ratio_bootstrap,
    wilson,
)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (1, 24), (36, 72), (72, 72)])
def test_wilson_agrees_with_scipy(successes: int, n: int) -> None:
    expected = stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert wilson(successes, n) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (-1, 3), (4, 3)])
def test_wilson_refuses_what_is_no_rate(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="not a rate"):
        wilson(successes, n)


def test_newcombe_gives_the_published_example() -> None:
    # Newcombe 1998, table II: 56/70 − 48/80, method 10
    found = newcombe(56 / 70, wilson(56, 70), 48 / 80, wilson(48, 80))
    assert found == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)


def test_the_bootstrap_repeats_itself_and_agrees_with_normal_theory() -> None:
    values = np.random.default_rng(1).random(100)
    first = bootstrap_mean(values)
    assert first == bootstrap_mean(values)
    half = 1.96 * values.std(ddof=1) / 10
    assert first == pytest.approx((values.mean() - half, values.mean() + half), abs=0.01)


def test_resampling_in_chunks_covers_every_resample() -> None:
    assert bootstrap_mean(np.full(1500, 0.25), resamples=3001) == Interval(0.25, 0.25)


def test_pairing_narrows_the_interval_of_a_difference() -> None:
    generator = np.random.default_rng(2)
    before = generator.random(80)
    after = before + 0.1 + 0.01 * generator.standard_normal(80)
    found = paired_bootstrap(after, before)
    assert found.mean == pytest.approx(0.1, abs=0.01)
    assert found.high - found.low < 0.01
    with pytest.raises(ValueError, match="same prompts"):
        paired_bootstrap(after, before[:-1])


def test_a_ratio_whose_denominator_may_be_zero_has_no_finite_end() -> None:
    low, high = ratio_bootstrap([0.1, 0.2, 0.1, 0.2], [1.0, 1.0, 0.9, 1.0])
    assert 0.09 < low < 0.16 < high < 0.23
    assert ratio_bootstrap([0.1, 0.2], [1.0, -1.0]).high == np.inf


def test_mcnemar_is_the_exact_binomial_test_of_the_prompts_on_which_two_runs_differ() -> None:
    first = [1] * 10 + [0] * 2 + [1] * 5 + [0] * 3
    second = [0] * 10 + [1] * 2 + [1] * 5 + [0] * 3
    found = mcnemar(first, second)
    assert (found.only_first, found.only_second) == (10, 2)
    assert found.p_value == pytest.approx(stats.binomtest(10, 12).pvalue)
    assert mcnemar(first, first).p_value == 1.0


def test_holm_steps_down_and_keeps_the_order_given() -> None:
    assert holm([0.04, 0.01, 0.03, 0.9]).tolist() == pytest.approx([0.09, 0.04, 0.09, 0.9])
