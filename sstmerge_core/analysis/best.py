"""Which methods are with the best, and which are shown worse: all compared at once, none singled out by the data.

Choosing the leader on the data and then testing it against the others calls some of 13 equal methods worse in 20 % of
cases. Here the intervals of every s_i − max over j ≠ i of s_j hold together (multiple comparisons with the best, Hsu
1984), from all pairs' differences resampled jointly. Hsu's own bound lets a method that equals the best be called not
the best; as "worse" is said here, the critical value is that of all pairs (Tukey), which errs in 5 % at most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import special

from sstmerge_core.analysis.effects import hedges_g, paired_d
from sstmerge_core.analysis.statistics import RESAMPLES, SEED, mean_over_seeds, resampled_columns

CONFIDENCE = 0.95
Array = NDArray[np.float64]


class Variance(NamedTuple):
    """Standard errors of a difference of two methods' means, by where they come from; NaN where one was not varied."""

    seeds: float
    prompts: float

    @property
    def words(self) -> str:
        parts = [("the seeds", self.seeds), ("the prompts", self.prompts)]
        known = [f"±{value:.3f} from {name}" for name, value in parts if not np.isnan(value)]
        return " and ".join(known)


class Best(NamedTuple):
    """Methods compared with the best of the others."""

    intervals: pd.DataFrame
    """A row a method, best first: method, value, difference (value − the greatest other), low, high, status (``best``,
    ``with the best``, ``worse``); the intervals hold together."""
    pairs: pd.DataFrame
    """A row for every two, the better first: first, second, difference, low, high, p_value, all adjusted together."""
    with_the_best: tuple[str, ...]
    worse: tuple[str, ...]
    best: str | None
    """The method that every other is shown worse than; None where none is"""
    sentence: str


class BestMethod(NamedTuple):
    summary: pd.DataFrame
    """A row a method, best mean first: method, n, mean, std, min, max, low, high (t interval over seeds)."""
    tests: pd.DataFrame
    """A row for every two methods, the better first: first, second, test, n, difference, low, high, p_value, p_holm,
    effect, effect_kind. Interval and both p-values are adjusted for all pairs together."""
    best: str | None
    """The method that every other is shown worse than; None where none is."""
    sentence: str
    with_the_best: tuple[str, ...] = ()
    """Those not shown worse than any other"""
    worse: tuple[str, ...] = ()
    variance: Variance = Variance(np.nan, np.nan)


def with_the_best(
    values: Mapping[str, float],
    resampled: Array,
    units: int,
    *,
    measure: str = "score",
    titles: Mapping[str, str] | None = None,
    confidence: float = CONFIDENCE,
) -> Best:
    """Compare every method with the best of the others; higher is better.

    `values`: method → figure; `resampled` (r, methods) the same in each resample, drawn jointly for all, of `units`
    prompts or topics. Pairs are studentised by their resamples' deviation; the critical value is the `confidence`
    quantile of the greatest of all pairs, taken to Student's t over the units. A pair that never differs is not told
    apart.
    """
    names = list(values)
    figures = np.array([values[name] for name in names])
    if len(names) < 2:
        return _alone(names, figures, measure, titles or {})
    return _compared(names, figures, resampled - resampled.mean(axis=0), units, measure, titles or {}, confidence)


def over_seeds(
    blocks: pd.DataFrame,
    resampled: Array,
    units: int,
    *,
    measure: str = "score",
    titles: Mapping[str, str] | None = None,
    confidence: float = CONFIDENCE,
) -> tuple[Best, Array]:
    """`with_the_best` of methods that were measured at several training seeds, and resamples of their means.

    `blocks` (seeds × methods) are the figures, higher is better; `resampled` (r, methods) their means over the seeds in
    each resample of the prompts. To what other prompts would have changed comes what other seeds would have
    (`seed_variance`): the resamples that come back, (r, methods), vary by both.
    """
    names = [str(name) for name in blocks.columns]
    means = blocks.to_numpy(dtype=np.float64).mean(axis=0)
    moved = _seed_deviations(blocks, len(resampled))[0] + resampled - resampled.mean(axis=0)
    return _compared(names, means, moved, units, measure, titles or {}, confidence), means + moved


