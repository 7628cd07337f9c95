from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sstmerge_core.analysis.best import Best, best_method, resampled_scores, seed_variance, with_the_best
from sstmerge_core.analysis.effects import cohens_h, hedges_g, magnitude, paired_d
from sstmerge_core.analysis.statistics import mean_over_seeds, welch


def scores(**values: list[float]) -> pd.DataFrame:
    rows = [(method, seed, value) for method, found in values.items() for seed, value in enumerate(found, start=42)]
    return pd.DataFrame(rows, columns=["method", "seed", "value"])


def test_a_method_that_beats_every_other_is_best() -> None:
    found = best_method(scores(sst=[0.9, 0.91, 0.92], ties=[0.5, 0.52, 0.51], dare=[0.3, 0.32, 0.28]))
    assert found.best == "sst" and found.sentence.startswith("sst is best")
    assert list(found.summary["method"]) == ["sst", "ties", "dare"]
    row = found.summary.iloc[0]
    assert (row["mean"], row["std"], row["min"], row["max"]) == pytest.approx((0.91, 0.01, 0.9, 0.92))
    assert set(found.tests["test"]) == {"all pairs, paired over seeds"} and len(found.tests) == 3
    assert found.with_the_best == ("sst",) and found.worse == ("ties", "dare")


def test_lower_is_better_turns_the_ranking_round() -> None:
    found = best_method(scores(a=[0.9, 0.91, 0.92], b=[0.1, 0.12, 0.11]), higher_is_better=False)
    assert found.best == "b"


def test_a_leader_within_the_noise_is_not_called_best() -> None:
    found = best_method(scores(sst=[0.6, 0.7, 0.8], ties=[0.55, 0.7, 0.75], dare=[0.1, 0.11, 0.12]))
    assert found.best is None
    assert found.with_the_best == ("sst", "ties") and found.worse == ("dare",)
    assert found.sentence.startswith("No winner: the differences are within noise among sst and ties")


def test_deterministic_merges_are_compared_over_prompts_instead_of_seeds() -> None:
    generator = np.random.default_rng(0)
    weak = generator.random(80) * 0.3
    outcomes = pd.DataFrame({"a": weak + 0.5 + generator.random(80) * 0.1, "b": weak})
    means = {name: [float(outcomes[name].mean())] * 3 for name in outcomes}
    assert best_method(scores(**means)).best is None
    found = best_method(scores(**means), outcomes=[outcomes], resamples=500)
    assert found.best == "a" and list(found.tests["test"]) == ["all pairs, paired over prompts"]


def test_what_a_seed_moves_in_all_methods_alike_is_no_noise_between_them() -> None:
    shifts = [0.0, 0.3, -0.2]
    found = best_method(scores(a=[0.6 + shift for shift in shifts], b=[0.5, 0.801, 0.3], c=[0.45, 0.75, 0.251]))
    assert found.best == "a" and found.variance.seeds < 0.001 and np.isnan(found.variance.prompts)
    assert "±0.000 from the seeds" in found.sentence


def test_over_seeds_alone_the_critical_value_is_tukeys() -> None:
    values = np.random.default_rng(3).normal(size=(4, 5))
    names = list("abcde")
    found = best_method(scores(**{name: values[:, place].tolist() for place, name in enumerate(names)}))
    row = found.tests.iloc[0]
    blocks = pd.DataFrame(values)
    square, degrees = seed_variance(blocks)
    assert degrees == 12
    half = stats.studentized_range.ppf(0.95, 5, degrees) * np.sqrt(square[0] / 4)
    assert row["high"] - row["difference"] == pytest.approx(half, rel=0.03)


def test_the_variance_of_the_prompts_adds_to_that_of_the_seeds() -> None:
    generator = np.random.default_rng(4)
    outcomes = pd.DataFrame(generator.random((40, 2)), columns=["a", "b"])
    table = scores(a=[0.5, 0.52, 0.48], b=[0.45, 0.49, 0.41])
    alone, both = best_method(table), best_method(table, outcomes=[outcomes])
    assert both.variance.seeds == alone.variance.seeds and both.variance.prompts > 0.05
    widths = [found.tests["high"].iloc[0] - found.tests["low"].iloc[0] for found in (alone, both)]
    assert widths[1] > widths[0]


