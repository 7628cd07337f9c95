"""The strength that measured limits on utility and over-refusal allow."""

from __future__ import annotations

import pytest

from sstmerge_core.merge.budget import AT_MOST, STEPS, Limits, Probe, largest_strength

WITHIN = AT_MOST / 2**STEPS


def falling(alpha: float) -> Probe:
    """80 points at α = 0, 10 points less per unit of α."""
    return Probe(80.0 - 10.0 * alpha)


def refusing(alpha: float) -> Probe:
    """As `falling`, and 5 % of the harmless refused at α = 0, 20 % more per unit of α."""
    return Probe(80.0 - 10.0 * alpha, min(1.0, 0.05 + 0.2 * alpha))


def nothing(alpha: float, probe: Probe) -> None:
    pass


def test_the_strength_found_keeps_to_the_budget_and_a_little_more_would_not() -> None:
    alpha, probes = largest_strength(falling, Limits(7.0), {}, nothing)
    assert alpha <= 0.7 < alpha + WITHIN
    assert probes[alpha].utility >= 73.0 and probes[0.0].utility == 80.0


def test_a_budget_in_percent_is_of_what_the_utility_side_alone_has() -> None:
    alpha, _ = largest_strength(falling, Limits(5.0, relative=True), {}, nothing)
    assert alpha <= 0.4 < alpha + WITHIN  # 5 % of 80 points are 4


def test_the_narrower_of_two_limits_decides() -> None:
    alpha, probes = largest_strength(refusing, Limits(20.0, over_refusal=0.2), {}, nothing)
    assert alpha <= 0.75 < alpha + WITHIN
    refused = probes[alpha].over_refusal
    assert refused is not None and refused <= 0.2
    alpha, _ = largest_strength(refusing, Limits(2.0, over_refusal=0.2), {}, nothing)
    assert alpha <= 0.2 < alpha + WITHIN


def test_a_utility_side_that_refuses_too_much_by_itself_gets_nothing_added_and_one_probe() -> None:
    alpha, probes = largest_strength(refusing, Limits(20.0, over_refusal=0.04), {}, nothing)
    assert alpha == 0.0 and list(probes) == [0.0]


def test_a_budget_that_nothing_exceeds_gives_the_largest_strength() -> None:
    assert largest_strength(falling, Limits(60.0), {}, nothing)[0] == AT_MOST


def test_a_budget_that_everything_exceeds_gives_zero() -> None:
    assert largest_strength(falling, Limits(0.01), {}, nothing)[0] == 0.0


def test_probes_of_an_earlier_try_are_not_measured_again() -> None:
    recorded: list[float] = []
    limits = Limits(7.0, over_refusal=0.9)
    alpha, probes = largest_strength(refusing, limits, {}, lambda a, _: recorded.append(a))
    assert sorted(recorded) == sorted(probes)

    def refuse(alpha: float) -> Probe:
        pytest.fail(f"α={alpha} was measured again")

    assert largest_strength(refuse, limits, probes, nothing) == (alpha, probes)