def resampled_scores(
    tables: Mapping[str, pd.DataFrame],
    names: Sequence[str],
    score: Callable[[Mapping[str, Array]], Array],
    *,
    topics: Mapping[str, Sequence[str]] | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> tuple[dict[str, float], Array, int]:
    """Values, resamples (r, names) and units for `with_the_best`, of a score of several measures' means.

    `tables`: measure → prompts × names; `score` takes measure → means (r, names) and gives the scores (r, names).
    `topics`: measure → each prompt's topic, drawn whole.
    """
    means, moved, units = {}, {}, []
    for number, (measure, table) in enumerate(tables.items()):
        values = table[list(names)].to_numpy(dtype=np.float64)
        own = (topics or {}).get(measure)
        means[measure] = values.mean(axis=0)[None]
        moved[measure] = resampled_columns(values, resamples, seed + number, own)
        units.append(len(values) if own is None else len(set(own)))
    return dict(zip(names, score(means)[0].tolist(), strict=True)), score(moved), min(units)


def best_method(
    scores: pd.DataFrame,
    *,
    measure: str = "score",
    higher_is_better: bool = True,
    outcomes: Sequence[pd.DataFrame] = (),
    topics: Sequence[Sequence[str] | None] = (),
    titles: Mapping[str, str] | None = None,
    resamples: int = RESAMPLES,
) -> BestMethod:
    """Compare methods by `scores` with columns method, seed, value (one row a run).

    Seeds are blocks: a training seed makes all methods' adapters, so methods are paired within it, over the seeds that
    all of them have. `outcomes` are tables of prompts × methods, averaged over seeds, whose column means add up to the
    score (one for a single measure); with them the prompts' variance is added to that of the seeds, as other prompts
    would have given other figures. `topics`: of each table, its prompts' topics or None. Where seeds change nothing it
    is the prompts' alone; without either nothing is tested. Raises ValueError without scores.
    """
    if scores.empty:
        raise ValueError("there are no scores to compare")
    sign = 1.0 if higher_is_better else -1.0
    by_method = {str(name): rows["value"].to_numpy(dtype=float) for name, rows in scores.groupby("method", sort=True)}
    ranked = sorted(by_method, key=lambda name: -sign * by_method[name].mean())
    summary = pd.DataFrame([{"method": name, **_spread(by_method[name])} for name in ranked])
    own = titles or {}
    if len(ranked) < 2:
        found = _alone(ranked, np.array([by_method[name].mean() for name in ranked]), measure, own)
        return BestMethod(summary, pd.DataFrame(), None, found.sentence, found.with_the_best)
    blocks = _blocks(scores, ranked)
    complete = all(set(ranked) <= set(table.columns) for table in outcomes)
    tables = list(outcomes) if complete else []
    figures = sign * np.array([by_method[name].mean() for name in ranked])
    moved, units, variance = _moved(sign * blocks, tables, ranked, topics, resamples, sign)
    if moved is None:
        tests = pd.DataFrame([_untested(pair, by_method) for pair in combinations(ranked, 2)])
        title = own.get(ranked[0], ranked[0])
        figure = f"{title} has the best mean {measure}, {by_method[ranked[0]].mean():.3f}"
        reason = "nothing varies over seeds and there are no answers to resample"
        return BestMethod(summary, tests, None, f"No winner can be told: {figure}, but {reason}.", tuple(ranked))
    found = _compared(ranked, figures, moved, units, measure, own, CONFIDENCE, sign)
    tests = _tests(found, by_method, blocks, tables, variance, sign)
    sentence = f"{found.sentence} Standard error of a difference: {variance.words}."
    return BestMethod(summary, tests, found.best, sentence, found.with_the_best, found.worse, variance)


def seed_variance(blocks: pd.DataFrame) -> tuple[Array, int]:
    """Variance of each method's score from seed to seed, (methods,), in `blocks` (seeds × methods), and its degrees of
    freedom: 0 and 0 where nothing varies.

    Where seeds move every method, what they move in all alike is taken out: the mean square of methods × seeds
    (randomised blocks; Cochran & Cox 1957, §4.2), one for all. Where some are the same at every seed, as merges without
    chance in them, these have none and the others share the mean square within methods.
    """
    values = blocks.to_numpy(dtype=np.float64)
    seeds, varies = len(values), np.ptp(values, axis=0) > 1e-12 if len(values) else np.zeros(values.shape[1], bool)
    if seeds < 2 or not varies.any():
        return np.zeros(values.shape[1]), 0
    rest = (values - values.mean(axis=0))[:, varies]
    degrees = (seeds - 1) * int(varies.sum())
    if varies.all():
        rest = rest - rest.mean(axis=1, keepdims=True)
        degrees -= seeds - 1
    square = float((rest**2).sum() / degrees)
    return np.where(varies, square, 0.0), degrees if square > 1e-24 else 0


def _seed_deviations(blocks: pd.DataFrame, resamples: int) -> tuple[Array, Array | None]:
    """Deviations (resamples, methods) of the means over seeds of `blocks` (seeds × methods), and each method's variance
    from seed to seed; zeros and None where nothing varies."""
    variance, degrees = seed_variance(blocks)
    if not degrees:
        return np.zeros((resamples, blocks.shape[1])), None
    generator = np.random.default_rng(SEED)
    # Student's: normal deviations over a common chi, as the mean square stands for the variance
    chi = np.sqrt(generator.chisquare(degrees, size=(resamples, 1)) / degrees)
    normal = generator.standard_normal((resamples, blocks.shape[1]))
    return normal * np.sqrt(variance / len(blocks)) / chi, variance


def _blocks(scores: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Seeds × methods over the seeds that all methods have; one without a seed is the same at every seed."""
    seeded = scores[scores["seed"].notna()]
    table = seeded.pivot_table(index="seed", columns="method", values="value")
    for name in set(names) - set(table.columns):
        table[name] = scores.loc[scores["method"] == name, "value"].mean()
    return table[list(names)].dropna()


def _moved(
    blocks: pd.DataFrame,
    tables: list[pd.DataFrame],
    ranked: list[str],
    topics: Sequence[Sequence[str] | None],
    resamples: int,
    sign: float,
) -> tuple[Array | None, int, Variance]:
    """Deviations of the methods' means (resamples, methods) from seeds and prompts together, and of how many units."""
    moved, variance = _seed_deviations(blocks, resamples)
    seeds, prompts, units = np.nan, np.nan, 0
    pairs = list(combinations(range(len(ranked)), 2))
    if variance is not None:
        seeds = float(np.sqrt(np.mean([variance[i] + variance[j] for i, j in pairs]) / len(blocks)))
    counts = []
    drawn = np.zeros_like(moved)
    for number, table in enumerate(tables):
        own = topics[number] if number < len(topics) else None
        values = sign * table[ranked].to_numpy(dtype=np.float64)
        means = resampled_columns(values, resamples, SEED + number, own)
        drawn += means - means.mean(axis=0)
        counts.append(len(table) if own is None else len(set(own)))
    if counts:
        units = min(counts)
        prompts = float(np.sqrt(np.mean([(drawn[:, i] - drawn[:, j]).var() for i, j in pairs])))
    if np.isnan(seeds) and not prompts > 0:
        return None, 0, Variance(seeds, prompts)
    return moved + drawn, units, Variance(seeds, prompts)


def _compared(
    names: list[str],
    figures: Array,
    moved: Array,
    units: int,
    measure: str,
    titles: Mapping[str, str],
    confidence: float,
    sign: float = 1.0,
) -> Best:
    order = sorted(range(len(names)), key=lambda place: -figures[place])
    names, figures, moved = [names[place] for place in order], figures[order], moved[:, order]
    first, second = np.triu_indices(len(names), 1)
    strayed = moved[:, first] - moved[:, second]
    error = strayed.std(axis=0, ddof=1)
    varies = error > 1e-12
    ratios = np.abs(strayed[:, varies]) / error[varies]
    greatest = ratios.max(axis=1) if varies.any() else np.zeros(len(moved))
    critical = float(_student(np.quantile(greatest, confidence), units))
    differences = figures[first] - figures[second]
    half = critical * error
    shown = varies & (differences > half)
    reached = _normal(np.divide(np.abs(differences), error, out=np.zeros_like(differences), where=varies), units)
    p_values = (np.count_nonzero(greatest[:, None] >= reached[None], axis=0) + 1) / (len(moved) + 1)
    pairs = pd.DataFrame(
        {
            "first": [names[place] for place in first],
            "second": [names[place] for place in second],
            "difference": differences,
            "low": differences - half,
            "high": differences + half,
            "p_value": np.where(varies, np.minimum(p_values, 1.0), np.nan),
        }
    )
    worse = tuple(dict.fromkeys(name for name, yes in zip(pairs["second"], shown, strict=True) if yes))
    top = tuple(name for name in names if name not in worse)
    best = top[0] if len(top) == 1 and all(shown[first == 0]) else None
    rows = []
    for place, name in enumerate(names):
        # of every pair with this method, its own difference to the other
        signs = np.where(first == place, 1.0, np.where(second == place, -1.0, 0.0))
        own = signs != 0
        middle = (signs * differences)[own]
        status = "best" if name == best else "worse" if name in worse else "with the best"
        ends = (middle.min(), (middle - half[own]).min(), (middle + half[own]).min())
        rows.append((name, sign * figures[place], *map(float, ends), status))
    table = pd.DataFrame(rows, columns=["method", "value", "difference", "low", "high", "status"])
    return Best(table, pairs, top, worse, best, _sentence(table, pairs, top, worse, best, measure, titles))


def _student(normal: ArrayLike, units: int) -> Array:
    """The deviation by Student's t over `units` that is as rare as a `normal` one, in resamples' deviations.

    Resamples are as nearly normal as their units allow, and vary by (n − 1)/n of the variance.
    """
    given = np.asarray(normal, dtype=np.float64)
    if units < 2:
        return given
    return -special.stdtrit(units - 1, special.ndtr(-given)) * np.sqrt(units / (units - 1))


def _normal(student: Array, units: int) -> Array:
    """The inverse of `_student`."""
    if units < 2:
        return student
    return -special.ndtri(special.stdtr(units - 1, -student / np.sqrt(units / (units - 1))))


def _alone(names: list[str], figures: Array, measure: str, titles: Mapping[str, str]) -> Best:
    rows = [
        (name, float(value), np.nan, np.nan, np.nan, "with the best")
        for name, value in zip(names, figures, strict=True)
    ]
    table = pd.DataFrame(rows, columns=["method", "value", "difference", "low", "high", "status"])
    columns = ["first", "second", "difference", "low", "high", "p_value"]
    sentence = "There is nothing to compare."
    if names:
        told = f"{titles.get(names[0], names[0])} was measured ({measure} {figures[0]:.3f})"
        sentence = f"Only {told}: nothing to compare with."
    return Best(table, pd.DataFrame(columns=columns), tuple(names), (), None, sentence)


def _sentence(
    table: pd.DataFrame,
    pairs: pd.DataFrame,
    top: Sequence[str],
    worse: Sequence[str],
    best: str | None,
    measure: str,
    titles: Mapping[str, str],
) -> str:
    def title(name: str) -> str:
        return titles.get(name, name)

    leader = table.iloc[0]
    if best:
        others = f"each of the other {len(worse)} methods" if len(worse) > 1 else title(worse[0])
        p_value = pairs.loc[pairs["first"] == best, "p_value"].max()
        told = f"mean {measure} {leader['value']:.3f}, better than {others} (p ≤ {_up(p_value)}, all pairs together)"
        return f"{title(best)} is best: {told}."
    head = "No winner: the differences are within noise"
    if not worse:
        highest = f"{title(leader['method'])} has the highest mean {measure}, {leader['value']:.3f}"
        return f"{head}. {highest}, not shown better."
    among = _listed([title(name) for name in top])
    below = _listed([title(name) for name in worse])
    return f"{head} among {among} (highest mean {measure} {leader['value']:.3f}); shown worse: {below}."


def _listed(names: Sequence[str], most: int = 6) -> str:
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _tests(
    found: Best,
    by_method: Mapping[str, Array],
    blocks: pd.DataFrame,
    tables: list[pd.DataFrame],
    variance: Variance,
    sign: float,
) -> pd.DataFrame:
    over_seeds, over_prompts = not np.isnan(variance.seeds), not np.isnan(variance.prompts)
    parts = [name for name, known in (("seeds", over_seeds), ("prompts", over_prompts)) if known]
    rows = []
    for row in _records(found.pairs):
        ours, theirs = by_method[row["first"]], by_method[row["second"]]
        low, high = (row["low"], row["high"]) if sign > 0 else (-row["high"], -row["low"])
        effect, kind = (hedges_g(ours, theirs), "Hedges' g") if over_seeds else (np.nan, "")
        if not over_seeds and len(tables) == 1:
            effect, kind = paired_d(tables[0][row["first"]], tables[0][row["second"]]), "paired d"
        rows.append(
            {
                "first": row["first"],
                "second": row["second"],
                "difference": float(ours.mean() - theirs.mean()),
                "test": f"all pairs, paired over {' and '.join(parts)}",
                "n": len(blocks) if over_seeds else sum(len(table) for table in tables),
                "low": low,
                "high": high,
                "p_value": row["p_value"],
                "effect": np.nan if effect is None else effect,
                "effect_kind": kind,
                "p_holm": row["p_value"],
            }
        )
    return pd.DataFrame(rows)


def _untested(pair: tuple[str, str], by_method: Mapping[str, Array]) -> dict[str, Any]:
    nothing = dict.fromkeys(("low", "high", "p_value", "effect", "p_holm"), np.nan)
    difference = float(by_method[pair[0]].mean() - by_method[pair[1]].mean())
    found = {"first": pair[0], "second": pair[1], "test": "none: no variance over seeds", "n": 0}
    return found | {"difference": difference, "effect_kind": ""} | nothing


def _spread(values: Array) -> dict[str, float]:
    try:
        low, high = mean_over_seeds(values)
    except ValueError:
        low = high = np.nan
    std = float(values.std(ddof=1)) if len(values) > 1 else np.nan
    ends = {"min": float(values.min()), "max": float(values.max())}
    return {"n": len(values), "mean": float(values.mean()), "std": std, **ends, "low": low, "high": high}


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _up(p_value: float) -> str:
    """Rounded up to three decimals, so that ``p ≤`` holds."""
    return f"{max(np.ceil(p_value * 1000) / 1000, 0.001):.3f}"
