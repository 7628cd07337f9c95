"""SST-Merge by Gauss–Newton: what a patch does to single samples is asked for, and linearised anew where it arrives.

Of each harmful prompt the loss of its refusal is to fall by what Task Arithmetic makes of it; of each near miss the
odds of refusing over helping are to move by κ of that; utility samples are to stay. One linear step did not carry over
to generation, so gradients are taken again at the moved point, pass by pass, while held-out samples get better. The
residuals are those of measured losses, t − f(δ): CONTESTS §4.2 has their linear estimate t − Xδ, the same in the first
pass. The held-out loss is L_h + wL_m + vL_u, as that of `sst_learned`. Source: CONTESTS §4.2; Nocedal & Wright,
Numerical Optimization, §10.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from sstmerge_core.methods.palette import PINK
from sstmerge_core.methods.registry import Look, Real, method
from sstmerge_core.methods.shared import BETA, EXPERTS, KAPPA, NEAR_WEIGHT, PASSES, STRENGTH, UTILITY_WEIGHT
from sstmerge_core.methods.weighting import about_side

if TYPE_CHECKING:
    import torch

    from sstmerge_core.gevp import LeastSquares


def _acts(parameters: Mapping[str, Any], experts: int) -> str:
    found = f"δ fitted in up to {parameters['passes']} passes over calibration data"
    target = f"to refuse harmful prompts as {parameters['alpha']:g} ΔS does, one multiplier a sample and pass"
    return f"all of ΔU plus {found}, {target}; it stops on held-out samples{about_side(parameters, experts)}"


@method(
    "sst_newton",
    title="SST-Merge (Gauss–Newton)",
    family="SST-Merge",
    kind="iterated",
    axis="strength",
    formula=r"\Delta W=\Delta U+\delta,\quad \delta\leftarrow\delta+X^{\mathsf{T}}(XX^{\mathsf{T}}+\rho I)^{-1}"
    r"\big(t-f(\delta)\big),\quad X=[h;\ r-m;\ \beta b]\ \text{at}\ \Delta U+\delta,\quad "
    r"t=\big(f_h(\alpha\Delta S),\ \kappa f_{r-m}(\alpha\Delta S),\ 0\big)",
    paper="SST-Merge (2026), iterated",
    driver=(STRENGTH, PASSES, KAPPA, BETA, NEAR_WEIGHT, UTILITY_WEIGHT, EXPERTS),
    needs_near=True,
    needs_refused=True,
    needs_held=True,
    acts=_acts,
    look=Look(PINK, "star", "solid"),
    swept=(),
)
def sst_newton(
    problem: LeastSquares,
    *,
    damping: Annotated[
        float, Real(0.0, 100.0, 0.05, "Least damping, relative to the mean eigenvalue.", open_low=True, symbol="ρ")
    ] = 0.1,
    radius: Annotated[
        float,
        Real(
            0.0,
            100.0,
            0.25,
            "Trust region: root mean square over the samples of what one pass may be predicted to change, nats.",
            open_low=True,
        ),
    ] = 1.0,
) -> torch.Tensor:
    """Fit what is added so that single samples' losses change as told, by Gauss–Newton passes that look anew."""
    return problem.step(damping, radius)
