"""What the quadratic model of the losses predicts of a merge, before anything is generated (ALGORITHMS §5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

    from sstmerge_core.merge.merged import MergedModule
    from sstmerge_core.merge.patch import Calibrated
    from sstmerge_core.space import CoreModule


class Prediction(NamedTuple):
    """Of a merge against the mean of its utility experts, with δ the difference in core coordinates.

    The empirical Fisher stands in for the Hessian, and what leaves the adapters' core space is not seen, so both
    figures order merges; they are not the losses that will be measured.
    """

    benign_cost: float
    """ḡ_bᵀδ + ½δᵀF_bδ, nats per token of the benign samples"""
    harm_change: float
    """ḡ_hᵀδ + ½δᵀF_hδ, nats per token of the refusals of harmful samples; falling means more refusing"""
    kept_harm_energy: float
    """δᵀF_hδ / φᵀF_hφ with φ the safety adapter: 1 for all of it at strength 1"""


def predict(calibrated: Calibrated, merged: Mapping[str, MergedModule]) -> Prediction:
    """The prediction for ΔW of `merged`, from gradients taken at base + ΔU; one dense module in memory at a time."""
    import torch

    from sstmerge_core.fisher.problem import project
    from sstmerge_core.gevp import Cost

    harm, benign = calibrated.harm, calibrated.benign
    on_harm = torch.zeros(len(harm), dtype=torch.float64)
    of_safety, on_benign = on_harm.clone(), torch.zeros(len(benign), dtype=torch.float64)
    for name, module in calibrated.space.items():
        experts = module.cores[:-1]
        utility = torch.stack(experts).mean(0) if experts else torch.zeros_like(module.cores[-1])
        change = _in_core_space(module, merged[name]) - utility if name in merged else -utility
        on_harm += project(harm, name, change)
        on_benign += project(benign, name, change)
        of_safety += project(harm, name, module.cores[-1])
    energy = float(of_safety.square().sum())
    return Prediction(
        Cost.of(on_benign, benign.tokens, benign.weights).at(1.0),
        Cost.of(on_harm, harm.tokens, harm.weights).at(1.0),
        float(on_harm.square().sum()) / energy if energy else 0.0,
    )


def _in_core_space(module: CoreModule, merged: MergedModule) -> torch.Tensor:
    """Q_oᵀ ΔW Q_i, (p, q)."""
    if merged.factors is None:
        return module.q_out.T @ merged.delta() @ module.q_in
    a, b = merged.factors()
    return (module.q_out.T @ b) @ (a @ module.q_in)
