"""Methods that keep, of each ΔW, only the weights that matter to its own task and to no other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sstmerge_core.methods.palette import PINK
from sstmerge_core.methods.registry import Look, Parameter, Real, method
from sstmerge_core.methods.shared import STRENGTH, WEIGHTS
from sstmerge_core.methods.weighting import each, first

if TYPE_CHECKING:
    import torch

UTILITY_SHARE = Parameter(
    "r_utility",
    Real(0.0, 1.0, 0.05, "Share of each weight matrix located as important to utility, r in the paper.", open_low=True),
    0.5,
)
SAFETY_SHARE = Parameter(
    "r_safety",
    Real(0.0, 1.0, 0.05, "Share of each weight matrix located as important to safety, r in the paper.", open_low=True),
    0.1,
)


def _acts(parameters: Mapping[str, Any], experts: int) -> str:
    alpha = parameters["alpha"]
    kept = f"{each(experts)} where only its own samples need it, {alpha:g} of ΔS where only safety's do"
    return kept + first(parameters, experts)


@method(
    "led_merging",
    title="LED-Merging",
    family="Safety-aware",
    kind="located",
    axis="strength",
    formula=r"\Delta W=(E_U\setminus E_S)\odot\Delta U+\alpha\,(E_S\setminus E_U)\odot\Delta S,\quad "
    r"E_i=\mathrm{top}_{r_i}|\theta\odot\nabla L_i|\cap\mathrm{top}_{r_i}|(\theta+\Delta_i)\odot\nabla L_i|",
    paper="Ma et al. 2025, LED-Merging",
    url="https://arxiv.org/abs/2502.16770",
    driver=(STRENGTH, UTILITY_SHARE, SAFETY_SHARE, WEIGHTS),
    needs_importance=True,
    sampled=("r_utility", "r_safety"),
    keeps_utility=False,
    acts=_acts,
    oracle="numpy on sorted scores and sets of weights",
    look=Look(PINK, "star-square", "dash"),
)
def led_merging(
    tensors: Sequence[torch.Tensor], elected: Sequence[torch.Tensor], weights: Sequence[float]
) -> torch.Tensor:
    """Keep of each ΔW the weights that matter to its own task and to no other, and add them up."""
    import torch

    claims = sum((mask.to(torch.int8) for mask in elected), torch.zeros_like(elected[0], dtype=torch.int8))
    merged = torch.zeros_like(tensors[0])
    for tensor, mine, weight in zip(tensors, elected, weights, strict=True):
        merged.add_(tensor * (mine & (claims == 1)), alpha=weight)
    return merged
