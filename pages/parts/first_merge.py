"""The merge that the Overview offers: small, of a method that needs no gradients, and not made yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sstmerge_core.builder import preflight
from studio import pick, start

AT_ONCE = "merge:at once"
"""In the session: the Merge page starts what its link says, once; a link alone never starts anything"""
METHOD = "linear"
PROMPTS = 16
ALPHAS = tuple(round(0.5 + sign * step / 20, 2) for step in range(10) for sign in ((1, -1) if step else (1,)))
"""0.5 first, then farther and farther from it"""


def fresh(shelf: pick.Shelf, query: Mapping[str, str | Sequence[str]]) -> dict[str, str]:
    """Method, α and n for the Merge page's link, of the first α that has no finished run."""
    base, utility, safety = (str(query[name]) for name in ("base", "utility", "safety"))
    alpha = next((one for one in ALPHAS if not _known(shelf, base, utility, safety, one)), ALPHAS[0])
    return {"method": METHOD, "alpha": f"{alpha:g}", "n": str(PROMPTS)}


def _known(shelf: pick.Shelf, base: str, utility: str, safety: str, alpha: float) -> bool:
    return preflight.plan(
        start.workspace(),
        base=shelf.bases[base],
        utility=shelf.adapters[utility],
        safety=shelf.adapters[safety],
        method=METHOD,
        parameters={"alpha": alpha},
        options=preflight.Options(n=PROMPTS, **preflight.how_to_compute()),
    ).known
