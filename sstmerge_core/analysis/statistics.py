"""Intervals and tests for rates and means over prompts, and over seeds. Everything random has a fixed seed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

RESAMPLES = 10_000
SEED = 20_240_817
_CHUNK = 2_000_000
"""Resampled indices held at once: 16 MB."""


class Interval(NamedTuple):
    low: float
    high: float


class Difference(NamedTuple):
    """Mean of own − reference and its interval."""

    mean: float
    low: float
    high: float


class McNemar(NamedTuple):
    only_first: int
    """Prompts on which only the first run succeeded."""
    only_second: int
    p_value: float


class Welch(NamedTuple):
    """Mean of own − reference over seeds, its interval, and the test of whether it is 0."""

    mean: float
    low: float
    high: float
    t: float
    df: float
    p_value: float


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson score interval of the rate successes/n (Wilson 1927). Raises ValueError where that is no rate."""
    if not 0 <= successes <= n or n == 0:
        raise ValueError(f"{successes} of {n} is not a rate")
    z = stats.norm.ppf(0.5 + confidence / 2)
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # the ends are exact where no, or every, trial succeeded; rounding would move them by an ulp
    low = 0.0 if successes == 0 else float(centre - half)
    return Interval(low, 1.0 if successes == n else float(centre + half))


def newcombe(rate: float, interval: Interval, reference: float, reference_interval: Interval) -> Difference:
    """Difference of two independent rates, from their Wilson intervals (Newcombe 1998, method 10)."""
    difference = rate - reference
    below = np.hypot(rate - interval.low, reference_interval.high - reference)
    above = np.hypot(interval.high - rate, reference - reference_interval.low)
    return Difference(difference, float(difference - below), float(difference + above))


def bootstrap_mean(
    values: ArrayLike, resamples: int = RESAMPLES, seed: int = SEED, confidence: float = 0.95
) -> Interval:
    """Percentile bootstrap interval of the mean of `values` (n,). Raises ValueError for none."""
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or not len(data):
        raise ValueError("needs a list of at least one number")
    tail = (1 - confidence) / 2
    low, high = np.quantile(_resampled_means(data, resamples, seed), [tail, 1 - tail])
    return Interval(float(low), float(high))


