"""Iso-C: the sum of the updates with all its singular values made equal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from sstmerge_core.methods.linear import Experts
from sstmerge_core.methods.registry import method
from sstmerge_core.methods.shared import STRENGTH, Scale, Weights
from sstmerge_core.methods.singular import decomposed
from sstmerge_core.methods.weighting import added, side, weighted

if TYPE_CHECKING:
    import torch

    from sstmerge_core.space import View


def _acts(parameters: Mapping[str, Any], experts: int) -> str:
    return f"{added(parameters, experts)}, then every singular value of the sum replaced by their mean"


@method(
    "iso_c",
    title="Iso-C",
    family="Subspace",
    kind="core",
    axis="strength",
    formula=r"\Delta W=\lambda\,\bar\sigma\,UV^{\mathsf{T}},\quad \bar\sigma=\tfrac1R\textstyle\sum_{i\le R}\sigma_i,"
    r"\quad \Delta U+\alpha\,\Delta S=U\,\mathrm{diag}(\sigma_1,\dots,\sigma_R)\,V^{\mathsf{T}}",
    paper="Marczak et al. 2025, No task left behind: isotropic model merging",
    url="https://arxiv.org/abs/2502.04959",
    cuts_rank=True,
    keeps_utility=False,
    acts=_acts,
    oracle="numpy on the dense ΔW",
)
def iso_c(
    view: View,
    *,
    alpha: Annotated[
        float,
        replace(
            STRENGTH.schema,
            help="Weight of ΔS in the sum against 1 for ΔU. It turns the directions, not their sizes, which become "
            "equal; 0 is ΔU with equal singular values.",
        ),
    ] = 1.0,
    experts: Experts = "sum",
    scale: Scale = 1.0,
    weights: Weights = "",
) -> torch.Tensor:
    """Add the updates, then give all singular directions of the sum the same size.

    As in the authors' `iso_c`, but the mean is over the rank R of the sum, as where it is applied in the adapters' core
    space (arXiv 2509.17786): over all min(out, in) of the dense matrix, directions in which nothing was learned would
    get their share. α turns the directions, never their size: also at a small α those of ΔS are as large as those of
    ΔU, and at α = 0 the result is ΔU with its singular values made equal.
    """
    factors = weighted((*side(len(view.adapters) - 1, experts), alpha), weights)
    total = sum((weight * core for weight, core in zip(factors, view.adapters, strict=True)), start=view.utility * 0)
    left, values, right = decomposed(total)
    mean = values.mean() if len(values) else 0.0
    return (scale * mean * left @ right.T).to(view.utility)
