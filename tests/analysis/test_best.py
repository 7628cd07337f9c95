from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from sstmerge_core.analysis.best import best_method
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
    assert set(found.tests["test"]) == {"Welch t over seeds"} and len(found.tests) == 3


def test_lower_is_better_turns_the_ranking_round() -> None:
    found = best_method(scores(a=[0.9, 0.91, 0.92], b=[0.1, 0.12, 0.11]), higher_is_better=False)
    assert found.best == "b"


def test_a_leader_within_the_noise_is_not_called_best() -> None:
    found = best_method(scores(sst=[0.6, 0.7, 0.8], ties=[0.55, 0.7, 0.75], dare=[0.1, 0.11, 0.12]))
    assert found.best is None
    assert found.sentence.startswith("No method is shown best: sst has the best mean") and "ties" in found.sentence


def test_deterministic_merges_are_compared_over_prompts_instead_of_seeds() -> None:
    generator = np.random.default_rng(0)
    weak = generator.random(80) * 0.3
    outcomes = pd.DataFrame({"a": weak + 0.5 + generator.random(80) * 0.1, "b": weak})
    means = {name: [float(outcomes[name].mean())] * 3 for name in outcomes}
    assert best_method(scores(**means)).best is None
    found = best_method(scores(**means), outcomes=[outcomes], resamples=500)
    assert found.best == "a" and list(found.tests["test"]) == ["paired bootstrap over prompts"]


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
