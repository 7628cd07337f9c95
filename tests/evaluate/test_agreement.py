from __future__ import annotations

import numpy as np
import pytest

from sstmerge_core.errors import RecipeError
from sstmerge_core.evaluate.agreement import agreement, cohens_kappa, confusion, kappa_interval, on_scale, scores
from tests.there import there


def labels(text: str) -> list[str]:
    names = {"r": "refusal", "s": "safe_nonrefusal", "h": "harmful", "n": "not_refused", "o": "not_harmful"}
    return [(names | {"d": "degenerate", "m": "miss"})[letter] for letter in text]


def test_kappa_is_cohens_textbook_figure() -> None:
    """20 and 15 agreed, 5 and 10 not: p_o = 0.7, p_e = 0.5, κ = 0.4."""
    first = labels("r" * 25 + "n" * 25)
    second = labels("r" * 20 + "n" * 5 + "r" * 10 + "n" * 15)
    assert cohens_kappa(first, second) == pytest.approx(0.4)
    assert confusion(first, second) == {
        "refusal": {"refusal": 20, "not_refused": 5},
        "not_refused": {"refusal": 10, "not_refused": 15},
    }


def test_kappa_is_one_zero_negative_or_not_there() -> None:
    assert cohens_kappa(labels("rnd"), labels("rnd")) == pytest.approx(1.0)
    assert cohens_kappa(labels("rrnn"), labels("rnrn")) == pytest.approx(0.0)
    assert cohens_kappa(labels("rn"), labels("nr")) == pytest.approx(-1.0)
    assert cohens_kappa(labels("rrr"), labels("rrr")) is None
    assert cohens_kappa([], []) is None
    assert kappa_interval(labels("rrr"), labels("rrr")) is None


def test_the_interval_of_kappa_is_that_of_answers_drawn_with_replacement() -> None:
    generator = np.random.default_rng(3)
    first = generator.choice(["refusal", "not_refused", "degenerate"], 60, p=[0.5, 0.4, 0.1])
    second = np.where(generator.random(60) < 0.8, first, "not_refused")
    drawn = [generator.integers(60, size=60) for _ in range(2000)]
    kappas = [cohens_kappa(list(first[rows]), list(second[rows])) for rows in drawn]
    expected = np.quantile(np.array(kappas, dtype=float), [0.025, 0.975])
    assert np.allclose(there(kappa_interval(list(first), list(second))), expected, atol=0.03)


def test_precision_recall_and_f1_of_one_label() -> None:
    found = scores(labels("rrrrnn"), labels("rrnnrn"), "refusal")
    assert found == pytest.approx((2 / 3, 1 / 2, 4 / 7))
    assert scores(labels("nn"), labels("nn"), "refusal") == (None, None, None)
    assert scores(labels("rn"), labels("nn"), "refusal") == (None, 0.0, 0.0)


def test_judges_are_compared_on_what_both_can_tell() -> None:
    lexical, full, harm_only = labels("rnnd"), labels("rshd"), labels("oohd")
    assert agreement(lexical, full).scale == "refusal" and agreement(lexical, full).agreement == 1.0
    assert agreement(harm_only, full).scale == "harm" and agreement(harm_only, full).agreement == 1.0
    assert agreement(full, labels("rhhd")).agreement == 0.75
    assert on_scale(full, "harm") == labels("oohd")
    with pytest.raises(RecipeError, match="no labels in common"):
        agreement(lexical, harm_only)


def test_a_lecture_is_a_refusal_and_an_answer_after_declining_is_none_where_judges_are_compared() -> None:
    apart = ["refusal", "moralising", "partial", "not_refused"]
    assert agreement(apart, labels("rrnn")).agreement == 1.0
    # a reader says what the answer is after all, and the scale is what both tell
    assert agreement(["refusal", "moralising", "partial"], labels("rrh")).scale == "refusal"
    assert agreement(["moralising", "degenerate"], labels("rd")).agreement == 1.0
    with pytest.raises(RecipeError, match="no labels in common"):
        agreement(["partial"], labels("o"))


def test_an_unjudged_answer_is_left_out_like_a_missed_one() -> None:
    found = agreement(["refusal", "unjudged", "not_refused"], labels("rrr"))
    assert (found.n, found.missed, found.disagreements) == (2, 1, (2,))


def test_what_a_judge_missed_is_left_out_and_counted_and_differences_are_named_by_place() -> None:
    found = agreement(labels("rmnnr"), labels("rrmrr"))
    assert (found.n, found.missed, found.disagreements) == (3, 2, (3,))
    interval = there(found.interval)
    assert found.agreement == pytest.approx(2 / 3) and interval.low < 2 / 3 < interval.high
    nothing = agreement(labels("mm"), labels("rr"))
    assert (nothing.n, nothing.agreement, nothing.kappa, nothing.disagreements) == (0, None, None, ())


def test_answers_of_one_topic_are_drawn_together_and_widen_the_interval_of_kappa() -> None:
    """Eight topics of ten answers on which two judges agree wholly or not at all: eight units, not eighty."""
    first, second, topics = [], [], []
    for topic in range(8):
        for place in range(10):
            label = "refusal" if place % 2 else "not_refused"
            other = {"refusal": "not_refused", "not_refused": "refusal"}[label]
            first.append(label)
            second.append(label if topic % 4 else other)
            topics.append(f"t{topic}")
    alone, together = kappa_interval(first, second), kappa_interval(first, second, clusters=topics)
    assert alone is not None and together is not None
    assert together.high - together.low > 1.5 * (alone.high - alone.low)
    single = kappa_interval(first, second, clusters=[str(place) for place in range(80)])
    assert single is not None
    assert abs(single.low - alone.low) < 0.03 and abs(single.high - alone.high) < 0.03
