"""Fisher merging: an average in which each coordinate is weighted by what it matters to each side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sstmerge_core.methods.linear import Share
from sstmerge_core.methods.palette import SKY
from sstmerge_core.methods.registry import Look, method
from sstmerge_core.methods.shared import EXPANSION, FISHER, GENERAL
from sstmerge_core.methods.weighting import each, share, share_of_each

if TYPE_CHECKING:
    import torch

    from sstmerge_core.space import View


def _acts(parameters: Mapping[str, Any], experts: int) -> str:
    of_each, alpha = share_of_each(parameters, experts), parameters["alpha"]
    return f"{of_each} of {each(experts)} and {alpha:g} of ΔS, each coordinate weighted by its Fisher information"


@method(
    "fisher",
    title="Fisher merging",
    family="Averaging",
    kind="core",
    axis="share",
    formula=r"\Delta W=\frac{\sum_i w_iF_i\odot\Delta_i}{\sum_i w_iF_i},\quad F_i\ \text{at}\ W_0+\Delta_i,\quad "
    r"w=(1-\alpha,\alpha)",
    paper="Matena & Raffel 2022, Merging models with Fisher-weighted averaging",
    url="https://arxiv.org/abs/2111.09832",
    driver=(EXPANSION.starting_at("own"), FISHER, GENERAL),
    needs_fisher=True,
    fisher_of_each=True,
    acts=_acts,
    oracle="numpy in the canonical basis of the dense ΔW",
    look=Look(SKY, "bowtie", "dashdot"),
    idempotent={},
)
def fisher(view: View, *, alpha: Share = 0.5) -> torch.Tensor:
    """Average weighted by each adapter's diagonal Fisher, of its own task's samples at its own weights, in the core."""
    weights = share(len(view.adapters), alpha)
    # the largest entry sets the scale: a coordinate that nobody cares for falls back to the plain average
    floor = 1e-6 * max(1e-30, *(float(own.max()) for own in view.fishers))
    numerator, denominator = view.safety * 0, view.safety * 0
    for weight, own, adapter in zip(weights, view.fishers, view.adapters, strict=True):
        numerator += weight * (own + floor) * adapter
        denominator += weight * (own + floor)
    return numerator / denominator
