"""Compress-then-Merge: project the adapters into shared subspaces of the wanted rank, and only there merge them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from sstmerge_core.methods.consensus import elect_and_combine, weighted_sum
from sstmerge_core.methods.linear import Share
from sstmerge_core.methods.registry import Choice, Real, Whole, method
from sstmerge_core.methods.shared import WEIGHTS, Scale
from sstmerge_core.methods.singular import decomposed
from sstmerge_core.methods.sparsify import keep_largest
from sstmerge_core.methods.weighting import each, first, kept_shares, share, share_of_each

if TYPE_CHECKING:
    import torch

    from sstmerge_core.space import View

SWEEPS = 300
"""At most so many alternations between the two subspaces; a few dozen are usual"""
CONVERGED = 1e-9
"""Frobenius norm by which the projector onto the subspace of the outputs still moves"""


def _acts(parameters: Mapping[str, Any], experts: int) -> str:
    if parameters["rule"] == "ties":
        return f"{kept_shares(parameters, experts)}, inside shared subspaces of the outputs and inputs"
    shares = f"{share_of_each(parameters, experts)} of {each(experts)} and {parameters['alpha']:g} of ΔS"
    return f"{shares}, each projected into shared subspaces of the outputs and inputs{first(parameters, experts)}"


@method(
    "compress_then_merge",
    title="Compress-then-Merge",
    family="Subspace",
    kind="core",
    axis="share",
    formula=r"\Delta W=\lambda\,U\,\mathcal{M}(U^{\mathsf{T}}\Delta_1V,\dots,U^{\mathsf{T}}\Delta_NV)\,V^{\mathsf{T}},"
    r"\quad U,V=\arg\max_{U,V}\textstyle\sum_i\lVert U^{\mathsf{T}}\hat\Delta_iV\rVert_F^2,\quad "
    r"\hat\Delta_i=\bigl(\beta\lVert\Delta_i\rVert+(1-\beta)\,\overline{\lVert\Delta\rVert}\bigr)"
    r"\frac{\Delta_i}{\lVert\Delta_i\rVert}",
    paper="He et al. 2026, Compress then Merge",
    url="https://arxiv.org/abs/2606.03723",
    driver=(WEIGHTS,),
    cuts_rank=True,
    keeps_utility=False,  # what lies outside the shared subspaces is gone at any share
    symmetric=True,
    acts=_acts,
    oracle="numpy HOOI on the dense tensor of all ΔW, TIES in numpy",
    idempotent={"density": 1.0},
)
def compress_then_merge(
    view: View,
    *,
    alpha: Share = 0.5,
    subspace: Annotated[
        int,
        Whole(
            0,
            100_000,
            help="Directions of each shared subspace, so the rank of the merge. 0: of each module the largest "
            "rank that an adapter has there.",
            symbol="r",
        ),
    ] = 0,
    beta: Annotated[
        float,
        Real(
            0.0,
            1.0,
            0.05,
            "How much of their difference in size adapters keep when the subspaces are sought: 1 all, 0 none.",
            symbol="β",
        ),
    ] = 0.25,
    rule: Annotated[str, Choice(("ties", "average"), "How the projected adapters are merged.")] = "ties",
    density: Annotated[
        float, Real(0.0, 1.0, 0.05, "Share of each adapter's r × r coordinates that TIES keeps.", open_low=True)
    ] = 0.25,
    scale: Scale = 1.0,
) -> torch.Tensor:
    """Find subspaces that all adapters share, project each into them, and merge the small matrices of coordinates.

    As in the authors' `get_low_rank_components_in_core_space`: rescaled adapters Δ̂ᵢ, a Tucker-2 decomposition of them
    stacked (HOSVD, then HOOI), coordinates UᵀΔᵢV of the adapters as they are, TIES on these. All in the core, which
    loses nothing. An adapter that leaves the module alone has no part in the search.
    """
    cores = [core.double() for core in view.adapters]
    left, right = shared_subspaces([core for core in cores if core.any()], subspace, beta)
    coordinates = [(left.T @ core @ right).contiguous() for core in cores]
    weights = share(len(cores), alpha)
    if rule == "ties":
        merged = elect_and_combine([keep_largest(own, density) for own in coordinates], weights, "paper")
    else:
        merged = weighted_sum(coordinates, weights)
    return (scale * left @ merged @ right.T).to(view.utility)


def shared_subspaces(cores: Sequence[torch.Tensor], size: int, beta: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Orthonormal U (p, r) and V (q, r) that keep the most of the rescaled `cores` (p, q), none of them zero.

    Alternating least squares (HOOI): given V, U are the leading left singular vectors of [Δ̂₁V … Δ̂_NV], and so in turn.
    r is `size`, or for 0 the largest rank among the cores; less where all of them together span less.
    """
    import torch

    norms = [core.norm() for core in cores]
    mean = sum(norms) / len(norms)
    targets = [(beta + (1 - beta) * mean / norm) * core for core, norm in zip(cores, norms, strict=True)]
    rank = size or max(len(decomposed(core)[1]) for core in cores)
    left = decomposed(torch.cat(targets, dim=1))[0][:, :rank]
    right = decomposed(torch.cat([target.T for target in targets], dim=1))[0][:, :rank]
    for _ in range(SWEEPS):
        before = left
        left = _leading([target @ right for target in targets], rank)
        right = _leading([target.T @ left for target in targets], rank)
        if float((left @ left.T - before @ before.T).norm()) < CONVERGED:
            break
    return left, right


def _leading(blocks: Sequence[torch.Tensor], rank: int) -> torch.Tensor:
    import torch

    return decomposed(torch.cat(list(blocks), dim=1))[0][:, :rank]
