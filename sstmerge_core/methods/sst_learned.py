"""SST-Merge with learned coefficients: how much of each direction of ΔU and of ΔS is kept is fitted, not chosen.

ΔU_j = Σ_i σ_i u_i v_iᵀ becomes Σ_i a_i σ_i u_i v_iᵀ, and ΔS_j likewise with b_i; or one a and one b a module. The fit
starts at Task Arithmetic, a = 1 and b = α, and takes Adam steps on the losses of refusing harmful prompts, of helping
with near misses and of the utility samples (`sstmerge_core.fitting`). Coefficients per task vector and layer are
those of AdaMerging (Yang et al., ICLR 2024, arXiv 2310.02575), which fits them to the entropy of unlabelled answers;
LoraHub (Huang et al. 2023, arXiv 2307.13269) fits one per adapter to few-shot losses without gradients. Source of the
loss: CONTESTS §4.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from sstmerge_core.methods.palette import VERMILION
from sstmerge_core.methods.registry import Choice, Look, method
from sstmerge_core.methods.shared import EXPERTS, LEARNING, STRENGTH
from sstmerge_core.methods.weighting import about_side

if TYPE_CHECKING:
    import torch

    from sstmerge_core.methods.coefficients import Coefficients
    from sstmerge_core.space import View

NOISE = 1e-5
"""Singular values below this share of a module's largest are rounding, not directions"""


def _acts(parameters: Mapping[str, Any], experts: int) -> str:
    what = "each singular direction" if parameters["coefficients"] == "direction" else "every module"
    start = f"from 1 on ΔU and {parameters['alpha']:g} on ΔS"
    fitted = f"{parameters['steps']} steps on calibration data; the statistic “fitted” says how many"
    return f"{what} of ΔU and of ΔS times a coefficient fitted {start}, {fitted}{about_side(parameters, experts)}"


@method(
    "sst_learned",
    title="SST-Merge (learned)",
    family="SST-Merge",
    kind="learned",
    axis="strength",
    formula=r"\Delta W_j=U_j\,\mathrm{diag}(\sigma_j a_j)V_j^{\mathsf{T}}+U'_j\,\mathrm{diag}(\sigma'_j b_j)"
    r"V_j'^{\mathsf{T}},\quad (a,b)\leftarrow\arg\min\ L_h+wL_m+vL_u+\rho\,\overline{\|(a,b)-(1,\alpha)\|^2}",
    paper="SST-Merge (2026), coefficients fitted as in AdaMerging (Yang et al. 2024)",
    url="https://arxiv.org/abs/2310.02575",
    driver=(STRENGTH, *LEARNING, EXPERTS),
    needs_near=True,
    acts=_acts,
    look=Look(VERMILION, "hexagram", "longdash"),
    keeps_utility=False,
    swept=("seed",),
)
def sst_learned(
    view: View,
    alpha: float,
    *,
    coefficients: Annotated[
        str,
        Choice(
            ("direction", "module"),
            "direction: a number for each singular direction of ΔU and of ΔS in every module. module: one for ΔU and "
            "one for ΔS in every module.",
        ),
    ] = "direction",
) -> Coefficients:
    """Fit, on calibration data, how much of each direction of the utility and of the safety adapter is kept."""
    import torch

    from sstmerge_core.methods.coefficients import Coefficients

    left_u, right_u = directions(view.utility)
    left_s, right_s = directions(view.safety)
    left, right = torch.cat([left_u, left_s], 1), torch.cat([right_u, right_s])
    ranks = (left_u.shape[1], left_s.shape[1])
    # which coefficient each direction has; a side that changes nothing here has none
    each = torch.arange(sum(ranks), device=left.device)
    if coefficients == "module":
        each = torch.cat([each.new_zeros(ranks[0]), each.new_full((ranks[1],), int(ranks[0] > 0))])
    count_u, count_s = ranks if coefficients == "direction" else tuple(int(rank > 0) for rank in ranks)
    start = torch.cat([left.new_ones(count_u), left.new_full((count_s,), alpha)])
    told = {"weight_utility": slice(0, count_u), "weight_safety": slice(count_u, count_u + count_s)}
    return Coefficients(start, lambda own: (left * own[each]) @ right, told)


def directions(core: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """σ_i u_i as columns (p, r) and v_iᵀ as rows (r, q) of a core matrix (p, q), float64, without rounding noise."""
    import torch

    u, s, vt = torch.linalg.svd(core.double(), full_matrices=False)
    rank = int((s > NOISE * s[:1].clamp(min=1e-30)).sum())
    return u[:, :rank] * s[:rank], vt[:rank]
