"""The SST family: which part δ of the safety update is added, solved in the dual of the samples.

Each function receives a `DualProblem` (Gram matrices of per-sample gradients and the projections of φ on them) and
returns a `DualPatch`: δ = c₀φ + G_hᵀa + G_bᵀb. The driver adds α·δ to ΔU. Sources: the project's ALGORITHMS notes,
§4–5; SST-Merge (2026).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from sstmerge_core.methods.combine import Strength
from sstmerge_core.methods.registry import Choice, Flag, Real, Whole, method

if TYPE_CHECKING:
    from sstmerge_core.gevp import DualPatch, DualProblem

Mode = Annotated[
    str, Choice(("additive", "interpolate"), "φ = ΔS (add it to ΔU), or φ = ΔS − ΔU (move from ΔU towards ΔS).")
]
Layerwise = Annotated[bool, Flag("Solve one eigenvalue problem per module instead of one for all.")]
Rho = Annotated[
    float,
    Real(0.0, 10.0, 0.05, "Ridge on the benign Fisher, relative to its mean eigenvalue.", open_low=True),
]
K = Annotated[
    int,
    Whole(1, 100_000, help="Directions kept, most harm per benign curvature first. Clipped to the rank."),
]


@method(
    "sst_gevp",
    title="SST-Merge (GEVP)",
    kind="patch",
    axis="strength",
    formula=r"\Delta W=\Delta U+\alpha V_kV_k^{\mathsf{T}} B\varphi,\quad F_hv=\lambda(F_b+\gamma I)v",
    paper="SST-Merge (2026)",
)
def sst_gevp(
    problem: DualProblem,
    *,
    alpha: Strength = 1.0,
    k: K = 20,
    rho: Rho = 0.1,
    mode: Mode = "additive",
    layerwise: Layerwise = False,
) -> DualPatch:
    """Add the safety update projected onto the k directions with most harm per benign curvature."""
    spectrum = problem.spectrum
    keep = min(k, spectrum.rank)
    filters = problem.zeros(spectrum.rank)
    filters[:keep] = 1.0 / spectrum.eigenvalues[:keep]
    return problem.from_filter(filters, kept=keep)


@method(
    "sst_soft",
    title="SST-Merge (soft)",
    kind="patch",
    axis="strength",
    formula=r"\Delta W=\Delta U+\alpha V\,\mathrm{diag}\!\big(\tfrac{\lambda}{\lambda+\tau}\big)c,\quad \tau=\lambda_k",
    paper="SST-Merge (2026), soft filter",
)
def sst_soft(
    problem: DualProblem,
    *,
    alpha: Strength = 1.0,
    k: K = 20,
    rho: Rho = 0.1,
    mode: Mode = "additive",
    layerwise: Layerwise = False,
) -> DualPatch:
    """Like the GEVP, but fade directions out around λ_k instead of cutting them off."""
    spectrum = problem.spectrum
    keep = min(k, spectrum.rank)
    tau = spectrum.eigenvalues[keep - 1] if keep else 1.0
    return problem.from_filter(1.0 / (spectrum.eigenvalues + tau), kept=keep)


@method(
    "sst_shield",
    title="SST-Merge (shield)",
    kind="patch",
    axis="strength",
    formula=r"\Delta W=\Delta U+\alpha\big(I+\tau F_b/\lambda_{\max}(F_b)\big)^{-1}\varphi",
    paper="SST-Merge (2026), limit F_h → I",
)
def sst_shield(
    problem: DualProblem,
    *,
    alpha: Strength = 1.0,
    tau: Annotated[float, Real(0.0, 1e6, 10.0, "How strongly benign curvature forbids a direction.")] = 100.0,
    mode: Mode = "additive",
    layerwise: Layerwise = False,
) -> DualPatch:
    """Add the whole safety update except what benign curvature forbids."""
    return problem.shield(tau)
