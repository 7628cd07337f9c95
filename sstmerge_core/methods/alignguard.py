"""AlignGuard-LoRA: ΔU without what moves alignment-critical directions, plus a multiple of the safety adapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from sstmerge_core.methods.palette import ORANGE
from sstmerge_core.methods.registry import Look, Real, Whole, method
from sstmerge_core.methods.shared import ATTENTION, EXPANSION, EXPERTS, FISHER, MLP, STRENGTH, WEIGHTS
from sstmerge_core.methods.weighting import about_side, first

if TYPE_CHECKING:
    from sstmerge_core.gevp import DualPatch, DualProblem


def _acts(parameters: Mapping[str, Any], experts: int) -> str:
    eta, alpha = parameters["eta"], parameters["alpha"]
    without = f"ΔU without {eta:g} of its alignment-critical part, plus {alpha:g} times ΔS"
    return without + about_side(parameters, experts) + first(parameters, experts)


@method(
    "alignguard",
    title="AlignGuard-LoRA",
    family="Safety-aware",
    kind="patch",
    axis="strength",
    formula=r"\Delta W=\Delta U-\eta\,Q_mQ_m^{\mathsf{T}}\Delta U+\alpha\,\Delta S,\quad F_h=Q\Lambda Q^{\mathsf{T}}",
    paper="AlignGuard-LoRA (2025), adapted from training time to merge time",
    url="https://arxiv.org/abs/2508.02079",
    driver=(STRENGTH, ATTENTION, MLP, EXPERTS, EXPANSION.starting_at("base", from_the_first=True), FISHER, WEIGHTS),
    needs_fisher=True,
    keeps_utility=False,
    acts=_acts,
    oracle="numpy `eigh(F_h)` on dense d × d",
    look=Look(ORANGE, "octagon", "dashdot"),
)
def alignguard(
    problem: DualProblem,
    *,
    m: Annotated[int, Whole(1, 100_000, help="Alignment-critical directions: leading eigenvectors of F_harm.")] = 20,
    eta: Annotated[float, Real(0.0, 1.0, 0.1, "Share of ΔU removed along these directions.", symbol="η")] = 1.0,
) -> DualPatch:
    """Take out of ΔU what moves alignment-critical directions, then add a multiple of the safety adapter."""
    return problem.remove_from_utility(m, eta)
