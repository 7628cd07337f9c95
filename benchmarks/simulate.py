"""How often the intervals and statements of the product are right, on data whose truth is known.

    python -m benchmarks.simulate [--trials 1000] [--write docs/statistics.md]

Answers are simulated as they are seen: prompts that are easy or hard for every run alike, topics that share a part of
it (design effect 1.25 to 1.5 with four prompts a topic), rates of 0 and 1, utilities between. Each line tells the share
of trials in which an interval held the truth (nominal 95 %), or a false statement was made (at most 5 %).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from sstmerge_core.analysis import best, fronts, tax
from sstmerge_core.analysis import statistics as intervals
from sstmerge_core.analysis.fronts import Axis

Array = NDArray[np.float64]
Generator = np.random.Generator
TOPIC, OWN_TOPIC, EASE = 0.10, 0.06, 0.45
"""Of a prompt's variance: what its topic makes in all runs, and in one; what the prompt itself makes in all runs"""
SPREAD = 1.2
"""Of a utility's probit over prompts: a standard deviation of 0.27 about 0.5"""
COVERS, ERRS = (0.93, 0.97), 0.05


@dataclass(frozen=True)
class Case:
    """One line of the table. `trial` gives whether the interval held the truth, or the statement was false; None where
    the product makes none."""

    name: str
    data: str
    trial: Callable[[Generator], bool | None]
    error: bool = False
    """A false statement, at most 5 %; otherwise an interval's coverage, 93 to 97 %"""
    cost: int = 1
    """A trial's in units of the cheapest: that many times fewer are made"""
    known: str = ""
    """Why it may leave its range; it then is told, not failed"""


@dataclass(frozen=True)
class Found:
    case: Case
    share: float
    trials: int

    @property
    def within(self) -> bool:
        """Whether the share is in its range, but for what so few trials cannot tell (99 % interval)."""
        low, high = intervals.wilson(round(self.share * self.trials), self.trials, 0.99)
        return low <= ERRS if self.case.error else low <= COVERS[1] and high >= COVERS[0]


def latent(generator: Generator, runs: int, topics: int, each: int) -> tuple[Array, NDArray[np.intp]]:
    """Standard normal (prompts, runs) with the topics' and prompts' shares of variance, and each prompt's topic."""
    sizes = (topics, each, runs)
    parts = [
        (TOPIC, generator.standard_normal((topics, 1, 1))),
        (OWN_TOPIC, generator.standard_normal((topics, 1, runs))),
        (EASE, generator.standard_normal((topics, each, 1))),
        (1 - TOPIC - OWN_TOPIC - EASE, generator.standard_normal(sizes)),
    ]
    total = sum(np.sqrt(share) * values for share, values in parts)
    return np.broadcast_to(total, sizes).reshape(-1, runs), np.repeat(np.arange(topics), each)


def rates(generator: Generator, means: Array, topics: int = 64, each: int = 1) -> tuple[Array, NDArray[np.intp]]:
    """Answers of 0 and 1 (prompts, runs) with these expected rates."""
    values, codes = latent(generator, len(means), topics, each)
    return (values < stats.norm.ppf(means)).astype(float), codes


def utilities(generator: Generator, means: Array, topics: int = 64, each: int = 1) -> tuple[Array, NDArray[np.intp]]:
    """Scores between 0 and 1 (prompts, runs) with these expected means."""
    values, codes = latent(generator, len(means), topics, each)
    middle = stats.norm.ppf(means) * np.sqrt(1 + SPREAD**2)
    return stats.norm.cdf(middle + SPREAD * values), codes


def holds(ends: tuple[float, float], truth: float) -> bool:
    return bool(ends[0] <= truth <= ends[1])


def cases(resamples: int = 1_000) -> Iterator[Case]:
    """Every interval and statement that the product prints."""
    yield from _rate_cases()
    yield from _mean_cases(resamples)
    yield from _difference_cases(resamples)
    yield from _front_cases(min(resamples, 400))
    yield from _tax_cases(resamples)
    yield from _best_cases(resamples)


