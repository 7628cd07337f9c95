"""SST-Merge with signs: any SST patch, corrected so that near misses are not refused more and utility stays as it is.

The GEVP and the shield weigh squares, and a square does not know which way a near miss moves: "refuse" moves harmful
prompts and their harmless twins alike. First-order constraints do know. Source: CONTESTS §4.1 and its table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

from sstmerge_core.methods.palette import ORANGE
from sstmerge_core.methods.registry import Choice, Look, method
from sstmerge_core.methods.shared import ADDED, CALIBRATION, KAPPA, RHO, STRENGTH
from sstmerge_core.methods.sst import K, Tau, patch_of
from sstmerge_core.methods.weighting import about_side

if TYPE_CHECKING:
    from sstmerge_core.gevp import DualPatch, DualProblem


def _acts(parameters: Mapping[str, Any], experts: int) -> str:
    target = "ΔS" if parameters["mode"] == "additive" else "ΔS − ΔU"
    part = target if parameters["patch"] == "phi" else f"the {parameters['patch']} part of {target}"
    kept = f"near misses' odds of a refusal at {parameters['kappa']:g} of what {target} does to them"
    signed = f"corrected by three multipliers fitted on calibration data ({kept}, utility unmoved)"
    return f"all of ΔU plus {parameters['alpha']:g} times {part}, {signed}{about_side(parameters, experts)}"


@method(
    "sst_signed",
    title="SST-Merge (signed)",
    family="SST-Merge",
    kind="patch",
    axis="strength",
    formula=r"\Delta W=\Delta U+\alpha\big(v+PA(A^{\mathsf{T}}PA)^{-1}(t-A^{\mathsf{T}}v)\big),\ "
    r"A=[\bar g_h,\bar g_r-\bar g_m,\bar g_b],\ t=(\bar g_h^{\mathsf{T}}v,\ \kappa(\bar g_r-\bar g_m)^{\mathsf{T}}"
    r"\varphi,\ 0),\ P=\big(I+\tau F_b/\lambda_{\max}\big)^{-1}",
    paper="SST-Merge (2026), signed patch",
    driver=(STRENGTH, RHO, *ADDED, *CALIBRATION),
    needs_fisher=True,
    needs_near=True,
    needs_refused=True,
    acts=_acts,
    oracle="numpy on dense d × d: v as above, P by `inv`, constraints by `solve`",
    look=Look(ORANGE, "hexagram", "dot"),
    idempotent={"mode": "interpolate"},
    swept=("k",),
    # neither of the two patches has a k
    contested={"patch": ("phi", "shield"), "k": (20,)},
)
def sst_signed(
    problem: DualProblem,
    *,
    patch: Annotated[
        str,
        Choice(("phi", "gevp", "soft", "shield"), "v, what is corrected: the whole safety update, or an SST patch."),
    ] = "phi",
    k: K = 20,
    tau: Tau = 100.0,
    kappa: Annotated[float, KAPPA.schema] = 0.0,
) -> DualPatch:
    """Correct a patch by signs: refuse harmful prompts as it does, near misses no more than told, utility unmoved."""
    from sstmerge_core.gevp import Signs

    return replace(patch_of(problem, patch, k, tau), signs=Signs(kappa, tau))
