"""Safe LoRA and SafeMERGE: change only the modules in which ΔU departs from a safe direction V.

V is the aligned minus the unaligned model's weights where such a pair is given. Without one the safety adapter's ΔS
stands in for it, which points where safety training went, and spans only as many directions as its rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from sstmerge_core.methods.linear import Share
from sstmerge_core.methods.palette import PINK
from sstmerge_core.methods.registry import Choice, Look, Parameter, Real, method
from sstmerge_core.methods.shared import WEIGHTS
from sstmerge_core.methods.singular import RANK_TOLERANCE
from sstmerge_core.methods.weighting import about_side, first

if TYPE_CHECKING:
    import torch

    from sstmerge_core.space import View

Threshold = Annotated[
    float, Real(-1.0, 1.0, 0.05, "Modules whose ΔU has a cosine below this with its aligned part are changed.")
]
PROJECTION = Parameter(
    "projection",
    Choice(
        ("projector", "published"),
        "What takes the aligned part of ΔU: the orthogonal projector onto the columns of V, V(VᵀV)⁺Vᵀ; or "
        "VVᵀ ÷ ‖V‖ as in the papers, which is no projector and grows with the size of V.",
        before="published",
    ),
    "projector",
)
C = r"C=V(V^{\mathsf{T}}V)^{+}V^{\mathsf{T}}\ \text{or as published}\ \frac{VV^{\mathsf{T}}}{\lVert V\rVert_F}"
V = r"V=W_{\text{aligned}}-W_{\text{unaligned}}\ \text{or}\ \Delta S"


def _below(parameters: Mapping[str, Any], experts: int) -> str:
    where = f"in the modules whose cosine is below {parameters['threshold']:g}, ΔU elsewhere"
    return where + about_side(parameters, experts)


def _projects(parameters: Mapping[str, Any], experts: int) -> str:
    return f"the part of ΔU along V {_below(parameters, experts)}"


def _mixes(parameters: Mapping[str, Any], experts: int) -> str:
    alpha = parameters["alpha"]
    return f"{1 - alpha:g} of ΔU and {alpha:g} of ΔS {_below(parameters, experts)}{first(parameters, experts)}"


@method(
    "safe_lora",
    title="Safe LoRA",
    family="Safety-aware",
    kind="core",
    axis=None,
    formula=rf"\Delta W=C\,\Delta U\ \text{{where}}\ \cos(\Delta U,C\Delta U)<\tau,\quad {C},\quad {V}",
    paper="Hsu et al. 2024, Safe LoRA",
    url="https://arxiv.org/abs/2405.16833",
    driver=(PROJECTION,),
    needs_aligned_part=True,
    acts=_projects,
    oracle="numpy with the dense C (out × out), scipy `orth` for the projector",
    look=Look(PINK, "hourglass", "dot"),
    idempotent={},
)
def safe_lora(view: View, *, threshold: Threshold = 0.35) -> torch.Tensor:
    """Keep of ΔU only what lies along the safe direction V in the modules where the two disagree."""
    assert view.aligned is not None
    return view.aligned if cosine(view.utility, view.aligned) < threshold else view.utility


@method(
    "safemerge",
    title="SafeMERGE",
    family="Safety-aware",
    kind="core",
    axis="share",
    formula=r"\Delta W=(1-\alpha)\Delta U+\alpha\Delta S\ \text{where}\ \cos(\Delta U,C\Delta U)<\tau,\quad "
    rf"{C},\quad {V}",
    paper="Djuhera et al. 2025, SafeMERGE",
    url="https://arxiv.org/abs/2503.17239",
    driver=(PROJECTION, WEIGHTS),
    needs_aligned_part=True,
    acts=_mixes,
    oracle="numpy with the dense C (out × out), scipy `orth` for the projector",
    look=Look(PINK, "hexagram", "dashdot"),
    idempotent={},
)
def safemerge(view: View, *, alpha: Share = 0.5, threshold: Threshold = 0.35) -> torch.Tensor:
    """Average with the safety adapter only in the modules where ΔU departs from the safe direction V."""
    assert view.aligned is not None
    if cosine(view.utility, view.aligned) >= threshold:
        return view.utility
    return (1.0 - alpha) * view.utility + alpha * view.safety


def along(direction: torch.Tensor, update: torch.Tensor, projection: str) -> torch.Tensor:
    """CΔ of Δ = `update` (m, q) for V = `direction` (m, n); both in one orthonormal basis of the outputs, or in none.

    ``projector``: C = V(VᵀV)⁺Vᵀ; ``published``: C = VVᵀ/‖V‖_F (Safe LoRA, eq. 1–2). Zero where V is.
    """
    import torch

    norm = float(direction.norm())
    if norm == 0.0:
        return update * 0
    if projection == "published":
        return direction @ (direction.T @ update) / norm
    basis, values, _ = torch.linalg.svd(direction.double(), full_matrices=False)
    basis = basis[:, values > RANK_TOLERANCE * values[0]]
    return (basis @ (basis.T @ update.double())).to(update)


def cosine(update: torch.Tensor, aligned: torch.Tensor) -> float:
    """cos(Δ, CΔ). Vanishing tensors count as agreeing (1): there is nothing to compare."""
    norms = float(update.norm()) * float(aligned.norm())
    return float((update * aligned).sum()) / norms if norms > 0 else 1.0
