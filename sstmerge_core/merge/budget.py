"""The strength that a measured utility budget allows: bisection of α on held-out prompts of the selection split."""

from __future__ import annotations

from collections.abc import Callable, Mapping

AT_MOST = 4.0
STEPS = 6
"""Halvings: α is found to within 4/2⁶ ≈ 0.06"""


def largest_strength(
    score: Callable[[float], float], budget: float, known: Mapping[float, float], record: Callable[[float, float], None]
) -> tuple[float, dict[float, float]]:
    """The largest α up to 4 that bisection finds whose score is at most `budget` below that of α = 0, and every probe.

    `score` measures utility at a strength, in the unit of `budget`; probes in `known` (α → score, of an earlier try)
    are not measured again and each new one is given to `record`. Where the score is not monotone in α, the crossing
    found is one of several. The answer is 0 where even the smallest strength tried costs more.
    """
    probes = dict(known)

    def at(alpha: float) -> float:
        if alpha not in probes:
            probes[alpha] = score(alpha)
            record(alpha, probes[alpha])
        return probes[alpha]

    enough = at(0.0) - budget
    if at(AT_MOST) >= enough:
        return AT_MOST, probes
    low, high = 0.0, AT_MOST
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if at(middle) >= enough else (low, middle)
    return low, probes
