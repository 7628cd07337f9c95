from __future__ import annotations

import pytest

from sstmerge_core.merge.budget import AT_MOST, STEPS, largest_strength


def falling(alpha: float) -> float:
    """80 points at α = 0, 10 points less per unit of α."""
    return 80.0 - 10.0 * alpha


def nothing(alpha: float, score: float) -> None:
    pass


def test_the_strength_found_keeps_to_the_budget_and_a_little_more_would_not():
    alpha, probes = largest_strength(falling, 7.0, {}, nothing)
    assert alpha <= 0.7 < alpha + AT_MOST / 2**STEPS
    assert probes[alpha] >= 73.0 and probes[0.0] == 80.0


def test_a_budget_that_nothing_exceeds_gives_the_largest_strength():
    assert largest_strength(falling, 60.0, {}, nothing)[0] == AT_MOST


def test_a_budget_that_everything_exceeds_gives_zero():
    assert largest_strength(falling, 0.01, {}, nothing)[0] == 0.0


def test_probes_of_an_earlier_try_are_not_measured_again():
    recorded: list[float] = []
    alpha, probes = largest_strength(falling, 7.0, {}, lambda a, _: recorded.append(a))
    assert sorted(recorded) == sorted(probes)

    def refuse(alpha: float) -> float:
        pytest.fail(f"α={alpha} was measured again")

    assert largest_strength(refuse, 7.0, probes, nothing) == (alpha, probes)
