"""The SST family: which part δ of the safety update φ is added to ΔU.

Methods of kind ``patch`` receive a `DualProblem` (Gram matrices of per-sample gradients and the projections of φ on
them) and return a `DualPatch`: δ = c₀φ + G_hᵀa + G_bᵀb. Methods of kind ``mask`` receive flat vectors in canonical core
coordinates and return a mask m in 0–1: δ = m⊙φ. The driver adds α·δ to ΔU. Sources: ALGORITHMS §4–5; SST-Merge (2026).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from sstmerge_core.methods.palette import ORANGE, PINK, PURPLE, VERMILION
from sstmerge_core.methods.registry import Choice, Look, Real, Whole, method
from sstmerge_core.methods.shared import ADDED, CALIBRATION, RHO, STRENGTH
from sstmerge_core.methods.weighting import about_side

if TYPE_CHECKING:
    import torch

    from sstmerge_core.gevp import DualPatch, DualProblem
    from sstmerge_core.space import View

K = Annotated[
    int,
    Whole(1, 100_000, help="Directions kept, most harm per benign curvature first. Clipped to the rank.", telling=True),
]
Tau = Annotated[
    float, Real(0.0, 1e6, 10.0, "How strongly benign curvature forbids a direction.", symbol="τ", telling=True)
]
Masking = Annotated[
    str, Choice(("soft", "top"), "soft: fade in between the 5th and the 95th percentile of log r. top: keep a share.")
]
Fraction = Annotated[
    float, Real(0.0, 1.0, 0.05, "Share of the coordinates kept where the mask is “top”.", open_low=True)
]

PAPER = "SST-Merge (2026)"


def _acts(parameters: Mapping[str, Any], experts: int) -> str:
    target = "ΔS" if parameters["mode"] == "additive" else "ΔS − ΔU"
    strength = f"{parameters['alpha']:g} times" if "alpha" in parameters else "as much as the budget allows of"
    return f"all of ΔU plus {strength} the selected part δ of {target}" + about_side(parameters, experts)


@method(
    "sst_gevp",
    title="SST-Merge (GEVP)",
    family="SST-Merge",
    kind="patch",
    axis="strength",
    formula=r"\Delta W=\Delta U+\alpha V_kV_k^{\mathsf{T}} B\varphi,\quad F_hv=\lambda(F_b+\gamma I)v",
    paper=PAPER,
    driver=(STRENGTH, RHO, *ADDED, *CALIBRATION),
    needs_fisher=True,
    acts=_acts,
    oracle="scipy `eigh(F_h, F_b + γI)` on dense d × d",
    look=Look(VERMILION, "diamond", "solid"),
    idempotent={"mode": "interpolate"},
)
def sst_gevp(problem: DualProblem, *, k: K = 20) -> DualPatch:
    """Add the safety update projected onto the k directions with most harm per benign curvature."""
    spectrum = problem.spectrum
    keep = min(k, spectrum.rank)
    filters = problem.zeros(spectrum.rank)
    filters[:keep] = 1.0 / spectrum.eigenvalues[:keep]
    return problem.from_filter(filters, kept=keep)


@method(
    "sst_soft",
    title="SST-Merge (soft)",
    family="SST-Merge",
    kind="patch",
    axis="strength",
    formula=r"\Delta W=\Delta U+\alpha V\,\mathrm{diag}\!\big(\tfrac{\lambda}{\lambda+\tau}\big)c,\quad \tau=\lambda_k",
    paper=f"{PAPER}, soft filter",
    driver=(STRENGTH, RHO, *ADDED, *CALIBRATION),
    needs_fisher=True,
    acts=_acts,
    oracle="scipy `eigh(F_h, F_b + γI)` on dense d × d",
    look=Look(ORANGE, "star", "dash"),
    idempotent={"mode": "interpolate"},
)
def sst_soft(problem: DualProblem, *, k: K = 20) -> DualPatch:
    """Like the GEVP, but fade directions out around λ_k instead of cutting them off."""
    spectrum = problem.spectrum
    keep = min(k, spectrum.rank)
    tau = spectrum.eigenvalues[keep - 1] if keep else 1.0
    return problem.from_filter(1.0 / (spectrum.eigenvalues + tau), kept=keep)


@method(
    "sst_shield",
    title="SST-Merge (shield)",
    family="SST-Merge",
    kind="patch",
    axis="strength",
    formula=r"\Delta W=\Delta U+\alpha\big(I+\tau F_b/\lambda_{\max}(F_b)\big)^{-1}\varphi",
    paper=f"{PAPER}, limit F_h → I",
    driver=(STRENGTH, *ADDED, *CALIBRATION),
    needs_fisher=True,
    acts=_acts,
    oracle="numpy `solve(I + τF_b/λ, φ)` on dense d × d",
    look=Look(PINK, "hexagon", "longdash"),
    idempotent={"mode": "interpolate"},
)
def sst_shield(problem: DualProblem, *, tau: Tau = 100.0) -> DualPatch:
    """Add the whole safety update except what benign curvature forbids."""
    return problem.shield(tau)


@method(
    "sst_diag",
    title="SST-Merge (diagonal)",
    family="SST-Merge",
    kind="mask",
    axis="strength",
    formula=r"\Delta W=\Delta U+\alpha\,m\odot\varphi,\quad m=\mathrm{mask}\big(f_h/(f_b+\epsilon)\big)",
    paper=f"{PAPER}, as published, in canonical core coordinates",
    driver=(STRENGTH, *ADDED, *CALIBRATION),
    needs_fisher=True,
    acts=_acts,
    oracle="numpy in the canonical basis of the dense ΔW",
    look=Look(PURPLE, "diamond-tall", "dash"),
    idempotent={"mode": "interpolate"},
)
def sst_diag(view: View, *, mask: Masking = "soft", fraction: Fraction = 0.2) -> torch.Tensor:
    """Weigh each coordinate of the safety update by its ratio of harmful to benign diagonal Fisher."""
    assert view.harm is not None and view.benign is not None
    epsilon = 1e-6 * view.benign.mean().clamp(min=1e-30)
    return mask_of(view.harm / (view.benign + epsilon), mask, fraction)


@method(
    "sst_datafree",
    title="SST-Merge (data-free)",
    family="SST-Merge",
    kind="mask",
    axis="strength",
    formula=r"\Delta W=\Delta U+\alpha\,m\odot\varphi,\quad m=\mathrm{mask}\Big(\frac{(\varphi_S-\varphi_U)^2"
    r"+\epsilon}{\varphi_U^2+\epsilon}\Big)",
    paper=f"{PAPER}, without calibration data",
    driver=(STRENGTH, *ADDED),
    acts=_acts,
    oracle="numpy in the canonical basis of the dense ΔW",
    look=Look(PURPLE, "diamond-wide", "dot"),
    idempotent={"mode": "interpolate"},
)
def sst_datafree(view: View, *, mask: Masking = "soft", fraction: Fraction = 0.2) -> torch.Tensor:
    """The diagonal method's mask from the adapters alone: where safety differs most from utility."""
    utility = view.utility.square()
    # of both sides and added to both: neither rounding, where both are zero, nor a ΔU that is zero may decide
    epsilon = 1e-6 * (utility + view.safety.square()).mean().clamp(min=1e-30)
    return mask_of(((view.safety - view.utility).square() + epsilon) / (utility + epsilon), mask, fraction)


