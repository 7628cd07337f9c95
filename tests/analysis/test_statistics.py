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
    paired_ratio,
    rate_interval,
    ratio_bootstrap,
    resampled_columns,
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


def test_topics_are_drawn_whole() -> None:
    values, topics = np.repeat([0.0, 1.0] * 8, 4), np.repeat(np.arange(16), 4)
    alone, whole = bootstrap_mean(values), bootstrap_mean(values, clusters=topics)
    assert whole.high - whole.low > 1.8 * (alone.high - alone.low)
    moved = resampled_columns(np.column_stack([values, values]), 50, 1, topics)
    assert (moved[:, 0] == moved[:, 1]).all() and set(np.round(moved[:, 0] * 16, 9)) <= set(range(17))


def test_topics_of_different_sizes_weigh_as_many_prompts_as_they_have() -> None:
    values, topics = np.array([1.0, 1.0, 1.0, 0.0]), ["a", "a", "a", "b"]
    assert set(np.round(resampled_columns(values[:, None], 200, 3, topics)[:, 0], 6)) == {0.0, 0.75, 1.0}
    with pytest.raises(ValueError, match="3 clusters were given for 4 prompts"):
        bootstrap_mean(values, clusters=topics[:3])


def test_few_values_widen_the_interval() -> None:
    values = np.random.default_rng(7).normal(size=6)
    low, high = bootstrap_mean(values)
    plain = 1.96 * values.std() / np.sqrt(6)
    student = stats.t.ppf(0.975, 5) * values.std(ddof=1) / np.sqrt(6)
    assert plain < (high - low) / 2 and (high - low) / 2 == pytest.approx(student, rel=0.2)


def test_a_rate_over_topics_is_that_of_fewer_prompts() -> None:
    same, topics = np.repeat([0.0, 1.0] * 8, 4), np.repeat(np.arange(16), 4)
    low, high = rate_interval(same, topics)
    assert high - low > 1.8 * (wilson(32, 64).high - wilson(32, 64).low)
    mixed = np.tile([0.0, 1.0], 32)
    assert rate_interval(mixed, topics) == pytest.approx(wilson(32, 64))
    assert rate_interval(np.zeros(64), topics) == wilson(0, 64) and rate_interval(mixed) == wilson(32, 64)


def test_the_ratio_of_paired_means_is_fiellers() -> None:
    generator = np.random.default_rng(4)
    own = generator.uniform(0.2, 1.0, 40)
    part = 0.7 * own + generator.normal(0, 0.05, 40)
    low, high = paired_ratio(part, own)
    assert low < part.mean() / own.mean() < high
    for end in (low, high):  # where Student's t of part − end·own is just at its quantile
        rest = part - end * own
        t = rest.mean() / (rest.std(ddof=1) / np.sqrt(40))
        assert abs(t) == pytest.approx(stats.t.ppf(0.975, 39))
    assert paired_ratio([1.0, 1.0, 1.0], [0.1, -0.1, 0.05]) == Interval(-np.inf, np.inf)
    with pytest.raises(ValueError, match="same prompts"):
        paired_ratio(part, own[:-1])
