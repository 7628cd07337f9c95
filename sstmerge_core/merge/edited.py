"""Edits of whole weights: ΔU + αΔS and beside it LRᵀ(W₀ + ΔU + αΔS), exact and low-rank."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from sstmerge_core.merge.combination import Adapters, weighted_sum
from sstmerge_core.merge.merged import Merged, MergedModule, Pair
from sstmerge_core.methods.weighting import side

if TYPE_CHECKING:
    import torch

    from sstmerge_core.fitting import Fit
    from sstmerge_core.methods.edits import Edit


def edited(adapters: Adapters, parameters: Mapping[str, Any], base: Callable[[str], torch.Tensor], fit: Fit) -> Merged:
    """The merge with the edits of `fit`; ``edited`` says of which modules. `base` gives W₀ (out, in) float32.

    One dense weight in memory at a time. The rank is that of the sum and of the largest edit together.
    """
    from sstmerge_core.fitting import edits_of

    weights = (*side(len(adapters) - 1, parameters["experts"]), parameters["alpha"])
    summed = weighted_sum(adapters, dict.fromkeys(sorted(set().union(*adapters)), weights))
    edits = edits_of(fit)
    modules = dict(summed.modules)
    for name, own in edits.items():
        factors = summed.modules[name].factors if name in summed.modules else None
        modules[name] = MergedModule.product(partial(_with, factors, base, name, own))
    rank = summed.rank + max((own.left.shape[1] for own in edits.values()), default=0)
    told = [{"module": name, "stat": "edited", "value": float(name in edits)} for name in modules]
    share = len(edits) / max(1, len(modules))
    statistics = [*fit.statistics, *told, {"module": "", "stat": "edited", "value": share}]
    return Merged(dict(sorted(modules.items())), rank, statistics=statistics)


def _with(factors: Callable[[], Pair] | None, base: Callable[[str], torch.Tensor], name: str, own: Edit) -> Pair:
    """A = [A; RᵀW], B = [B, L] with W = W₀ + BA."""
    import torch

    whole = base(name)
    right, left = own.right.to(whole), own.left.to(whole)
    if factors is None:
        return right.T @ whole, left
    a, b = factors()
    through = right.T @ whole.to(b) + (right.T.to(b) @ b) @ a
    return torch.cat([a, through]), torch.cat([b, left.to(b)], dim=1)
