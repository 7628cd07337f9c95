"""TSV-Merge: the adapters' singular vectors side by side, made orthogonal so that they interfere less."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from sstmerge_core.methods.linear import Experts
from sstmerge_core.methods.registry import Real, method
from sstmerge_core.methods.shared import STRENGTH, Scale, Weights
from sstmerge_core.methods.singular import decomposed, nearest_orthogonal
from sstmerge_core.methods.weighting import added, side, weighted

if TYPE_CHECKING:
    import torch

    from sstmerge_core.space import View


def _acts(parameters: Mapping[str, Any], experts: int) -> str:
    return f"{added(parameters, experts)}, by their singular values, after their singular vectors were made orthogonal"


@method(
    "tsv_merge",
    title="TSV-Merge",
    family="Subspace",
    kind="core",
    axis="strength",
    formula=r"\Delta W=\lambda\,U_\perp\,\mathrm{diag}(w_1\Sigma_1,\dots,w_N\Sigma_N)\,V_\perp^{\mathsf{T}},\quad "
    r"X_\perp=X(X^{\mathsf{T}}X)^{-1/2},\quad \Delta_i\approx U_i\Sigma_iV_i^{\mathsf{T}},\quad w_U=1,\ w_S=\alpha",
    paper="Gargiulo et al. 2025, Task Singular Vectors",
    url="https://arxiv.org/abs/2412.00081",
    cuts_rank=True,
    keeps_utility=False,
    acts=_acts,
    oracle="numpy on the dense ΔW, scipy `sqrtm` of the Gram matrices",
    idempotent={"alpha": 1.0},
)
def tsv_merge(
    view: View,
    *,
    alpha: Annotated[
        float,
        replace(
            STRENGTH.schema,
            help="Weight of ΔS's singular values against 1 for ΔU's. 0 is not ΔU: its directions were still turned "
            "away from those of ΔS.",
        ),
    ] = 1.0,
    kept: Annotated[
        float,
        Real(
            0.0,
            1.0,
            0.05,
            "Share of each adapter's singular directions kept, the largest first, rounded down, at least one. "
            "The paper keeps ⌊min(out, in)/N⌋ of each of N, which is all of a LoRA's; 1/N gives the rank of one.",
            open_low=True,
        ),
    ] = 1.0,
    experts: Experts = "sum",
    scale: Scale = 1.0,
    weights: Weights = "",
) -> torch.Tensor:
    """Make the singular vectors of all adapters orthogonal to each other, keep their singular values, add.

    As in the authors' `compute_and_sum_svd_mem_reduction`: X⊥ is the orthonormal matrix nearest to X = [X₁ … X_N]
    (orthogonal Procrustes). α weighs the singular values of ΔS; the directions are made orthogonal whatever it is, so
    at α = 0 the result is ΔU turned away from ΔS, not ΔU.
    """
    import torch

    lefts, values, rights = [], [], []
    factors = weighted((*side(len(view.adapters) - 1, experts), alpha), weights)
    for weight, core in zip(factors, view.adapters, strict=True):
        left, own, right = decomposed(core)
        count = max(1, int(kept * len(own) + 1e-9))  # 0.29 · 100 is 28.999…
        lefts.append(left[:, :count])
        values.append(weight * own[:count])
        rights.append(right[:, :count])
    left, right = (nearest_orthogonal(torch.cat(vectors, dim=1)) for vectors in (lefts, rights))
    return (scale * (left * torch.cat(values)) @ right.T).to(view.utility)
