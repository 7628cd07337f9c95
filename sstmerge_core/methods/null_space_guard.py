"""Null-space guard: of ΔU only what harmful inputs do not see.

GuardSpace (Zhang et al., ICLR 2026) holds an adapter's updates B A P to inputs that harmful prompts do not have: P
projects onto the null space of C = XXᵀ, X what the base's module sees of harmful prompts, so that ΔW X ≈ 0 and the
base's answers to them stay. It trains so, and splits the base's weights first; here the projector is put behind
adapters that are trained already, which is the part of it that is a merge. Two things are stated exactly and differ.
P is taken in the adapters' input coordinates, QᵢᵀCQᵢ for C: ‖ΔW X‖ depends on nothing else, and the result stays in
the adapters' space. And a null space is where a covariance is small, which needs a limit: the fewest directions that
hold `energy` of what harmful inputs are there are taken out. Read: abstract, §1 and figure 1 of arXiv 2510.14301v2
with reviews that repeat its equations; the authors' limit for small eigenvalues was not to be had.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from sstmerge_core.methods.linear import Experts, Strength
from sstmerge_core.methods.registry import Real, method
from sstmerge_core.methods.shared import Weights
from sstmerge_core.methods.weighting import added, sides

if TYPE_CHECKING:
    import torch

    from sstmerge_core.space import View


def _acts(parameters: Mapping[str, Any], experts: int) -> str:
    energy = f"{100 * parameters['energy']:g} % of harmful inputs"
    return f"{added(parameters, experts)}; of ΔU only what is blind to the directions that hold {energy}"


@method(
    "null_space_guard",
    title="Null-space guard",
    family="Safety-aware",
    kind="core",
    axis="strength",
    formula=r"\Delta W=\Delta U\,P+\alpha\,\Delta S,\quad P=I-V_mV_m^{\mathsf{T}},\quad "
    r"Q_i^{\mathsf{T}}\,\mathbb{E}[xx^{\mathsf{T}}]\,Q_i=V\Lambda V^{\mathsf{T}}\ \text{of harmful }x,\quad "
    r"m=\min\{m:\ \textstyle\sum_{i\le m}\lambda_i\ge\eta\sum_i\lambda_i\}",
    paper="Zhang et al. 2026, A guardrail for safety preservation (GuardSpace), its projector at merge time",
    url="https://arxiv.org/abs/2510.14301",
    needs_inputs=True,
    keeps_utility=False,
    acts=_acts,
    oracle="numpy on the dense ΔW and the dense E[xxᵀ]",
)
def null_space_guard(
    view: View,
    *,
    alpha: Strength = 1.0,
    energy: Annotated[
        float,
        Real(0.0, 1.0, 0.05, "Share of harmful inputs, by energy, to which ΔU becomes blind; 0 leaves it.", symbol="η"),
    ] = 0.5,
    experts: Experts = "mean",
    weights: Weights = "",
) -> torch.Tensor:
    """Take out of ΔU what harmful inputs see of it, by a projector behind it, then add a multiple of ΔS."""
    import torch

    assert view.seen is not None
    utility, safety = sides(view, alpha, experts, weights)
    values, vectors = torch.linalg.eigh(view.seen.double())
    values, vectors = values.flip(0).clamp(min=0.0), vectors.flip(1)
    total = float(values.sum())
    blind = vectors[:, : _fewest((values.cumsum(0) / total).tolist(), energy)] if total > 0 else vectors[:, :0]
    guarded = utility - (utility @ blind) @ blind.T
    return (guarded + safety).to(view.utility)


def _fewest(shares: list[float], wanted: float) -> int:
    """How many leading directions hold `wanted` of the whole; `shares` are cumulative."""
    return sum(share < wanted for share in shares[:-1]) + 1 if wanted > 0 else 0
