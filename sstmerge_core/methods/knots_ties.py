"""KnOTS-TIES: TIES after a singular value decomposition that gives all adapters the same output directions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from sstmerge_core.methods.consensus import elect_and_combine
from sstmerge_core.methods.registry import Real, method
from sstmerge_core.methods.shared import SCALE, SHARE, TRIM, WEIGHTS
from sstmerge_core.methods.sparsify import Cut, keep_from, keep_largest
from sstmerge_core.methods.weighting import kept_shares

if TYPE_CHECKING:
    import torch


@method(
    "knots_ties",
    title="KnOTS-TIES",
    family="Subspace",
    kind="aligned",
    axis="share",
    formula=r"\Delta W=\lambda\,U\,\mathrm{TIES}(\Sigma V_1^{\mathsf{T}},\dots,\Sigma V_N^{\mathsf{T}}),\quad "
    r"[\Delta_1\ \cdots\ \Delta_N]=U\Sigma\,[V_1^{\mathsf{T}}\ \cdots\ V_N^{\mathsf{T}}]",
    paper="Stoica et al. 2025, Model merging with SVD to tie the Knots",
    url="https://arxiv.org/abs/2410.19735",
    driver=(SHARE, TRIM.starting_at("global"), SCALE, WEIGHTS),
    keeps_utility=False,  # an election may go against ΔU at any share
    symmetric=True,
    acts=kept_shares,
    oracle="numpy SVD of the dense [ΔW₁ … ΔW_N], TIES in numpy",
    idempotent={"density": 1.0},
)
def knots_ties(
    tensors: Sequence[torch.Tensor],
    weights: Sequence[float],
    cuts: Sequence[Cut],
    *,
    density: Annotated[
        float, Real(0.0, 1.0, 0.05, "Share of each adapter's aligned ΣVᵢᵀ kept.", open_low=True, telling=True)
    ] = 0.2,
) -> torch.Tensor:
    """Give all adapters common output directions by an SVD, then trim, elect and average what they do there as TIES.

    `tensors` are ΣVᵢᵀ (R, in), R the rank of all adapters together. As in the authors' `SVDMerger` the singular values
    are part of what is trimmed (for the election and the mean it makes no difference), and a density is one of all
    modules together (trim=global).
    """
    kept = [
        keep_largest(tensor, density) if cut.threshold is None else keep_from(tensor, cut.threshold)
        for tensor, cut in zip(tensors, cuts, strict=True)
    ]
    return elect_and_combine(kept, weights, "paper")
