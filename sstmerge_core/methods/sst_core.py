"""SST-Merge with a free core: everything that any merge within the span of the two adapters could be.

Every linear combination of ΔU and ΔS, and what any method in core coordinates gives, is Q_out M Q_inᵀ with some M of
Σ p·q numbers (ALGORITHMS §2). Here all of them are fitted, from the same start, to the same loss and by the same steps
as the coefficients of `sst_learned`. It is training on the calibration data with the bases of two adapters, no longer
a merge of what they learned: an upper bound to read other methods against. Source: CONTESTS §4.4; the parametrisation
is that of LoRA-XS (Bałazy et al. 2024, arXiv 2405.17604), a small matrix between two frozen orthonormal ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sstmerge_core.methods.palette import PURPLE
from sstmerge_core.methods.registry import Look, method
from sstmerge_core.methods.shared import EXPERTS, LEARNING, STRENGTH
from sstmerge_core.methods.weighting import about_side

if TYPE_CHECKING:
    from sstmerge_core.methods.coefficients import Coefficients
    from sstmerge_core.space import View


def _acts(parameters: Mapping[str, Any], experts: int) -> str:
    start = f"from ΔU + {parameters['alpha']:g} ΔS, {parameters['steps']} steps on calibration data"
    told = "an upper bound, not a merge of what they learned; the statistic “fitted” says how many numbers"
    return f"every number of the space that ΔU and ΔS span fitted {start}: {told}{about_side(parameters, experts)}"


@method(
    "sst_core",
    title="SST-Merge (free core)",
    family="SST-Merge",
    kind="learned",
    axis="strength",
    formula=r"\Delta W_j=Q_{o,j}M_jQ_{i,j}^{\mathsf{T}},\quad M\leftarrow\arg\min\ L_h+wL_m+vL_u+\rho\,"
    r"\overline{\big((M-M_0)/s\big)^2},\quad M_0=\Delta U+\alpha\Delta S",
    paper="SST-Merge (2026), upper bound; parametrised as LoRA-XS (Bałazy et al. 2024)",
    url="https://arxiv.org/abs/2405.17604",
    driver=(STRENGTH, *LEARNING, EXPERTS),
    needs_near=True,
    acts=_acts,
    look=Look(PURPLE, "hexagram", "longdashdot"),
    keeps_utility=False,
    swept=("seed",),
)
def sst_core(view: View, alpha: float) -> Coefficients:
    """Fit every number of the space that the adapters span: what any merge in it could reach at most, not a merge."""
    from sstmerge_core.methods.coefficients import Coefficients

    start = view.utility + alpha * view.safety
    # in units of what the adapters' own numbers are large, so that a step is a share of them in every module
    size = (view.utility.square().sum() + view.safety.square().sum()).sqrt() / max(1, start.numel()) ** 0.5
    return Coefficients(start.new_zeros(start.numel()).double(), lambda own: start + size * own.view(start.shape))