def paired_bootstrap(
    own: ArrayLike, reference: ArrayLike, resamples: int = RESAMPLES, seed: int = SEED, confidence: float = 0.95
) -> Difference:
    """Mean difference of two runs over the same prompts, in the same order (n,), with its bootstrap interval."""
    first, second = np.asarray(own, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError("both runs need the same prompts")
    difference = first - second
    low, high = bootstrap_mean(difference, resamples, seed, confidence)
    return Difference(float(difference.mean()), low, high)


def paired_p(own: ArrayLike, reference: ArrayLike, resamples: int = RESAMPLES, seed: int = SEED) -> float:
    """Two-sided p-value of the mean difference over the same prompts (n,), from the resamples of `paired_bootstrap`."""
    difference = np.asarray(own, dtype=np.float64) - np.asarray(reference, dtype=np.float64)
    return beyond_zero(_resampled_means(difference, resamples, seed))


def beyond_zero(resampled: NDArray[np.float64]) -> float:
    """Two-sided bootstrap p-value: twice the share of resampled differences (n,) on the rarer side of 0, 0 included."""
    beyond = min(np.count_nonzero(resampled <= 0), np.count_nonzero(resampled >= 0)) + 1
    return float(min(1.0, 2 * beyond / (len(resampled) + 1)))


def ratio_bootstrap(
    numerators: ArrayLike,
    denominators: ArrayLike,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    confidence: float = 0.95,
) -> Interval:
    """Bootstrap interval of mean(numerators)/mean(denominators), two independent samples (n,) and (m,).

    A resample whose denominator is not positive counts as infinite, so an end may be.
    """
    upper = _resampled_means(np.asarray(numerators, dtype=np.float64), resamples, seed)
    lower = _resampled_means(np.asarray(denominators, dtype=np.float64), resamples, seed + 1)
    ratios = np.full(resamples, np.inf)
    np.divide(upper, lower, out=ratios, where=lower > 0)
    tail = (1 - confidence) / 2
    # "nearest" never averages a finite number with infinity
    low, high = np.quantile(ratios, [tail, 1 - tail], method="nearest")
    return Interval(float(low), float(high))


def mcnemar(first: Sequence[int | bool], second: Sequence[int | bool]) -> McNemar:
    """Exact McNemar test of two runs' successes on the same prompts, in the same order (two-sided binomial)."""
    one, two = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if one.shape != two.shape:
        raise ValueError("both runs need the same prompts")
    only_first, only_second = int((one & ~two).sum()), int((two & ~one).sum())
    discordant = only_first + only_second
    p_value = float(stats.binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0
    return McNemar(only_first, only_second, p_value)


def welch(own: ArrayLike, reference: ArrayLike, confidence: float = 0.95) -> Welch:
    """Welch's t test of two methods' scores over seeds, (n,) and (m,), two-sided (Welch 1947).

    Raises ValueError for fewer than two seeds a side, and where neither side varies: a merge that its seed does not
    change has no variance to test with.
    """
    first, second = (np.asarray(scores, dtype=np.float64) for scores in (own, reference))
    if min(first.size, second.size) < 2:
        raise ValueError("Welch's test needs at least two seeds a side")
    if np.ptp(first) == 0 and np.ptp(second) == 0:
        raise ValueError("neither side varies over its seeds")
    found = stats.ttest_ind(first, second, equal_var=False)
    interval = found.confidence_interval(confidence)
    mean = float(first.mean() - second.mean())
    return Welch(
        mean, float(interval.low), float(interval.high), float(found.statistic), float(found.df), float(found.pvalue)
    )


def mean_over_seeds(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Student's t interval of the mean over seeds (n,). Raises ValueError for fewer than two or no variance."""
    data = np.asarray(values, dtype=np.float64)
    if data.size < 2 or np.ptp(data) == 0:
        raise ValueError("an interval over seeds needs at least two different scores")
    half = stats.t.ppf(0.5 + confidence / 2, data.size - 1) * data.std(ddof=1) / np.sqrt(data.size)
    return Interval(float(data.mean() - half), float(data.mean() + half))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """p-values adjusted for testing all of them together (Holm 1979), in the order given."""
    given = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(given, kind="stable")
    stepped = np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1))
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def resampled_columns(table: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """Column means (resamples, runs) of `table` (prompts, runs), its rows drawn with replacement, the same for all."""
    prompts = len(table)
    step = max(1, _CHUNK // prompts)
    # how often each prompt is drawn: one product instead of a table of prompts × runs a resample
    parts = [
        _draws(prompts, min(step, resamples - start), seed, start) @ table / prompts
        for start in range(0, resamples, step)
    ]
    return np.concatenate(parts)


@lru_cache(maxsize=4)
def _draws(prompts: int, resamples: int, seed: int, start: int) -> NDArray[np.float64]:
    """How often each of `prompts` is in each resample (resamples, prompts); one report asks for the same many times."""
    rows = np.random.default_rng((seed, start)).integers(prompts, size=(resamples, prompts))
    rows += np.arange(resamples)[:, None] * prompts
    return np.bincount(rows.ravel(), minlength=resamples * prompts).reshape(resamples, prompts).astype(np.float64)


def p_text(p_value: float) -> str:
    """``0.034``, ``< 0.001``, an en dash where there is none."""
    return "–" if np.isnan(p_value) else "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _resampled_means(values: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    generator = np.random.default_rng(seed)
    n = len(values)
    rows = max(1, _CHUNK // n)
    return np.concatenate(
        [
            values[generator.integers(n, size=(min(rows, resamples - start), n))].mean(axis=1)
            for start in range(0, resamples, rows)
        ]
    )
