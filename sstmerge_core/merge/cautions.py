"""What a person should know of a merge before using it, read from its statistics. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sstmerge_core.errors import Problem

NEARLY_BASE = 0.3
"""Ratio of norms ‖ΔW‖/‖ΔU‖ below which little of the utility adapter is left"""


def cautions(statistics: Iterable[Mapping[str, Any]]) -> list[Problem]:
    """Warnings of a merge, from its rows (module, stat, value)."""
    pooled = {row["stat"]: row["value"] for row in statistics if row["module"] == ""}
    found = []
    stands_in = " The safe direction is ΔS, a stand-in: --unaligned gives the real one."
    more = stands_in if pooled.get("proxy_direction") else ""
    ratio = pooled.get("norm_ratio", 1.0)
    if ratio < NEARLY_BASE:
        fault = f"is nearly the base model: ΔW has {ratio:.0%} of the size of ΔU"
        fix = f"A lower threshold changes fewer modules.{more}" if "proxy_direction" in pooled else "Raise its scale."
        found.append(Problem("the merge", fault, fix))
    if "proxy_direction" in pooled and pooled.get("changed") == 0.0:
        fault = "is the utility adapter: ΔU agrees with its aligned part in every module"
        fix = "A higher threshold changes some; where V has a direction for every output, projection=published."
        found.append(Problem("the merge", fault, fix + more))
    return found
