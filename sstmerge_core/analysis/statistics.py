"""Intervals and tests for rates and means over prompts, and over seeds. Everything random has a fixed seed.

Prompts of one topic resemble each other. Where `clusters` (each prompt's topic, (n,)) is given, topics are drawn and
all their prompts with them; the number of topics then is what an interval's degrees of freedom come from. How often
every interval here covers is measured by ``python -m benchmarks.simulate``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

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
    found = _wilson(successes / n, n, confidence)
    # the ends are exact where no, or every, trial succeeded; rounding would move them by an ulp
    return Interval(0.0 if successes == 0 else found.low, 1.0 if successes == n else found.high)


def rate_interval(outcomes: ArrayLike, clusters: ArrayLike | None = None, confidence: float = 0.95) -> Interval:
    """Interval of the rate of `outcomes` (n,) of 0 and 1: Wilson's; with `clusters` at the effective number of prompts.

    That is n ÷ the design effect (how much more the rate varies than that of independent prompts, at least 1), with
    Student's t over the clusters in place of the normal quantile (Korn & Graubard 1998). Raises ValueError for none.
    """
    data = np.asarray(outcomes, dtype=np.float64)
    n, successes = len(data), round(float(data.sum()))
    if clusters is None or not 0 < successes < n:
        return wilson(successes, n, confidence)
    variance, units = covariance_of_means(data[:, None], clusters)
    if units < 2:
        return Interval(0.0, 1.0)
    rate = successes / n
    effect = max(1.0, float(variance[0, 0]) * (n - 1) / (rate * (1 - rate)))
    stretched = float(special.stdtrit(units - 1, 0.5 + confidence / 2) / special.ndtri(0.5 + confidence / 2)) ** 2
    effective = n / (effect * stretched if effect > 1 else 1.0)
    return _wilson(rate, effective, confidence)


def newcombe(rate: float, interval: Interval, reference: float, reference_interval: Interval) -> Difference:
    """Difference of two independent rates, from their Wilson intervals (Newcombe 1998, method 10)."""
    difference = rate - reference
    below = np.hypot(rate - interval.low, reference_interval.high - reference)
    above = np.hypot(interval.high - rate, reference - reference_interval.low)
    return Difference(difference, float(difference - below), float(difference + above))


def bootstrap_mean(
    values: ArrayLike,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    confidence: float = 0.95,
    clusters: ArrayLike | None = None,
) -> Interval:
    """Bootstrap interval of the mean of `values` (n,): `percentiles` of its resamples. Raises ValueError for none."""
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or not len(data):
        raise ValueError("needs a list of at least one number")
    return percentiles(_resampled_means(data, resamples, seed, clusters), count_units(data, clusters), confidence)


def percentiles(resampled: NDArray[np.float64], units: int, confidence: float = 0.95) -> Interval:
    """The middle `confidence` of resampled figures (r,), widened for `units` drawn: prompts, or clusters of them.

    Percentiles alone are too narrow for few units: they lack the factor √(n/(n−1)) and Student's t. The tail is
    Φ(−t·√(n/(n−1))) instead (Hesterberg 2015, expanded percentile interval). Infinite figures are never averaged.
    """
    tail = _tail(units, confidence)
    low, high = np.quantile(resampled, [tail, 1 - tail], method="linear" if np.isfinite(resampled).all() else "nearest")
    return Interval(float(low), float(high))


def paired_bootstrap(
    own: ArrayLike,
    reference: ArrayLike,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    confidence: float = 0.95,
    clusters: ArrayLike | None = None,
) -> Difference:
    """Mean difference of two runs over the same prompts, in the same order (n,), with its bootstrap interval."""
    first, second = np.asarray(own, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError("both runs need the same prompts")
    difference = first - second
    low, high = bootstrap_mean(difference, resamples, seed, confidence, clusters)
    return Difference(float(difference.mean()), low, high)


def paired_p(
    own: ArrayLike,
    reference: ArrayLike,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    clusters: ArrayLike | None = None,
) -> float:
    """Two-sided p-value of the mean difference over the same prompts (n,), from the resamples of `paired_bootstrap`.

    With `clusters` it is `student_p`: counting resamples knows nothing of how few clusters there are.
    """
    difference = np.asarray(own, dtype=np.float64) - np.asarray(reference, dtype=np.float64)
    resampled = _resampled_means(difference, resamples, seed, clusters)
    if clusters is None:
        return beyond_zero(resampled)
    return student_p(float(difference.mean()), resampled, count_units(difference, clusters))


def beyond_zero(resampled: NDArray[np.float64]) -> float:
    """Two-sided bootstrap p-value: twice the share of resampled differences (n,) on the rarer side of 0, 0 included."""
    beyond = min(np.count_nonzero(resampled <= 0), np.count_nonzero(resampled >= 0)) + 1
    return float(min(1.0, 2 * beyond / (len(resampled) + 1)))


def student_p(value: float, resampled: NDArray[np.float64], units: int) -> float:
    """Two-sided p-value of `value` being 0, by Student's t over `units` with the deviation of its resamples (r,).

    Where nothing varies between units, that of the exact sign test of as many.
    """
    if units < 2 or value == 0:
        return 1.0
    error = float(resampled.std(ddof=1)) * np.sqrt(units / (units - 1))
    if error < 1e-12:
        return float(2.0 ** (1 - units))
    return float(2 * special.stdtr(units - 1, -abs(value) / error))


def ratio_bootstrap(
    numerators: ArrayLike,
    denominators: ArrayLike,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    confidence: float = 0.95,
    numerator_clusters: ArrayLike | None = None,
    denominator_clusters: ArrayLike | None = None,
) -> Interval:
    """Bootstrap interval of mean(numerators)/mean(denominators), two independent samples (n,) and (m,).

    A resample whose denominator is not positive counts as infinite, so an end may be.
    """
    upper = _resampled_means(np.asarray(numerators, dtype=np.float64), resamples, seed, numerator_clusters)
    lower = _resampled_means(np.asarray(denominators, dtype=np.float64), resamples, seed + 1, denominator_clusters)
    ratios = np.full(resamples, np.inf)
    np.divide(upper, lower, out=ratios, where=lower > 0)
    units = min(count_units(numerators, numerator_clusters), count_units(denominators, denominator_clusters))
    return percentiles(ratios, units, confidence)


def paired_ratio(
    numerators: ArrayLike, denominators: ArrayLike, clusters: ArrayLike | None = None, confidence: float = 0.95
) -> Interval:
    """Interval of mean(numerators)/mean(denominators) over the same prompts, both (n,): Fieller's (1954).

    The ratios ρ at which the mean of numerator − ρ·denominator is not told from 0 by Student's t over the prompts, or
    clusters. Both ends are infinite where the denominator itself is not told from 0. Raises ValueError for different
    prompts or fewer than two units.
    """
    upper, lower = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    if upper.shape != lower.shape:
        raise ValueError("both need the same prompts")
    covariance, units = covariance_of_means(np.column_stack([upper, lower]), clusters)
    if units < 2:
        raise ValueError("a ratio's interval needs at least two prompts or clusters")
    quantile = float(special.stdtrit(units - 1, 0.5 + confidence / 2))
    return fieller(float(upper.mean()), float(lower.mean()), covariance, quantile)


def fieller(a: float, b: float, covariance: NDArray[np.float64], quantile: float) -> Interval:
    """The ratios ρ at which a − ρ·b is within `quantile` standard errors of 0 (Fieller 1954), `covariance` (2, 2) being
    that of a and b; infinite ends where b itself is."""
    t2 = quantile**2
    square, half, rest = b * b - t2 * covariance[1, 1], a * b - t2 * covariance[0, 1], a * a - t2 * covariance[0, 0]
    if square <= 0:
        return Interval(-np.inf, np.inf)
    root = np.sqrt(max(half * half - square * rest, 0.0))
    return Interval(float((half - root) / square), float((half + root) / square))


def covariance_of_means(
    table: NDArray[np.float64], clusters: ArrayLike | None = None
) -> tuple[NDArray[np.float64], int]:
    """Covariance (k, k) of the column means of `table` (n, k), and of how many units it is: rows, or clusters of them.

    With clusters it is the linearised one of a ratio Σ values ÷ Σ sizes (Cochran 1977, §9A). One unit gives NaN.
    """
    centred = table - table.mean(axis=0)
    sums = centred if clusters is None else _sums(centred, _codes(clusters, len(table)))
    units = len(sums)
    factor = units / (units - 1) if units > 1 else np.nan
    return factor * (sums.T @ sums) / len(table) ** 2, units


def usable_clusters(topics: Iterable[Any]) -> list[str] | None:
    """Prompts' topics (n,) as clusters; None where they say nothing.

    That is where some are empty, all are one, or each has one prompt.
    """
    found = [topic if isinstance(topic, str) else "" for topic in topics]
    return found if all(found) and 1 < len(set(found)) < len(found) else None


def count_units(values: ArrayLike, clusters: ArrayLike | None = None) -> int:
    """How many units are drawn: values (n,), or clusters of them."""
    return len(np.asarray(values)) if clusters is None else len(np.unique(np.asarray(clusters)))


def mcnemar(first: Sequence[int | bool], second: Sequence[int | bool]) -> McNemar:
    """Exact McNemar test of two runs' successes on the same prompts, in the same order (two-sided binomial)."""
    from scipy import stats  # a second of the server's start

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
    from scipy import stats  # a second of the server's start

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
    half = special.stdtrit(data.size - 1, 0.5 + confidence / 2) * data.std(ddof=1) / np.sqrt(data.size)
    return Interval(float(data.mean() - half), float(data.mean() + half))


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """p-values adjusted for testing all of them together (Holm 1979), in the order given."""
    given = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(given, kind="stable")
    stepped = np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1))
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def resampled_columns(
    table: NDArray[np.float64], resamples: int, seed: int, clusters: ArrayLike | None = None
) -> NDArray[np.float64]:
    """Column means (resamples, runs) of `table` (prompts, runs), its rows drawn with replacement, the same for all."""
    sums, sizes = table, None
    if clusters is not None:
        codes = _codes(clusters, len(table))
        sums, sizes = _sums(table, codes), np.bincount(codes).astype(np.float64)
    units = len(sums)
    step = max(1, _CHUNK // units)
    # how often each unit is drawn: one product instead of a table of prompts × runs a resample
    parts = []
    for start in range(0, resamples, step):
        drawn = _draws(units, min(step, resamples - start), seed, start)
        parts.append(drawn @ sums / (units if sizes is None else (drawn @ sizes)[:, None]))
    return np.concatenate(parts)


@lru_cache(maxsize=4)
def _draws(prompts: int, resamples: int, seed: int, start: int) -> NDArray[np.float64]:
    """How often each of `prompts` is in each resample (resamples, prompts); one report asks for the same many times."""
    rows = np.random.default_rng((seed, start)).integers(prompts, size=(resamples, prompts))
    rows += np.arange(resamples)[:, None] * prompts
    return np.bincount(rows.ravel(), minlength=resamples * prompts).reshape(resamples, prompts).astype(np.float64)


def p_text(p_value: float | None) -> str:
    """``0.034``, ``< 0.001``, an en dash where there is none: of NaN, which is None in the JSON of a result."""
    return "–" if p_value is None or np.isnan(p_value) else "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def _resampled_means(
    values: NDArray[np.float64], resamples: int, seed: int, clusters: ArrayLike | None = None
) -> NDArray[np.float64]:
    if clusters is not None:
        return resampled_columns(values[:, None], resamples, seed, clusters)[:, 0]
    generator = np.random.default_rng(seed)
    n = len(values)
    rows = max(1, _CHUNK // n)
    return np.concatenate(
        [
            values[generator.integers(n, size=(min(rows, resamples - start), n))].mean(axis=1)
            for start in range(0, resamples, rows)
        ]
    )


def _tail(units: int, confidence: float) -> float:
    tail = (1 - confidence) / 2
    if units < 2:
        return tail
    return float(special.ndtr(special.stdtrit(units - 1, tail) * np.sqrt(units / (units - 1))))


def _wilson(rate: float, n: float, confidence: float) -> Interval:
    z = special.ndtri(0.5 + confidence / 2)
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return Interval(float(centre - half), float(centre + half))


def _codes(clusters: ArrayLike, prompts: int) -> NDArray[np.intp]:
    given = np.asarray(clusters)
    if given.shape != (prompts,):
        raise ValueError(f"{given.size} clusters were given for {prompts} prompts")
    return np.unique(given, return_inverse=True)[1].reshape(-1)


def _sums(table: NDArray[np.float64], codes: NDArray[np.intp]) -> NDArray[np.float64]:
    """Of each cluster the sum of its rows, (clusters, runs)."""
    sums = np.zeros((int(codes.max()) + 1, table.shape[1]))
    np.add.at(sums, codes, table)
    return sums