def _rate_cases() -> Iterator[Case]:
    def wilson(n: int) -> Callable[[Generator], bool]:
        def trial(generator: Generator) -> bool:
            rate = generator.uniform(0.05, 0.95)
            return holds(intervals.wilson(int(generator.binomial(n, rate)), n), rate)

        return trial

    def by_topic(clustered: bool) -> Callable[[Generator], bool]:
        def trial(generator: Generator) -> bool:
            rate = generator.uniform(0.1, 0.9)
            values, codes = rates(generator, np.array([rate]), 16, 4)
            return holds(intervals.rate_interval(values[:, 0], codes if clustered else None), rate)

        return trial

    yield Case("rate, Wilson", "64 prompts, no topics", wilson(64))
    yield Case("rate, Wilson", "24 prompts, no topics", wilson(24))
    unaware = "takes prompts of one topic for independent: give `clusters`"
    yield Case("rate, Wilson", "64 prompts in 16 topics", by_topic(False), known=unaware)
    yield Case("rate, Wilson by topic", "64 prompts in 16 topics", by_topic(True))


def _mean_cases(resamples: int) -> Iterator[Case]:
    def mean(topics: int, each: int, clustered: bool) -> Callable[[Generator], bool]:
        def trial(generator: Generator) -> bool:
            truth = generator.uniform(0.2, 0.8)
            values, codes = utilities(generator, np.array([truth]), topics, each)
            found = intervals.bootstrap_mean(
                values[:, 0], resamples, _seed(generator), clusters=codes if clustered else None
            )
            return holds(found, truth)

        return trial

    yield Case("mean, bootstrap", "64 prompts, no topics", mean(64, 1, False), cost=2)
    yield Case("mean, bootstrap", "10 prompts, no topics", mean(10, 1, False), cost=2)
    unaware = "takes prompts of one topic for independent: give `clusters`"
    yield Case("mean, bootstrap", "64 prompts in 16 topics", mean(16, 4, False), cost=2, known=unaware)
    yield Case("mean, bootstrap by topic", "64 prompts in 16 topics", mean(16, 4, True), cost=2)
    yield Case("mean, bootstrap by topic", "32 prompts in 8 topics", mean(8, 4, True), cost=2)

    def over_seeds(generator: Generator) -> bool:
        return holds(intervals.mean_over_seeds(generator.normal(1.2, 0.15, size=3)), 1.2)

    yield Case("mean over seeds, Student's t", "3 seeds", over_seeds)

    def retention(topics: int, each: int) -> Callable[[Generator], bool]:
        def trial(generator: Generator) -> bool:
            means = np.array([generator.uniform(0.2, 0.65), 0.6])
            values, codes = utilities(generator, means, topics, each)
            found = intervals.paired_ratio(values[:, 0], values[:, 1], None if each == 1 else codes)
            return holds(found, means[0] / means[1])

        return trial

    yield Case("retention, Fieller", "64 prompts, no topics", retention(64, 1))
    yield Case("retention, Fieller by topic", "64 prompts in 16 topics", retention(16, 4))
    yield Case("retention, Fieller", "20 experts", retention(20, 1))
    yield Case("retention, Fieller", "8 experts", retention(8, 1))


