"""The strength that measured limits allow: bisection of α on held-out prompts of the selection split."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

AT_MOST = 4.0
STEPS = 6
"""Halvings: α is found to within 4/2⁶ ≈ 0.06"""


@dataclass(frozen=True)
class Probe:
    """What a strength measures on the selection prompts."""

    utility: float
    """In points of 100"""
    over_refusal: float | None = None
    """Share of the harmless look-alikes refused, 0–1; None where that has no limit"""


@dataclass(frozen=True)
class Limits:
    """What a strength may cost."""

    budget: float
    """Utility that may be lost: points of 100 or, with `relative`, percent of what α = 0 has"""
    relative: bool = False
    over_refusal: float = 1.0
    """At most, 0–1; 1: no limit"""

    def keeps(self, probe: Probe, at_zero: Probe) -> bool:
        allowed = self.budget * at_zero.utility / 100.0 if self.relative else self.budget
        refuses = probe.over_refusal is not None and probe.over_refusal > self.over_refusal
        return probe.utility >= at_zero.utility - allowed and not refuses


def largest_strength(
    measure: Callable[[float], Probe],
    limits: Limits,
    known: Mapping[float, Probe],
    record: Callable[[float, Probe], None],
) -> tuple[float, dict[float, Probe]]:
    """The largest α up to 4 that bisection finds within the limits, and every probe.

    Probes in `known` (of an earlier try) are not measured again and each new one is given to `record`. Where a figure
    is not monotone in α, the crossing found is one of several. The answer is 0 where even the smallest strength tried
    costs more, and where the utility side alone refuses too much.
    """
    probes = dict(known)

    def at(alpha: float) -> Probe:
        if alpha not in probes:
            probes[alpha] = measure(alpha)
            record(alpha, probes[alpha])
        return probes[alpha]

    start = at(0.0)
    if not limits.keeps(start, start):
        return 0.0, probes
    if limits.keeps(at(AT_MOST), start):
        return AT_MOST, probes
    low, high = 0.0, AT_MOST
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if limits.keeps(at(middle), start) else (low, middle)
    return low, probes


def limits_of(parameters: Mapping[str, Any]) -> Limits:
    """Those that a method's parameters state."""
    return Limits(parameters["budget"], parameters["unit"] == "percent", parameters["over_refusal"])
