"""Safe Delta: of ΔU the numbers that cost safety least, and what makes up for those that were kept.

Lu et al., ICML 2025. What fine-tuning changes of the answers to safety samples is ‖ΔW X‖²; its Hessian is H = 2XXᵀ,
and one number δ of ΔW costs δ²/(2[H⁻¹]) when all others may make up for it (Optimal Brain Surgeon). Numbers are kept
in the order of what they are worth per cost, [H⁻¹], while the sum of their costs stays below a limit; the others
return to the base. Then each kept number moves what comes after it in its row so that the safety samples notice
least. Read: the authors' code, `llama2/safedelta/safedelta_runner.py` (`adjust_delta`), where [H⁻¹] of the columns
not yet passed is the squared diagonal of the upper Cholesky factor of H⁻¹, as in SparseGPT. Stated exactly and
different: the numbers are those of ΔU in canonical core coordinates, where ‖ΔW X‖ is the same and the result stays
low-rank, instead of single weights; the limit is a share of what keeping all would cost, instead of a number in units
of Llama 2; equal columns keep their larger numbers first; and no number is left out beforehand (theirs drops the
costliest 15 %). Where none has to return, nothing compensates and ΔU stays as it is; below that the directions that
only ΔS uses compensate too.
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

NOTHING = 1e-6
"""Of the largest number of a module's ΔU: what is smaller is no change but rounding"""


def _acts(parameters: Mapping[str, Any], experts: int) -> str:
    share = f"{100 * parameters['budget']:g} % of its cost in safety"
    return f"{added(parameters, experts)}; of ΔU the numbers within {share}, the rest made to compensate"


@method(
    "safe_delta",
    title="Safe Delta",
    family="Safety-aware",
    kind="core",
    axis="strength",
    formula=r"\Delta W=\mathrm{OBS}(m\odot\Delta U)+\alpha\,\Delta S,\quad "
    r"m:\ \textstyle\sum_m\frac{\delta^2}{2[H^{-1}]}\le\varepsilon\sum\frac{\delta^2}{2[H^{-1}]}\ "
    r"\text{by falling }[H^{-1}],\quad H=2\,\mathbb{E}[xx^{\mathsf{T}}]+\rho\,\bar h I\ \text{of harmful }x",
    paper="Lu et al. 2025, Safe Delta, in core coordinates",
    url="https://arxiv.org/abs/2505.12038",
    needs_inputs=True,
    keeps_utility=False,
    acts=_acts,
    oracle="numpy on the dense ΔW, H inverted anew for every column",
)
def safe_delta(
    view: View,
    *,
    alpha: Strength = 1.0,
    budget: Annotated[
        float,
        Real(
            0.0, 1.0, 0.05, "Share of what all of ΔU would cost in safety that may be spent; 0 keeps none.", symbol="ε"
        ),
    ] = 0.3,
    damping: Annotated[
        float, Real(0.0, 10.0, 0.01, "Added to H's diagonal, relative to its mean.", open_low=True, symbol="ρ")
    ] = 0.01,
    experts: Experts = "mean",
    weights: Weights = "",
) -> torch.Tensor:
    """Keep of ΔU what costs safety least, have the rest make up for it on harmful inputs, add a multiple of ΔS.

    α = 0 is the published method, which has no safety adapter.
    """
    assert view.seen is not None
    utility, safety = sides(view, alpha, experts, weights)
    return (surgeon(utility, view.seen.double(), budget, damping) + safety).to(view.utility)


def surgeon(update: torch.Tensor, seen: torch.Tensor, budget: float, damping: float) -> torch.Tensor:
    """What is kept of `update` (p, q) within `budget`, and what compensates for it; `seen` is E[xxᵀ] (q, q)."""
    import torch

    mean = float(seen.diagonal().mean()) if len(seen) else 0.0
    if mean <= 0.0:  # harmful inputs see nothing of this module
        return update
    hessian = 2 * seen + 2 * damping * mean * torch.eye(len(seen)).to(seen)
    factor = torch.linalg.cholesky(torch.linalg.inv(hessian), upper=True)
    scale = factor.diagonal()
    kept, whole = _kept(update, scale.square(), budget)
    if whole:
        return update
    found = torch.zeros_like(update)
    for column in range(update.shape[1]):
        before = found[:, column].clone()
        found[:, column] = torch.where(kept[:, column], update[:, column], before)
        off = (before - found[:, column]) / scale[column]
        found[:, column + 1 :] -= off[:, None] * factor[column, column + 1 :]
    return found


def _kept(update: torch.Tensor, inverse: torch.Tensor, budget: float) -> tuple[torch.Tensor, bool]:
    """Which numbers are kept, bool (p, q), and whether all are; `inverse` is [H⁻¹] of each column, (q,)."""
    import torch

    change = update.abs() > NOTHING * update.abs().max() if update.numel() else update.abs() > 0
    cost = torch.where(change, update.square() / (2 * inverse), 0.0 * update)
    keys = [(-inverse).expand_as(update), -update.abs()]  # the column first, then the size
    order = torch.argsort(keys[1].flatten(), stable=True)
    order = order[torch.argsort(keys[0].flatten()[order], stable=True)]
    within = cost.flatten()[order].cumsum(0) <= budget * cost.sum() * (1 + 1e-12)
    kept = torch.zeros(update.numel(), dtype=torch.bool, device=update.device)
    kept[order] = within
    return kept.view(update.shape) & change, bool(within.all())