def _difference_cases(resamples: int) -> Iterator[Case]:
    def newcombe(generator: Generator) -> bool:
        first, second = generator.uniform(0.05, 0.95, size=2)
        one, other = (int(generator.binomial(64, rate)) for rate in (first, second))
        found = intervals.newcombe(one / 64, intervals.wilson(one, 64), other / 64, intervals.wilson(other, 64))
        return holds(found[1:], first - second)

    yield Case("difference of rates, Newcombe", "2 × 64 prompts", newcombe)

    def paired(kind: Callable[..., tuple[Array, NDArray[np.intp]]], each: int) -> Callable[[Generator], bool]:
        def trial(generator: Generator) -> bool:
            means = generator.uniform(0.15, 0.85, size=2)
            values, codes = kind(generator, means, 64 // each, each)
            own = None if each == 1 else codes
            found = intervals.paired_bootstrap(values[:, 0], values[:, 1], resamples, _seed(generator), clusters=own)
            return holds(found[1:], means[0] - means[1])

        return trial

    yield Case("paired difference of rates, bootstrap", "64 prompts, no topics", paired(rates, 1), cost=2)
    yield Case("paired difference of rates, by topic", "64 prompts in 16 topics", paired(rates, 4), cost=2)
    yield Case("paired difference of means, bootstrap", "64 prompts, no topics", paired(utilities, 1), cost=2)
    yield Case("paired difference of means, by topic", "64 prompts in 16 topics", paired(utilities, 4), cost=2)

    def said(topics: int, each: int, clustered: bool) -> Callable[[Generator], bool]:
        def trial(generator: Generator) -> bool:
            values, codes = rates(generator, np.repeat(generator.uniform(0.15, 0.85), 2), topics, each)
            if not clustered:
                return intervals.mcnemar(list(values[:, 0] == 1), list(values[:, 1] == 1)).p_value < ERRS
            first, second = values[:, 0], values[:, 1]
            return intervals.paired_p(first, second, resamples, _seed(generator), clusters=codes) < ERRS

        return trial

    name = "two rates said to differ, by topic"
    yield Case(name, "64 prompts in 16 topics", said(16, 4, True), error=True, cost=2)
    yield Case(name, "32 prompts in 8 topics", said(8, 4, True), error=True, cost=2)
    yield Case("two rates said to differ, McNemar", "64 prompts, no topics", said(64, 1, False), error=True, cost=2)


def trade_off(strengths: Array) -> Array:
    """Expected resistance, 1 − over-refusal and utility (settings, 3) along a method's strength, 0 to 1."""
    return np.column_stack([strengths, 1 - 0.5 * strengths**2, 0.65 - 0.45 * strengths**2])


def measured(generator: Generator, means: Array, names: list[str], topics: int, each: int) -> list[Axis]:
    """The axes of settings with these expected figures (settings, 2 or 3); retention is of U, whose utility is 0.65."""
    own = []
    for axis in range(means.shape[1]):
        last = axis == 2
        given = np.append(means[:, axis], 0.65) if last else means[:, axis]
        values, codes = (utilities if last or (means.shape[1] == 2 and axis == 1) else rates)(
            generator, given, topics, each
        )
        table = pd.DataFrame(values, columns=[*names, "U"] if last else names)
        own.append(Axis(table, codes.tolist() if each > 1 else None, "U" if last else None))
    return own


def _front_cases(resamples: int) -> Iterator[Case]:
    def drawn(generator: Generator, kind: str, count: int, axes: int) -> Array:
        strengths = {
            "equal": np.full(count, 0.6),
            "grid": np.linspace(0.1, 0.9, count),
            "random": generator.uniform(0.05, 0.95, count),
        }[kind]
        return trade_off(strengths)[:, [0, 2] if axes == 2 else [0, 1, 2]]

    def volume(kind: str, count: int, axes: int, topics: int, each: int) -> Callable[[Generator], bool]:
        def trial(generator: Generator) -> bool:
            means, names = drawn(generator, kind, count, axes), [f"r{place}" for place in range(count)]
            own = measured(generator, means, names, topics, each)
            truth = means / [1.0, 1.0, 0.65][:axes] if axes == 3 else means
            found = fronts.hypervolume_interval(own, names, resamples=resamples, seed=_seed(generator))
            return holds(found[1:], fronts.hypervolume(truth))

        return trial

    for axes in (2, 3):
        for kind, count in (("equal", 18), ("grid", 8), ("random", 6), ("equal", 3)):
            yield Case(
                f"hypervolume, {axes} axes",
                f"{count} {kind} settings, 64 prompts in 16 topics",
                volume(kind, count, axes, 16, 4),
                cost=10 if axes == 2 else 25,
            )
    yield Case("hypervolume, 2 axes", "8 grid settings, 64 prompts, no topics", volume("grid", 8, 2, 64, 1), cost=10)

    def null(counts: tuple[int, int], axes: int) -> Callable[[Generator], bool]:
        def trial(generator: Generator) -> bool:
            names = [f"r{place}" for place in range(sum(counts))]
            own = measured(generator, drawn(generator, "random", sum(counts), axes), names, 16, 4)
            groups = {"A": names[: counts[0]], "B": names[counts[0] :]}
            found = fronts.compare_fronts(own, groups, resamples=resamples, seed=_seed(generator))
            return bool(found["answer"].iloc[0] == "yes")

        return trial

    for counts in ((18, 3), (6, 6)):
        for axes in (2, 3):
            data = f"{counts[0]} against {counts[1]} settings of one quality, {axes} axes"
            yield Case(
                "one front said to be above another", data, null(counts, axes), error=True, cost=8 if axes == 2 else 15
            )


def _tax_cases(resamples: int) -> Iterator[Case]:
    def ratio(each: int) -> Callable[[Generator], bool | None]:
        def trial(generator: Generator) -> bool | None:
            gain, loss = generator.uniform(0.3, 0.8), generator.uniform(0.1, 0.3)
            safety, codes = rates(generator, np.array([0.05, 0.05 + gain]), 64 // each, each)
            utility, _ = utilities(generator, np.array([0.6, 0.6 - loss]), 64 // each, each)
            gains, losses = safety[:, 1] - safety[:, 0], utility[:, 0] - utility[:, 1]
            own = None if each == 1 else codes
            spread = intervals.bootstrap_mean(gains, resamples, _seed(generator), clusters=own)
            told = tax.safety_tax(0.0, -float(losses.mean()), 0.0, float(gains.mean()), spread)
            if told.status != "ok":
                return None
            found = intervals.ratio_bootstrap(
                losses, gains, resamples, _seed(generator), numerator_clusters=own, denominator_clusters=own
            )
            return holds(found, loss / gain)

        return trial

    yield Case("Safety Tax, bootstrap", "64 + 64 prompts", ratio(1), cost=4)
    yield Case("Safety Tax, bootstrap by topic", "64 + 64 prompts, 16 topics each", ratio(4), cost=4)
    strengths = np.linspace(0, 1, 7)

    def matched(which: int) -> Callable[[Generator], bool | None]:
        def trial(generator: Generator) -> bool | None:
            at = 0.45
            resistance = np.concatenate([[0.02], 0.02 + 0.9 * strengths[1:], 0.02 + 0.8 * strengths[1:]])
            lost = (0.35, 0.2)
            utility = np.concatenate([[0.6], *(0.6 - loss * strengths[1:] for loss in lost)])
            safety, codes = rates(generator, np.clip(resistance, 0, 0.98), 16, 4)
            scores, _ = utilities(generator, utility, 16, 4)
            curves = {
                name: tax.Curve(pd.DataFrame(safety[:, [0, *own]]), pd.DataFrame(scores[:, [0, *own]]))
                for name, own in (("linear", range(1, 7)), ("other", range(7, 13)))
            }
            found = tax.matched_tax(
                curves, scores[:, 0].tolist(), safety[:, 0].tolist(), at, topics=(codes.tolist(), codes.tolist()),
                resamples=300, seed=_seed(generator),
            )["other"][which]  # fmt: skip
            if found.value is None:
                return None
            gain = at - 0.02
            taxes = [loss * gain / slope / gain for loss, slope in zip(lost, (0.9, 0.8), strict=True)]
            truth = taxes[1] if which == 0 else 100 * (1 - taxes[1] / taxes[0])
            low, high = (end if end is not None else side for end, side in ((found.low, -np.inf), (found.high, np.inf)))
            return holds((low, high), truth)

        return trial

    yield Case("Safety Tax at matched resistance", "7 strengths, 64 + 64 prompts by topic", matched(0), cost=4)
    yield Case("its reduction against linear's", "7 strengths, 64 + 64 prompts by topic", matched(1), cost=4)


def _best_cases(resamples: int) -> Iterator[Case]:
    def compared(count: int, judged: Callable[[best.Best], bool], each: int = 4) -> Callable[[Generator], bool]:
        def trial(generator: Generator) -> bool:
            names = [f"m{place}" for place in range(count)]
            safety, codes = rates(generator, np.full(count, 0.6), 64 // each, each)
            refused, _ = rates(generator, np.full(count, 0.2), 64 // each, each)
            tables = {"s": pd.DataFrame(safety, columns=names), "o": pd.DataFrame(refused, columns=names)}
            topics = dict.fromkeys(tables, codes.tolist())
            own = best.resampled_scores(
                tables, names, lambda means: means["s"] - means["o"],
                topics=topics, resamples=resamples, seed=_seed(generator),
            )  # fmt: skip
            return judged(best.with_the_best(*own))

        return trial

    def covered(found: best.Best) -> bool:
        return bool(((found.intervals["low"] <= 0) & (found.intervals["high"] >= 0)).all())

    for count in (8, 13):
        data = f"{count} equal methods, J over 64 + 64 prompts by topic"
        yield Case("best against the others, all intervals", data, compared(count, covered), cost=6)
        yield Case("some method said to be worse", data, compared(count, lambda one: bool(one.worse)), True, 6)
        yield Case("some method said to be best", data, compared(count, lambda one: bool(one.best)), True, 6)

    def seeds(judged: Callable[[best.BestMethod], bool], prompts: bool) -> Callable[[Generator], bool]:
        def trial(generator: Generator) -> bool:
            names = [f"m{place}" for place in range(8)]
            base, own = generator.normal(0, 0.1, (3, 1)), generator.normal(0, 0.06, (3, 8))
            quality = stats.norm.ppf(0.6) + (base + own) * 2.5
            values, _ = latent(generator, 8, 64, 1)
            answered = [(values < row).astype(float) for row in quality]
            means = np.array([table.mean(axis=0) for table in answered])
            rows = [(name, 42 + seed, means[seed, at]) for seed in range(3) for at, name in enumerate(names)]
            tables = [pd.DataFrame(np.mean(answered, axis=0), columns=names)] if prompts else []
            scores = pd.DataFrame(rows, columns=["method", "seed", "value"])
            return judged(best.best_method(scores, outcomes=tables, resamples=resamples))

        return trial

    for what, judged in (("worse", lambda one: bool(one.worse)), ("best", lambda one: bool(one.best))):
        data = "8 equal methods, 3 training seeds, 64 prompts"
        yield Case(f"some method said to be {what}, over seeds and prompts", data, seeds(judged, True), True, 6)
    unaware = "other prompts are not spoken of: give `outcomes`"
    data = "8 equal methods, 3 training seeds, the same 64 prompts"
    yield Case(
        "some method said to be worse, over seeds alone",
        data,
        seeds(lambda one: bool(one.worse), False),
        True,
        6,
        unaware,
    )


def simulate(case: Case, trials: int, seed: int = 0) -> Found:
    """The share of trials in which a case's interval held, or its statement was false; none made are left out."""
    number = max(trials // case.cost, 50)
    made = [case.trial(np.random.default_rng((seed, place))) for place in range(number)]
    told = [one for one in made if one is not None]
    if not told:
        raise ValueError(f"{case.name}: nothing was told in {number} trials")
    return Found(case, float(np.mean(told)), len(told))


HEAD = """# How often the intervals are right

Simulated, as nobody knows the truth of measured runs. Made by `python -m benchmarks.simulate --trials {trials} --write
docs/statistics.md`, which prints the same lines and fails where one leaves its range; a short form is among the tests.

An interval's coverage should be 93 to 97 % (nominal 95 %), a false statement at most 5 % of trials. Beside each share
stands its own 95 % interval, as so many trials can tell it. Answers are simulated as they are seen: prompts easy or
hard for every run alike, four prompts a topic, a design effect of 1.25 to 1.3 for rates and 1.4 to 1.5 for utilities.

| what | data | share | trials | |
|---|---|---:|---:|---|
"""


def table(found: list[Found], trials: int) -> str:
    """The Markdown page."""
    lines = []
    for one in found:
        low, high = intervals.wilson(round(one.share * one.trials), one.trials)
        share = f"{100 * one.share:.1f} % ({100 * low:.1f}–{100 * high:.1f})"
        kind = "false" if one.case.error else "covers"
        note = one.case.known or ("" if one.within else "**outside**")
        lines.append(f"| {one.case.name} | {one.case.data} | {kind} {share} | {one.trials:,} | {note} |\n")
    return HEAD.format(trials=trials) + "".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1_000, help="of the cheapest case; dear ones take fewer")
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--write", type=Path, help="the Markdown file of the table")
    arguments = parser.parse_args()
    found, outside = [], 0
    for case in cases():
        if arguments.only not in case.name:
            continue
        begun = time.perf_counter()
        one = simulate(case, arguments.trials)
        found.append(one)
        wrong = not one.within and not case.known
        outside += wrong
        seconds = f"{time.perf_counter() - begun:.1f} s"
        kind = "false" if case.error else "covers"
        print(
            f"{case.name}; {case.data}: {kind} {one.share:.3f} of {one.trials}{' OUTSIDE' * wrong} ({seconds})",
            flush=True,
        )
    if arguments.write:
        arguments.write.write_text(table(found, arguments.trials), encoding="utf-8")
    return 1 if outside else 0


def _seed(generator: Generator) -> int:
    return int(generator.integers(2**31))


if __name__ == "__main__":
    sys.exit(main())