def test_a_merge_without_chance_is_the_same_at_every_seed() -> None:
    table = pd.concat([scores(dare=[0.5, 0.6, 0.55]), pd.DataFrame([{"method": "linear", "seed": None, "value": 0.9}])])
    found = best_method(table)
    assert found.best == "linear" and found.variance.seeds > 0


def resampled(rates: list[float], n: int = 200, seed: int = 0) -> Best:
    drawn = np.random.default_rng(seed).random((n, len(rates))) < rates
    table = pd.DataFrame(drawn.astype(float), columns=[f"m{place}" for place in range(len(rates))])
    values, moved, units = resampled_scores({"s": table}, list(table), lambda means: means["s"], resamples=800)
    return with_the_best(values, moved, units)


def test_methods_clearly_below_are_worse_and_those_at_the_top_stay_together() -> None:
    found = resampled([0.8, 0.8, 0.3, 0.25])
    assert set(found.with_the_best) == {"m0", "m1"} and set(found.worse) == {"m2", "m3"} and found.best is None
    rows = found.intervals.set_index("method")
    assert (rows.loc[["m2", "m3"], "high"] < 0).all() and (rows.loc[["m0", "m1"], "high"] > 0).all()
    assert found.sentence.startswith("No winner") and resampled([0.9, 0.3, 0.3]).best == "m0"


def test_equal_methods_have_no_winner_and_none_is_called_worse() -> None:
    found = resampled([0.6] * 10)
    assert found.best is None and not found.worse
    assert found.sentence.startswith("No winner: the differences are within noise. m")


def test_a_score_of_several_measures_is_resampled_as_a_whole() -> None:
    tables = {name: pd.DataFrame({"a": [1.0, 0.0] * 20, "b": [1.0] * 40}) for name in ("s", "o")}
    values, moved, units = resampled_scores(
        tables, ["a", "b"], lambda means: means["s"] - means["o"], topics={"s": ["t", "u"] * 20}, resamples=200
    )
    assert values == {"a": 0.0, "b": 0.0} and moved.shape == (200, 2) and units == 2


def test_welch_agrees_with_scipy_and_refuses_what_does_not_vary() -> None:
    first, second = [0.6, 0.7, 0.75], [0.4, 0.45, 0.6, 0.5]
    found = welch(first, second)
    expected = stats.ttest_ind(first, second, equal_var=False)
    assert (found.t, found.p_value, found.df) == pytest.approx((expected.statistic, expected.pvalue, expected.df))
    assert found.low < found.mean < found.high
    for bad in ([0.5], [0.5, 0.5]):
        with pytest.raises(ValueError, match="seeds"):
            welch(bad, bad)


def test_the_interval_over_seeds_is_students() -> None:
    low, high = mean_over_seeds([1.0, 2.0, 3.0])
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 2, loc=2.0, scale=1 / np.sqrt(3)))


def test_cohens_h_gives_the_published_example() -> None:
    # Cohen 1988, table 6.2.2: φ(.55) = 1.671, φ(.40) = 1.369
    assert cohens_h(0.55, 0.40) == pytest.approx(1.671 - 1.369, abs=1e-3)
    assert cohens_h(1.0, 0.0) == pytest.approx(np.pi)
    with pytest.raises(ValueError, match="rates"):
        cohens_h(1.2, 0.4)


def test_hedges_g_corrects_cohens_d_for_small_samples() -> None:
    first, second = np.array([3.0, 4.0, 5.0]), np.array([1.0, 2.0, 3.0])
    d = (first.mean() - second.mean()) / 1.0  # both standard deviations are 1
    assert hedges_g(first, second) == pytest.approx(d * (1 - 3 / (4 * 4 - 1)), rel=0.01)
    assert hedges_g([1.0, 1.0], [2.0, 2.0]) is None


def test_paired_d_is_the_difference_in_its_own_deviations() -> None:
    assert paired_d([2.0, 4.0, 6.0], [1.0, 2.0, 3.0]) == pytest.approx(2.0)
    assert paired_d([2.0, 3.0], [1.0, 2.0]) is None


@pytest.mark.parametrize(("effect", "word"), [(0.1, "negligible"), (-0.3, "small"), (0.5, "medium"), (-0.8, "large")])
def test_effects_have_words(effect: float, word: str) -> None:
    assert magnitude(effect) == word