@method(
    "sst_budget",
    title="SST-Merge (budget)",
    family="SST-Merge",
    kind="patch",
    axis=None,
    formula=r"\Delta W=\Delta U+\alpha^\ast\delta,\quad \alpha^\ast=\max\{\alpha\le 4:\ \alpha\bar g_b^{\mathsf{T}}"
    r"\delta+\tfrac12\alpha^2\delta^{\mathsf{T}}F_b\delta\le\varepsilon\}",
    paper=f"{PAPER}, utility budget",
    driver=(RHO, *ADDED, *CALIBRATION),
    needs_fisher=True,
    acts=_acts,
    oracle="scipy `brentq` on the dense cost, δ as above",
    look=Look(VERMILION, "star-diamond", "dot"),
    idempotent={"mode": "interpolate"},
    swept=(),  # its default patch has no k
    measures_budget=lambda parameters: parameters["unit"] != "nats",
)
def sst_budget(
    problem: DualProblem,
    *,
    budget: Annotated[
        float,
        Real(0.0, 100.0, 0.01, "Utility that may be lost: nats per token, points, or percent of U's.", open_low=True),
    ] = 0.05,
    unit: Annotated[
        str,
        Choice(
            ("nats", "rouge_l", "percent"),
            "nats: predicted from the benign Fisher. rouge_l: points of 0–100 of the task's metric, measured on the "
            "selection split by bisecting α. percent: likewise, of what the utility adapter alone has.",
        ),
    ] = "nats",
    patch: Annotated[str, Choice(("gevp", "soft", "shield"), "Which δ the strength is found for.")] = "shield",
    k: K = 20,
    tau: Tau = 100.0,
    over_refusal: Annotated[
        float,
        Real(
            0.0,
            1.0,
            0.05,
            "Share of the harmless look-alikes that may be refused at most, measured on the selection split where the "
            "budget is; 1: no limit.",
            before=1.0,
        ),
    ] = 1.0,
) -> DualPatch:
    """State what may be lost, and what may be refused too much, and get the largest strength α that keeps to it."""
    return replace(patch_of(problem, patch, k, tau), budget=budget if unit == "nats" else None)


def patch_of(problem: DualProblem, patch: str, k: int, tau: float) -> DualPatch:
    """The patch of one of the family's methods by its short name; ``phi``: all of the safety update."""
    if patch == "gevp":
        return sst_gevp(problem, k=k)
    if patch == "soft":
        return sst_soft(problem, k=k)
    return sst_shield(problem, tau=tau if patch == "shield" else 0.0)


def mask_of(ratio: torch.Tensor, mask: str, fraction: float) -> torch.Tensor:
    """A mask in 0–1 of the shape of `ratio`, which is ≥ 0 (ALGORITHMS §5).

    ``top``: 1 for the ⌈fraction·d⌉ largest. ``soft``: log r, clipped to and scaled from its 5th–95th percentile.
    """
    import math

    import torch

    if not len(ratio):
        return ratio
    if mask == "top":
        chosen = ratio.topk(math.ceil(fraction * ratio.numel()), sorted=False).indices
        return torch.zeros_like(ratio).index_fill_(0, chosen, 1.0)
    logarithm = ratio.clamp(min=1e-30).log()
    ordered = logarithm.sort().values
    low, high = (ordered[round(share * (len(ordered) - 1))] for share in (0.05, 0.95))
    # ratios within 1 % of each other are equal: otherwise rounding errors would be stretched over 0–1
    return ((logarithm - low) / (high - low).clamp(min=0.01)).clamp(0.0, 1.0)
